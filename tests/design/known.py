"""Problems with known optima, as functions of all variables that return f₀, ∂f₀, f, ∂f."""

import numpy as np


def part(comm, n):
    """This rank's share of n variables; the last ranks may have none."""
    return slice(*(n * np.array([comm.rank, comm.rank + 1]) // comm.size))


def minimize(comm, functions, x, lower, upper, make, *, steps=60):
    """Run an optimizer on this rank's variables; returns all variables, f₀, f and the optimizer.

    `make(comm, lower, upper)` gives the optimizer.
    """
    here = part(comm, len(x))
    optimizer = make(comm, np.array(lower[here]), np.array(upper[here]))
    x = np.array(x, dtype=float)
    evaluate = lambda mine: functions(np.concatenate(comm.allgather(mine)))[::2]
    for _ in range(steps):
        f0, df0, f, df = functions(x)
        mine = optimizer.step(x[here], f0, df0[..., here], f, np.atleast_2d(df)[:, here], evaluate)
        assert mine.shape == x[here].shape
        x = np.concatenate(comm.allgather(mine))
        assert (x >= lower).all()
        assert (x <= upper).all()
    return x, *functions(x)[::2], optimizer


def cantilever(x):
    """Svanberg 1987: weight of a beam of five boxes under a limit on the tip's displacement; 1.339956."""
    c = np.array([61.0, 37.0, 19.0, 7.0, 1.0])
    return 0.0624 * x.sum(), np.full(5, 0.0624), np.array([np.sum(c / x**3) - 1]), -3 * (c / x**4)[None]


def two_balls(x):
    """Svanberg's example: the point of two balls next to the origin; 8.770246."""
    a, b = np.array([5.0, 2.0, 1.0]), np.array([3.0, 4.0, 3.0])
    f = np.array([np.sum((x - a) ** 2) - 9, np.sum((x - b) ** 2) - 9])
    return x @ x, 2 * x, f, 2 * np.array([x - a, x - b])


def hock_schittkowski_24(x):
    """Cubic objective, three linear constraints, 0 ≤ x; −1 at (3, √3)."""
    x1, x2 = x
    r = 3**0.5
    f0 = ((x1 - 3) ** 2 - 9) * x2**3 / (27 * r)
    df0 = np.array([2 * (x1 - 3) * x2**3, ((x1 - 3) ** 2 - 9) * 3 * x2**2]) / (27 * r)
    rows = np.array([[-1 / r, 1.0], [-1.0, -r], [1.0, r]])
    return f0, df0, rows @ x - np.array([0.0, 0.0, 6.0]), rows


def hock_schittkowski_43(x):
    """Rosen and Suzuki: quadratic, three constraints; −44 at (0, 1, 2, −1)."""
    a, b, c, d = x
    f0 = a * a + b * b + 2 * c * c + d * d - 5 * a - 5 * b - 21 * c + 7 * d
    df0 = np.array([2 * a - 5, 2 * b - 5, 4 * c - 21, 2 * d + 7])
    f = np.array(
        [
            a * a + b * b + c * c + d * d + a - b + c - d - 8,
            a * a + 2 * b * b + c * c + 2 * d * d - a - d - 10,
            2 * a * a + b * b + c * c + 2 * a - b - d - 5,
        ]
    )
    df = np.array(
        [
            [2 * a + 1, 2 * b - 1, 2 * c + 1, 2 * d - 1],
            [2 * a - 1, 4 * b, 2 * c, 4 * d - 1],
            [4 * a + 2, 2 * b - 1, 2 * c, -1.0],
        ]
    )
    return f0, df0, f, df


def svanberg_matrices(n):
    """S, P and Q of the test problems in Svanberg 2002, section 6."""
    i, j = np.arange(1, n + 1)[:, None], np.arange(1, n + 1)[None, :]
    alpha = (i + j - 2) / (2 * n - 2)
    S = (2 + np.sin(4 * np.pi * alpha)) / ((1 + np.abs(i - j)) * np.log(n))
    P = (1 + 2 * alpha) / ((1 + np.abs(i - j)) * np.log(n))
    Q = (3 - 2 * alpha) / ((1 + np.abs(i - j)) * np.log(n))
    return S, P, Q


def svanberg_first(n):
    """min xᵀSx subject to n/2 − xᵀPx ≤ 0 and n/2 − xᵀQx ≤ 0 on [−1, 1]ⁿ: not convex."""
    S, P, Q = svanberg_matrices(n)
    return lambda x: (
        x @ S @ x,
        2 * S @ x,
        np.array([n / 2 - x @ P @ x, n / 2 - x @ Q @ x]),
        np.array([-2 * P @ x, -2 * Q @ x]),
    )


def svanberg_second(n):
    """min −xᵀSx subject to xᵀPx − n/2 ≤ 0 and xᵀQx − n/2 ≤ 0 on [−1, 1]ⁿ: not convex."""
    S, P, Q = svanberg_matrices(n)
    return lambda x: (
        -x @ S @ x,
        -2 * S @ x,
        np.array([x @ P @ x - n / 2, x @ Q @ x - n / 2]),
        np.array([2 * P @ x, 2 * Q @ x]),
    )


def knapsack(n, seed=0):
    """min −Σ v log(1 + x), Σ w x ≤ budget on [0, 1]ⁿ, and its exact solution."""
    from scipy.optimize import brentq

    rng = np.random.default_rng(seed)
    v, w = rng.uniform(0.5, 2, n) / n, rng.uniform(0.5, 2, n) / n
    budget = 0.4 * w.sum()
    solution = lambda lam: np.clip(v / (lam * w) - 1, 0, 1)
    lam = brentq(lambda lam: w @ solution(lam) - budget, 1e-3, 10, xtol=1e-15)
    functions = lambda x: (
        -v @ np.log1p(x),
        -v / (1 + x),
        np.array([w @ x / budget - 1]),
        (w / budget)[None],
    )
    return functions, solution(lam), lam * budget


def linear_program(n, m, seed=0):
    """min c·x, A x ≥ b on [0, 1]ⁿ with m constraints, and its optimum by HiGHS."""
    from scipy.optimize import linprog

    rng = np.random.default_rng(seed)
    A, c = rng.uniform(0, 1, (m, n)), rng.uniform(0.5, 1.5, n)
    b = A.sum(1) * rng.uniform(0.2, 0.4, m)
    best = linprog(c, A_ub=-A, b_ub=-b, bounds=(0, 1)).fun
    return lambda x: (c @ x, c, b - A @ x, -A), best


def minimax(x):
    """Charalambous and Bandler's first: max of three functions; 1.952224494 at (1.139038, 0.899560)."""
    a, b = x
    e = 2 * np.exp(b - a)
    f0 = np.array([a**2 + b**4, (2 - a) ** 2 + (2 - b) ** 2, e])
    df0 = np.array([[2 * a, 4 * b**3], [-2 * (2 - a), -2 * (2 - b)], [-e, e]])
    return f0, df0, np.zeros(0), np.zeros((0, 2))


def matched(n, k, seed=0):
    """Largest of k sums Σ wₗ (x − 1)², one for each part of the variables, with Σ x ≤ n/2: all alike.

    With n/k variables of weight a each and shares s: a (n/k) (1 − s)² alike and the shares' mean ½.
    """
    rng = np.random.default_rng(seed)
    a = rng.uniform(0.5, 2, k)
    group = np.arange(n) % k
    # a (1 − s)² = t: 1 − s = √(t/a), whose mean is ½.
    t = (0.5 / np.mean(1 / np.sqrt(a))) ** 2
    rows = (group[None] == np.arange(k)[:, None]) * (a / (n / k))[:, None]
    functions = lambda x: (
        rows @ (x - 1) ** 2,
        2 * rows * (x - 1),
        np.array([x.mean() / 0.5 - 1]),
        np.full((1, n), 2 / n),
    )
    return functions, t
