/* Passes over the variables of the method of moving asymptotes. Compiled by subproblem.py.

   The asymptotes lie at the same distance d on both sides of x. In t = (1 + s)/(1 − s), s = (new − x)/d, every
   approximation is a sum of d/2 (p (t − 1) + q (1/t − 1)) with
       p = max(g, 0) + |g|/1000 + ρ/span,   q = max(−g, 0) + |g|/1000 + ρ/span,
   and the minimizer of a sum of rows is t = √(Q/P), cut to the limits of the step. Values of g, p and q are
   never stored a second time: the passes are as fast as the memory is. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#define BLOCK 256

/* Asymptotes around x, further away where a variable went on and nearer where it oscillates; limits of t; for
   every row the sum of |g| span. `old` and `trend` become x and the step that led to it. */
void prepare(int64_t n, int64_t k, int64_t m, const double *x, const double *df0, const double *df,
             const double *lower, const double *upper, const double *factors, double *old, double *trend,
             double *distance, double *low, double *high, double *sizes)
{
    const double incr = factors[0], decr = factors[1], nearest = factors[2], furthest = factors[3];
    const double initial = factors[4], move = factors[5], edge = factors[6];
    const int steps = (int)factors[7];
    double span[BLOCK];
    for (int64_t i = 0; i < k + m; i++)
        sizes[i] = 0;
    for (int64_t first = 0; first < n; first += BLOCK) {
        const int64_t count = n - first < BLOCK ? n - first : BLOCK;
        for (int64_t h = 0; h < count; h++) {
            const int64_t j = first + h;
            const double width = upper[j] - lower[j], went = x[j] - old[j];
            /* Steps as small as a solver's tolerance or round-off makes them, which differ with the number of
               ranks, have no direction. */
            const double still = 1e-6 * width;
            const int moves = fabs(went) > still && fabs(trend[j]) > still;
            const double turn = moves ? went * trend[j] : 0;
            const double factor = turn > 0 ? incr : turn < 0 ? decr : 1.0;
            const double wanted = factor * distance[j];
            const double cut = wanted > nearest * width ? wanted : nearest * width;
            const double moved = cut < furthest * width ? cut : furthest * width;
            const double d = steps < 2 ? initial * width : moved;
            const double reach = edge * d < move * width ? edge * d : move * width;
            const double down = x[j] - lower[j] < reach ? x[j] - lower[j] : reach;
            const double up = upper[j] - x[j] < reach ? upper[j] - x[j] : reach;
            span[h] = width;
            trend[j] = steps ? went : 0.0;
            old[j] = x[j];
            distance[j] = d;
            low[j] = (d - down) / (d + down);
            high[j] = (d + up) / (d - up);
        }
        for (int64_t i = 0; i < k + m; i++) {
            const double *g = (i < k ? df0 + i * n : df + (i - k) * n) + first;
            double sum = 0;
            for (int64_t h = 0; h < count; h++)
                sum += fabs(g[h]) * span[h];
            sizes[i] += sum;
        }
    }
}

/* At the minimizer of the Lagrangian with multipliers `nu`, for every row: the approximation's change from x,
   the negative Hessian of the dual, (k + m)², and the number of variables that were looked at. Only one block
   in `every` is. Where `new` is not NULL it becomes the minimizer. */
void dual(int64_t n, int64_t k, int64_t m, int64_t every, const double *nu, const double *rho, const double *x,
          const double *df0, const double *df, const double *lower, const double *upper, const double *distance,
          const double *low, const double *high, double *sums, double *new)
{
    const int64_t rows = k + m, fixed = k == 1;
    double inverse[BLOCK], P[BLOCK], Q[BLOCK], t[BLOCK], back[BLOCK], weight[BLOCK], half[BLOCK];
    double *slopes = malloc(sizeof(double) * BLOCK * rows), *hessian = sums + rows;
    for (int64_t i = 0; i < rows + rows * rows + 1; i++)
        sums[i] = 0;
    for (int64_t first = 0; first < n; first += BLOCK * every) {
        const int64_t count = n - first < BLOCK ? n - first : BLOCK;
        const double *d = distance + first, *lo = low + first, *hi = high + first;
        sums[rows + rows * rows] += count;
        for (int64_t h = 0; h < count; h++) {
            inverse[h] = 1 / (upper[first + h] - lower[first + h]);
            P[h] = Q[h] = 0;
        }
        for (int64_t i = 0; i < rows; i++) {
            const double *g = (i < k ? df0 + i * n : df + (i - k) * n) + first;
            const double factor = nu[i], convex = rho[i];
            for (int64_t h = 0; h < count; h++) {
                const double size = fabs(g[h]), both = 0.001 * size + convex * inverse[h];
                P[h] += factor * (both + (g[h] > 0 ? size : 0.0));
                Q[h] += factor * (both + (g[h] < 0 ? size : 0.0));
            }
        }
        for (int64_t h = 0; h < count; h++) {
            const double p = 1 / P[h], root = sqrt(Q[h] * p), above = root > lo[h] ? root : lo[h];
            const double cut = above < hi[h] ? above : hi[h], u = 1 / cut;
            t[h] = cut;
            back[h] = u;
            half[h] = 0.5 * d[h];
            /* Only variables that are free move with the multipliers. */
            weight[h] = cut == root ? 0.25 * d[h] * u * u * u * p : 0.0;
        }
        for (int64_t i = 0; i < rows; i++) {
            const double *g = (i < k ? df0 + i * n : df + (i - k) * n) + first;
            const double convex = rho[i];
            double sum = 0, *slope = slopes + i * BLOCK;
            for (int64_t h = 0; h < count; h++) {
                const double size = fabs(g[h]), both = 0.001 * size + convex * inverse[h];
                const double p = both + (g[h] > 0 ? size : 0.0), q = both + (g[h] < 0 ? size : 0.0);
                sum += half[h] * (p * (t[h] - 1) + q * (back[h] - 1));
                slope[h] = q - t[h] * t[h] * p;
            }
            sums[i] += sum;
            for (int64_t l = fixed; l <= i; l++) {
                const double *other = slopes + l * BLOCK;
                double product = 0;
                for (int64_t h = 0; h < count; h++)
                    product += weight[h] * slope[h] * other[h];
                hessian[i * rows + l] += product;
            }
        }
        if (new)
            for (int64_t h = 0; h < count; h++) {
                const int64_t j = first + h;
                const double moved = x[j] + d[h] * (t[h] - 1) / (t[h] + 1);
                const double above = moved > lower[j] ? moved : lower[j];
                new[j] = above < upper[j] ? above : upper[j];
            }
    }
    for (int64_t i = 0; i < rows; i++)
        for (int64_t l = 0; l < i; l++)
            hessian[l * rows + i] = hessian[i * rows + l];
    free(slopes);
}
