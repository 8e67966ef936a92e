/* Smoothing, transfer and the cycle in single precision; conjugate gradients around it. */
#include "_level.h"

#define SUFFIX ff
#define X float
#define ACC float
#include "_rows.h"
#undef SUFFIX
#undef ACC
#define SUFFIX fd
#define ACC double
#include "_rows.h"
#undef SUFFIX
#undef X
#define SUFFIX dd
#define X double
#include "_rows.h"

/* ---- Chebyshev smoothing of degree two on [radius/4, radius], as two steps that only point at neighbours
   of what is complete. Saad (2003), Iterative Methods for Sparse Linear Systems, algorithm 12.1. */
typedef struct { float first, keep, second; } steps;
static steps chebyshev(const level *L) {
    const double theta = 0.625 * L->radius, delta = 0.375 * L->radius;
    const double rho = delta / theta, next = 1 / (2 * theta / delta - rho);
    return (steps){(float)(1 / theta), (float)(next * rho), (float)(2 * next / delta)};
}

static inline float inverse(float d) { return d > 0 ? 1 / d : 0; }

static void diagonal_of(const level *L, int64_t i, int64_t j, float *restrict dg) {
    if (L->kind == MASK) {
        const uint8_t *restrict code = L->code + place(L, i, j);
        const float w0 = (float)L->weight[0], w1 = (float)L->weight[1], w2 = (float)L->weight[2];
        OWN(L) {
            const int32_t c = code[k];
            dg[k] = w0 * (float)(c & 3) + w1 * (float)(c >> 2 & 3) + w2 * (float)(c >> 4);
        }
        return;
    }
    float ax[L->n[2] + 2];
    any_ff(L, i, j, L->b, ax, dg);
}

/* y = D^-1 b / theta: the first step from zero. */
void smooth_first(const level *L) {
    const steps c = chebyshev(L);
    const int64_t S = size_of(L);
    PARALLEL(L)
    PLANES(L) {
        float dg[L->n[2] + 2];
        ROWS(L) {
            diagonal_of(L, i, j, dg);
            OWN(L) dg[k] = c.first * inverse(dg[k]);
            for (int32_t q = 0; q < L->rhs; q++) {
                const int64_t at = q * S + place(L, i, j);
                const float *restrict b = L->b + at;
                float *restrict y = L->y + at;
                OWN(L) y[k] = dg[k] * b[k];
            }
        }
    }
}

/* x = y + keep y + second D^-1 (b - A y): the second step from zero. */
void smooth_second(const level *L) {
    const steps c = chebyshev(L);
    const int64_t S = size_of(L);
    PARALLEL(L)
    PLANES(L) {
        float ax[L->n[2] + 2], dg[L->n[2] + 2];
        ROWS(L) for (int32_t q = 0; q < L->rhs; q++) {
            const int64_t at = q * S + place(L, i, j);
            any_ff(L, i, j, L->y + q * S, ax, dg);
            const float *restrict b = L->b + at, *restrict y = L->y + at;
            float *restrict x = L->x + at;
            OWN(L) x[k] = (1 + c.keep) * y[k] + c.second * inverse(dg[k]) * (b[k] - ax[k]);
        }
    }
}

/* y = x + D^-1 (b - A x) / theta. */
void smooth_third(const level *L) {
    const steps c = chebyshev(L);
    const int64_t S = size_of(L);
    PARALLEL(L)
    PLANES(L) {
        float ax[L->n[2] + 2], dg[L->n[2] + 2];
        ROWS(L) for (int32_t q = 0; q < L->rhs; q++) {
            const int64_t at = q * S + place(L, i, j);
            any_ff(L, i, j, L->x + q * S, ax, dg);
            const float *restrict b = L->b + at, *restrict x = L->x + at;
            float *restrict y = L->y + at;
            OWN(L) y[k] = x[k] + c.first * inverse(dg[k]) * (b[k] - ax[k]);
        }
    }
}

