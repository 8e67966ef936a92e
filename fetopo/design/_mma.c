/* Sums over the variables of the method of moving asymptotes, in one pass each. Compiled by mma.py.

   Rows: p and q hold 1 + m rows of n entries, the objective's first. */
#include <math.h>
#include <stdint.h>

#define BLOCK 256

/* Asymptotes around x: further away where a variable went on (`trend` > 0), nearer where it oscillates. */
void move_asymptotes(int64_t n, const double *x, const double *old, const double *older, const double *lower,
                     const double *upper, const double *factors, double *low, double *upp)
{
    const double incr = factors[0], decr = factors[1], nearest = factors[2], furthest = factors[3];
    for (int64_t j = 0; j < n; j++) {
        const double span = upper[j] - lower[j], trend = (x[j] - old[j]) * (old[j] - older[j]);
        const double factor = trend > 0 ? incr : trend < 0 ? decr : 1.0;
        const double below = factor * (old[j] - low[j]), above = factor * (upp[j] - old[j]);
        low[j] = x[j] - fmin(fmax(below, nearest * span), furthest * span);
        upp[j] = x[j] + fmin(fmax(above, nearest * span), furthest * span);
    }
}

/* Coefficients p and q of all rows, limits alpha and beta of the step, and for every constraint the value of
   its approximation at x without the constant r. */
void approximate(int64_t n, int64_t m, const double *x, const double *df0, const double *df, const double *lower,
                 const double *upper, double move, const double *low, const double *upp, double *alpha,
                 double *beta, double *p, double *q, double *at_x)
{
    for (int64_t j = 0; j < n; j++) {
        const double span = upper[j] - lower[j];
        alpha[j] = fmax(lower[j], fmax(low[j] + 0.1 * (x[j] - low[j]), x[j] - move * span));
        beta[j] = fmin(upper[j], fmin(upp[j] - 0.1 * (upp[j] - x[j]), x[j] + move * span));
    }
    for (int64_t i = 0; i <= m; i++) {
        const double *g = i ? df + (i - 1) * n : df0;
        double *pi = p + i * n, *qi = q + i * n, sum = 0;
        for (int64_t j = 0; j < n; j++) {
            const double u = upp[j] - x[j], l = x[j] - low[j], size = fabs(g[j]);
            /* The small terms keep the approximation strictly convex where a gradient vanishes. */
            const double convex = 0.001 * size + 1e-5 / (upper[j] - lower[j]);
            pi[j] = ((g[j] > 0 ? size : 0.0) + convex) * u * u;
            qi[j] = ((g[j] < 0 ? size : 0.0) + convex) * l * l;
            sum += pi[j] / u + qi[j] / l;
        }
        if (i)
            at_x[i - 1] = sum;
    }
}

/* Minimizer of the Lagrangian of variables first … first + count − 1; P and Q are its coefficients. */
static void minimizer(int64_t n, int64_t m, const double *lam, const double *low, const double *upp,
                      const double *alpha, const double *beta, const double *p, const double *q, int64_t first,
                      int64_t count, double *P, double *Q, double *x)
{
    for (int64_t k = 0; k < count; k++) {
        P[k] = p[first + k];
        Q[k] = q[first + k];
    }
    for (int64_t i = 1; i <= m; i++)
        for (int64_t k = 0; k < count; k++) {
            P[k] += lam[i - 1] * p[i * n + first + k];
            Q[k] += lam[i - 1] * q[i * n + first + k];
        }
    for (int64_t k = 0; k < count; k++) {
        const int64_t j = first + k;
        const double sp = sqrt(P[k]), sq = sqrt(Q[k]), free = (low[j] * sp + upp[j] * sq) / (sp + sq);
        const double above = free > alpha[j] ? free : alpha[j];
        x[k] = above < beta[j] ? above : beta[j];
    }
}

void primal(int64_t n, int64_t m, const double *lam, const double *low, const double *upp, const double *alpha,
            const double *beta, const double *p, const double *q, double *x)
{
    double P[BLOCK], Q[BLOCK];
    for (int64_t first = 0; first < n; first += BLOCK) {
        const int64_t count = n - first < BLOCK ? n - first : BLOCK;
        minimizer(n, m, lam, low, upp, alpha, beta, p, q, first, count, P, Q, x + first);
    }
}

/* At the minimizer of the Lagrangian: 1 + m sums of p/(U − x) + q/(x − L), then the m × m negative Hessian. */
void dual(int64_t n, int64_t m, const double *lam, const double *low, const double *upp, const double *alpha,
          const double *beta, const double *p, const double *q, double *sums)
{
    double P[BLOCK], Q[BLOCK], x[BLOCK], ux[BLOCK], xl[BLOCK], weight[BLOCK], slope[BLOCK];
    double *hessian = sums + 1 + m;
    for (int64_t i = 0; i < 1 + m + m * m; i++)
        sums[i] = 0;
    for (int64_t first = 0; first < n; first += BLOCK) {
        const int64_t count = n - first < BLOCK ? n - first : BLOCK;
        minimizer(n, m, lam, low, upp, alpha, beta, p, q, first, count, P, Q, x);
        for (int64_t k = 0; k < count; k++) {
            const int64_t j = first + k;
            const double u = 1 / (upp[j] - x[k]), l = 1 / (x[k] - low[j]);
            const double bend = 2 * (P[k] * u * u * u + Q[k] * l * l * l);
            ux[k] = u;
            xl[k] = l;
            /* Only variables that are free move with the multipliers. */
            weight[k] = x[k] > alpha[j] && x[k] < beta[j] ? 1 / bend : 0.0;
        }
        for (int64_t i = 0; i <= m; i++) {
            const double *pi = p + i * n + first, *qi = q + i * n + first;
            double sum = 0;
            for (int64_t k = 0; k < count; k++)
                sum += pi[k] * ux[k] + qi[k] * xl[k];
            sums[i] += sum;
            if (i == 0)
                continue;
            for (int64_t k = 0; k < count; k++)
                slope[k] = (pi[k] * ux[k] * ux[k] - qi[k] * xl[k] * xl[k]) * weight[k];
            for (int64_t h = 1; h <= i; h++) {
                const double *ph = p + h * n + first, *qh = q + h * n + first;
                double product = 0;
                for (int64_t k = 0; k < count; k++)
                    product += slope[k] * (ph[k] * ux[k] * ux[k] - qh[k] * xl[k] * xl[k]);
                hessian[(i - 1) * m + h - 1] += product;
            }
        }
    }
    for (int64_t i = 0; i < m; i++)
        for (int64_t h = 0; h < i; h++)
            hessian[h * m + i] = hessian[i * m + h];
}
