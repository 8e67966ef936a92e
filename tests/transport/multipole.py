"""Effective conductivity of regular arrays by Rayleigh's multipole method, in numpy: no finite elements.

Matrix conductivity 1, lattice with one disc or sphere per cell. The potential around each is Σ A r^l + B
r^−l (2D) or Σ A r^l + B r^(−l−1) (3D) times harmonics; the interface ties B to A, and the A are the field of
all other inclusions, through lattice sums. Perrins, McKenzie and McPhedran (1979),
doi:10.1098/rspa.1979.0160; McPhedran and McKenzie (1978), doi:10.1098/rspa.1978.0031; McKenzie, McPhedran
and Derrick (1978), Proc. R. Soc. A 362, 211.

An interface resistance R gives the harmonic of degree l in an inclusion of radius a the conductivity k/(1 +
l R k/a).
"""

from functools import cache
from math import comb, factorial, pi

import numpy as np
from scipy.special import gammaincc, gammaln, lpmv, zeta

#: Lattice vectors, the edge of the (cubic) cell or the distance of neighbours 1.
LATTICES = {
    "square": [[1, 0], [0, 1]],
    "hexagonal": [[1, 0], [0.5, 3**0.5 / 2]],
    "sc": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "bcc": [[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5]],
    "fcc": [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]],
}


def mode_conductivity(k, radius, resistance, degree):
    """What the harmonic of a degree sees of an inclusion."""
    if resistance == 0:
        return k
    return 1 / (1 / k + degree * resistance / radius) if k > 0 else 0.0


def effective(lattice, fraction, k, resistance=0.0, order=None):
    """Effective conductivity of a square, hexagonal, sc, bcc or fcc array.

    Args:
        lattice: its name.
        fraction: of the inclusions.
        k: their conductivity, 0 to infinity.
        resistance: of their interfaces, length (edge of the cell: 1) over conductivity.
        order: largest degree of the harmonics.
    """
    volume = abs(np.linalg.det(np.array(LATTICES[lattice], dtype=float)))
    if len(LATTICES[lattice]) == 2:
        return _discs(lattice, volume, fraction, k, resistance, order or 81)
    return _spheres(lattice, volume, fraction, k, resistance, order or 33)


def _reflection(dim, degree, k):
    """B/A of a unit disc or sphere, with the sign changed."""
    outer = 1.0 if dim == 2 else (degree + 1) / degree
    return 1.0 if np.isinf(k) else (k - 1) / (k + outer)


def _discs(lattice, volume, fraction, k, resistance, order):
    a = (fraction * volume / pi) ** 0.5
    degrees = range(1, order + 1, 2)
    T = np.array([_reflection(2, n, mode_conductivity(k, a, resistance, n)) for n in degrees])
    # A_l a^l = a δ_l1 + Σ_m (−1)^m C(m+l−1, l) S_{m+l} a^{m+l} (B_m a^{−m}), B_m a^{−m} = −T_m A_m a^m
    M = np.array(
        [
            [(-1) ** m * comb(m + n - 1, n) * _eisenstein(lattice, m + n) * a ** (m + n) for m in degrees]
            for n in degrees
        ]
    )
    right = np.zeros(len(degrees))
    right[0] = a
    A = np.linalg.solve(np.eye(len(degrees)) + M * T, right)
    return 1 + 2 * pi * a * T[0] * A[0] / volume