/* x = y + keep (y - x) + second D^-1 (b - A y); at the end of a cycle also the products b.x. */
void smooth_fourth(const level *L, double *products) {
    const steps c = chebyshev(L);
    const int64_t S = size_of(L);
    double *part = calloc((L->n[0] + 1) * L->rhs, sizeof(double));
    PARALLEL(L)
    PLANES(L) {
        float ax[L->n[2] + 2], dg[L->n[2] + 2];
        ROWS(L) for (int32_t q = 0; q < L->rhs; q++) {
            const int64_t at = q * S + place(L, i, j);
            any_ff(L, i, j, L->y + q * S, ax, dg);
            const float *restrict b = L->b + at, *restrict y = L->y + at;
            float *restrict x = L->x + at;
            OWN(L) x[k] = y[k] + c.keep * (y[k] - x[k]) + c.second * inverse(dg[k]) * (b[k] - ax[k]);
            if (products) {
                double sum = 0;
                OWN(L) sum += (double)b[k] * x[k];
                part[i * L->rhs + q] += sum;
            }
        }
    }
    if (products)
        for (int32_t q = 0; q < L->rhs; q++) {
            products[q] = 0;
            PLANES(L) products[q] += part[i * L->rhs + q];
        }
    free(part);
}

/* Right-hand side of the next level: the residual summed over each aggregate. */
void restrict_residual(const level *L, const level *C) {
    const int64_t S = size_of(L), T = size_of(C);
    _Pragma("omp parallel for schedule(static) num_threads(L->threads) if (L->threads > 1)")
    for (int64_t I = 1; I <= C->n[0]; I++) {
        float ax[L->n[2] + 2], dg[L->n[2] + 2], sum[L->n[2] + 2];
        const int64_t i0 = L->factor[0] * (I - 1) + 1, i1 = L->factor[0] * I < L->n[0] ? L->factor[0] * I : L->n[0];
        for (int64_t J = 1; J <= C->n[1]; J++) {
            const int64_t j0 = L->factor[1] * (J - 1) + 1, j1 = L->factor[1] * J < L->n[1] ? L->factor[1] * J : L->n[1];
            for (int32_t q = 0; q < L->rhs; q++) {
                memset(sum, 0, sizeof sum);
                for (int64_t i = i0; i <= i1; i++)
                    for (int64_t j = j0; j <= j1; j++) {
                        any_ff(L, i, j, L->x + q * S, ax, dg);
                        const float *restrict b = L->b + q * S + place(L, i, j);
                        OWN(L) sum[k] += b[k] - ax[k];
                    }
                sum[L->n[2] + 1] = 0;
                float *restrict out = C->b + q * T + place(C, I, J);
                if (L->factor[2] == 1)
                    for (int64_t K = 1; K <= C->n[2]; K++) out[K] = sum[K];
                else
                    for (int64_t K = 1; K <= C->n[2]; K++) out[K] = sum[2 * K - 1] + sum[2 * K];
            }
        }
    }
}

/* x += the next level's x, constant on each aggregate. */
void prolong(const level *L, const level *C) {
    const int64_t S = size_of(L), T = size_of(C);
    PARALLEL(L)
    PLANES(L) ROWS(L) for (int32_t q = 0; q < L->rhs; q++) {
        float *restrict x = L->x + q * S + place(L, i, j);
        const int64_t I = (i - 1) / L->factor[0] + 1, J = (j - 1) / L->factor[1] + 1;
        const float *restrict e = C->x + q * T + place(C, I, J);
        const int64_t half = L->factor[2] - 1;
        if (L->kind == MASK) { /* its rows take for granted that solid is zero */
            const uint8_t *restrict code = L->code + place(L, i, j);
            OWN(L) x[k] = code[k] ? x[k] + e[(k + half) >> half] : 0;
        } else
            OWN(L) x[k] += e[(k + half) >> half];
    }
}

/* The last level has one unknown. */
static void solve_last(const level *L) {
    float ax[3], dg[3];
    const int64_t S = size_of(L), at = place(L, 1, 1) + 1;
    wrap_ff(L, L->b, L->rhs);
    for (int32_t q = 0; q < L->rhs; q++) {
        any_ff(L, 1, 1, L->b + q * S, ax, dg);
        /* Faces between the unknown and itself are no coupling. */
        float d = dg[1];
        for (int a = 0; a < 3; a++)
            if (L->wrap[a]) d -= 2 * (float)transmissibility(L, a, 1, 1, 1);
        L->x[q * S + at] = d > 1e-6f * dg[1] ? L->b[q * S + at] / d : 0;
    }
}

/* To take the mean off b. Round-off puts some there, and where the conductivity between a few good conductors is
   poor a coarse level would make of it a constant so large that single precision loses all else. */
void sum_of_load(const level *L, double *sum) {
    const int64_t S = size_of(L);
    for (int32_t q = 0; q < L->rhs; q++) {
        sum[q] = 0;
        PLANES(L) ROWS(L) {
            const float *restrict b = L->b + q * S + place(L, i, j);
            double row = 0;
            OWN(L) row += b[k];
            sum[q] += row;
        }
    }
}

void shift_load(const level *L, const double *less) {
    const int64_t S = size_of(L);
    for (int32_t q = 0; q < L->rhs; q++) {
        const float value = (float)less[q];
        PLANES(L) ROWS(L) {
            float *restrict b = L->b + q * S + place(L, i, j);
            OWN(L) b[k] -= value;
        }
    }
}

static void sweep(const level *L, double *products) {
    wrap_ff(L, L->x, L->rhs);
    smooth_third(L);
    wrap_ff(L, L->y, L->rhs);
    smooth_fourth(L, products);
}

/* One W-cycle, from zero or from the guess in x, on a hierarchy that is on this rank. */
void cycle(const level *levels, int32_t here, int32_t last, int32_t guess, double *products) {
    const level *L = levels + here;
    if (here == last) {
        solve_last(L);
        return;
    }
    if (!guess) {
        smooth_first(L);
        wrap_ff(L, L->y, L->rhs);
        smooth_second(L);
    }
    for (int s = !guess; s < L->sweeps; s++) sweep(L, 0);
    wrap_ff(L, L->x, L->rhs);
    restrict_residual(L, L + 1);
    cycle(levels, here + 1, last, 0, 0);
    if (here + 1 < last) cycle(levels, here + 1, last, 1, 0);
    prolong(L, L + 1);
    for (int s = 1; s <= L->sweeps; s++) sweep(L, s == L->sweeps ? products : 0);
}

/* ---- Conjugate gradients: sums over a plane, and planes in order, so that threads do not change them. */
static void total(const level *L, double *part, double *out) {
    for (int32_t q = 0; q < L->rhs; q++) {
        out[q] = 0;
        PLANES(L) out[q] += part[i * L->rhs + q];
    }
    free(part);
}

/* y = A p and the products p.A p. */
void apply(const level *L, const float *p, double *products) {
    const int64_t S = size_of(L);
    double *part = calloc((L->n[0] + 1) * L->rhs, sizeof(double));
    PARALLEL(L)
    PLANES(L) {
        double ax[L->n[2] + 2], dg[L->n[2] + 2];
        ROWS(L) for (int32_t q = 0; q < L->rhs; q++) {
            any_fd(L, i, j, p + q * S, ax, dg);
            const float *restrict in = p + q * S + place(L, i, j);
            float *restrict y = L->y + q * S + place(L, i, j);
            double sum = 0;
            OWN(L) {
                y[k] = (float)ax[k];
                sum += ax[k] * in[k];
            }
            part[i * L->rhs + q] += sum;
        }
    }
    total(L, part, products);
}

/* solution += alpha p, b -= alpha y and the squares b.b. */
void advance(const level *L, const double *alpha, const float *p, double *solution, double *squares) {
    const int64_t S = size_of(L);
    double *part = calloc((L->n[0] + 1) * L->rhs, sizeof(double));
    PARALLEL(L)
    PLANES(L) ROWS(L) for (int32_t q = 0; q < L->rhs; q++) {
        const int64_t at = q * S + place(L, i, j);
        const float *restrict in = p + at, *restrict y = L->y + at;
        float *restrict b = L->b + at;
        double *restrict u = solution + at;
        const double step = alpha[q];
        const float less = (float)step;
        double sum = 0;
        OWN(L) {
            u[k] += step * in[k];
            b[k] -= less * y[k];
            sum += (double)b[k] * b[k];
        }
        part[i * L->rhs + q] += sum;
    }
    total(L, part, squares);
}