@cache
def _eisenstein(lattice, n):
    """Σ' w^−n over a lattice; n = 2 summed so that the mean gradient is the field applied."""
    if n == 2:
        return pi / abs(np.linalg.det(np.array(LATTICES[lattice], dtype=float)))
    if n % (4 if lattice == "square" else 6):
        return 0.0
    tau = 1j if lattice == "square" else 0.5 + 1j * 3**0.5 / 2
    q = np.exp(2j * pi * tau)
    if n > 24:
        i, j = np.mgrid[-12:13, -12:13]
        w = (i + j * tau)[(i != 0) | (j != 0)]
        return float((w ** float(-n)).sum().real)
    divisors = sum(sum(d ** (n - 1) for d in range(1, m + 1) if m % d == 0) * q**m for m in range(1, 60))
    factor = 2 * (-1) ** (n // 2) * np.exp(n * np.log(2 * pi) - gammaln(n))
    return float((2 * zeta(n) + factor * divisors).real)


def _spheres(lattice, volume, fraction, k, resistance, order):
    a = (3 * fraction * volume / (4 * pi)) ** (1 / 3)
    index = [(n, m) for n in range(1, order + 1, 2) for m in range(-n, n + 1) if m % 4 == 0]
    T = np.array([_reflection(3, n, mode_conductivity(k, a, resistance, n)) for n, _ in index])
    sums = _solid_sums(lattice, 2 * order)
    # Regular r^n P_n^m e^{imφ}/(n+m)!, irregular (n−m)! P_n^m e^{imφ}/r^{n+1}; an irregular one about another
    # centre w is Σ (−1)^n′ conj(regular n′m′) irregular_{n+n′, m+m′}(w). Scaled so that the interface gives
    # y = −T x with x = A a^n/√((n+m)!(n−m)!), y = B √((n+m)!(n−m)!)/a^{n+1}.
    scale = {(n, m): (factorial(n + m) * factorial(n - m)) ** 0.5 for n, m in index}
    M = np.zeros((len(index), len(index)))
    for row, (n, m) in enumerate(index):
        for column, (p, q) in enumerate(index):
            value = sums[n + p, abs(q - m)]
            M[row, column] = -value * a ** (n + p + 1) / (scale[n, m] * scale[p, q])
    x = np.linalg.solve(np.eye(len(index)) + M * T, [a * (i == (1, 0)) for i in index])
    first = index.index((1, 0))
    return 1 + 4 * pi * a**2 * T[first] * x[first] / volume


@cache
def _solid_sums(lattice, top):
    """Σ' (n−m)! P_n^m(cos θ) e^{imφ}/r^{n+1} for even n and m a multiple of 4: Ewald's method."""
    basis = np.array(LATTICES[lattice], dtype=float)
    dual = np.linalg.inv(basis).T
    volume = abs(np.linalg.det(basis))
    alpha = pi**0.5 / volume ** (1 / 3)
    grid = np.stack(np.meshgrid(*[np.arange(-11, 12)] * 3, indexing="ij"), -1).reshape(-1, 3)
    grid = grid[np.any(grid != 0, axis=1)]
    found = {}
    parts = []
    for vectors, decay in ((grid @ basis, alpha), (grid @ dual, pi / alpha)):
        r = np.linalg.norm(vectors, axis=1)
        # What is left out is below e^−81.
        vectors, r = vectors[decay * r < 9], r[decay * r < 9]
        parts.append((r, vectors[:, 2] / r, np.arctan2(vectors[:, 1], vectors[:, 0])))
    for n in range(2, top + 1, 2):
        for m in range(0, n + 1, 4):
            (r, cos, phi), (h, cos_h, phi_h) = parts
            direct = lpmv(m, n, cos) * np.cos(m * phi) * gammaincc(n + 0.5, (alpha * r) ** 2) / r ** (n + 1)
            power = (n - 0.5) * np.log(pi) - gammaln(n + 0.5) + (n - 2) * np.log(h) - (pi * h / alpha) ** 2
            dual_part = (-1) ** (n // 2) / volume * lpmv(m, n, cos_h) * np.cos(m * phi_h) * np.exp(power)
            total = float(direct.sum() + dual_part.sum())
            found[n, m] = factorial(n - m) * total
    # The sum of degree 2 depends on the order of summation: this one makes the mean gradient the field
    # applied.
    found[2, 0] = 4 * pi / (3 * volume)
    return found