/* p = x + beta p. */
void direction(const level *L, const double *beta, float *p) {
    const int64_t S = size_of(L);
    PARALLEL(L)
    PLANES(L) ROWS(L) for (int32_t q = 0; q < L->rhs; q++) {
        const int64_t at = q * S + place(L, i, j);
        const float *restrict x = L->x + at;
        float *restrict out = p + at;
        const float keep = (float)beta[q];
        OWN(L) out[k] = x[k] + keep * out[k];
    }
}

/* b = source - A u - what a mean gradient adds, and the squares b.b. `gradient` has three numbers for each
   right-hand side: the step of the mean potential over a voxel, along axes that are periodic. */
void residual(const level *L, const double *u, const double *gradient, const double *source, double *squares) {
    const int64_t S = size_of(L);
    double *part = calloc((L->n[0] + 1) * L->rhs, sizeof(double));
    PARALLEL(L)
    PLANES(L) {
        double ax[L->n[2] + 2], dg[L->n[2] + 2];
        ROWS(L) for (int32_t q = 0; q < L->rhs; q++) {
            const int64_t at = q * S + place(L, i, j);
            any_dd(L, i, j, u + q * S, ax, dg);
            for (int a = 0; a < 3; a++) {
                const double g = gradient ? gradient[3 * q + a] : 0;
                if (g == 0) continue;
                if (L->kind >= BYTES) {
                    const int b = (a + 1) % 3, c = (a + 2) % 3;
                    const double share =
                        (L->diagonal[b] + L->coupling[b]) * (L->diagonal[c] + L->coupling[c]) * L->stiffness[a] * g;
                    OWN(L) {
                        double sum = 0;
                        for (int s = 0; s < 8; s++) {
                            const int d[3] = {s >> 2, s >> 1 & 1, s & 1};
                            const int64_t v = voxel_at(L, i - 1 + d[0] + L->offset[0], j - 1 + d[1] + L->offset[1],
                                                       k - 1 + d[2] + L->offset[2]);
                            sum += (d[a] ? -1 : 1) * kappa_of(L, a, v);
                        }
                        ax[k] += share * sum;
                    }
                } else {
                    const int64_t d[3] = {a == 0, a == 1, a == 2};
                    OWN(L) ax[k] -= g * (transmissibility(L, a, i, j, k) -
                                         transmissibility(L, a, i - d[0], j - d[1], k - d[2]));
                }
            }
            float *restrict b = L->b + at;
            double sum = 0;
            OWN(L) {
                const double r = (source ? source[at + k] : 0) - ax[k];
                b[k] = (float)r;
                sum += r * r;
            }
            part[i * L->rhs + q] += sum;
        }
    }
    total(L, part, squares);
}

/* ---- Setting up */

/* Faces from conductivities: the harmonic mean of both sides, of half a voxel where the potential is fixed. */
void faces(const level *L) {
    for (int a = 0; a < 3; a++) {
        const int64_t from[3] = {a != 0, a != 1, a != 2}, step = stride_of(L, a);
        _Pragma("omp parallel for schedule(static) num_threads(L->threads) if (L->threads > 1)")
        for (int64_t i = from[0]; i <= L->n[0]; i++)
            for (int64_t j = from[1]; j <= L->n[1]; j++)
                for (int64_t k = from[2]; k <= L->n[2]; k++) {
                    const int64_t at = place(L, i, j) + k, index[3] = {i, j, k};
                    const double one = kappa_of(L, a, at), other = kappa_of(L, a, at + step);
                    double t = one > 0 && other > 0 ? 2 * one * other / (one + other) : 0;
                    if (index[a] == 0 && L->low[a]) t = 2 * other;
                    if (index[a] == L->n[a] && L->high[a]) t = 2 * one;
                    t *= L->weight[a];
                    if (L->kind == FACES)
                        L->face[a][at] = (float)t;
                    else
                        L->fine_face[a][at] = t;
                }
    }
}

/* Code of a mask (0 or 1 with ghosts) from its neighbours, in a second array. */
void encode(const level *L, const uint8_t *mask) {
    PARALLEL(L)
    PLANES(L) ROWS(L) OWN(L) {
        const int64_t at = place(L, i, j) + k, index[3] = {i, j, k};
        int code = 0;
        if (mask[at])
            for (int a = 0; a < 3; a++) {
                if (L->weight[a] == 0) continue;
                const int64_t step = stride_of(L, a);
                int open = mask[at - step] + mask[at + step];
                if (index[a] == 1 && L->low[a]) open += 2;
                if (index[a] == L->n[a] && L->high[a]) open += 2;
                code |= open << 2 * a;
            }
        L->code[at] = (uint8_t)code;
    }
}

/* Faces of the next level: the sum over those between two aggregates, over the longer distance. */
void coarsen(const level *L, const level *C) {
    for (int a = 0; a < 3; a++) {
        const int64_t from[3] = {a != 0, a != 1, a != 2};
        _Pragma("omp parallel for schedule(static) num_threads(L->threads) if (L->threads > 1)")
        for (int64_t I = from[0]; I <= C->n[0]; I++)
            for (int64_t J = from[1]; J <= C->n[1]; J++)
                for (int64_t K = from[2]; K <= C->n[2]; K++) {
                    const int64_t index[3] = {I, J, K};
                    int64_t low[3], high[3];
                    for (int b = 0; b < 3; b++) {
                        const int64_t end = L->factor[b] * index[b];
                        high[b] = end < L->n[b] ? end : L->n[b];
                        low[b] = b == a ? high[b] : L->factor[b] * (index[b] - 1) + 1;
                    }
                    double sum = 0;
                    for (int64_t i = low[0]; i <= high[0]; i++)
                        for (int64_t j = low[1]; j <= high[1]; j++)
                            for (int64_t k = low[2]; k <= high[2]; k++) sum += transmissibility(L, a, i, j, k);
                    C->face[a][place(C, I, J) + K] = (float)(sum / L->factor[a]);
                }
    }
}

/* Sum of the transmissibilities and number of open faces along each axis. */
void strength(const level *L, double *out) {
    for (int a = 0; a < 3; a++) {
        double sum = 0;
        int64_t count = 0;
        _Pragma("omp parallel for schedule(static) num_threads(L->threads) reduction(+ : sum, count) if (L->threads > 1)")
        for (int64_t i = 1; i <= L->n[0]; i++)
            ROWS(L) OWN(L) {
                const double t = transmissibility(L, a, i, j, k);
                sum += t;
                count += t > 0;
            }
        out[2 * a] = sum;
        out[2 * a + 1] = (double)count;
    }
}

/* Number of faces across which the conductivity falls below a share of the larger one. */
double interfaces(const level *L, double share) {
    double count = 0;
    const int64_t step[3] = {(L->voxels[1] + 2) * (L->voxels[2] + 2), L->voxels[2] + 2, 1};
    _Pragma("omp parallel for schedule(static) num_threads(L->threads) reduction(+ : count) if (L->threads > 1)")
    for (int64_t i = 1; i <= L->voxels[0]; i++)
        for (int64_t j = 1; j <= L->voxels[1]; j++)
            for (int a = 0; a < 3; a++) {
                const int64_t at = voxel_at(L, i, j, 0);
                int64_t found = 0;
                for (int64_t k = at + 1; k <= at + L->voxels[2]; k++) {
                    double one, other;
                    if (L->kind == MASK) {
                        one = L->code[k] != 0;
                        other = L->code[k + step[a]] != 0;
                    } else {
                        one = kappa_of(L, a, k);
                        other = kappa_of(L, a, k + step[a]);
                    }
                    found += fmin(one, other) < share * fmax(one, other);
                }
                count += (double)found;
            }
    return count;
}
