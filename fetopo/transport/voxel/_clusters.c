/* Clusters of unknowns that hang together by faces much stronger than those around them. */
#include "_level.h"
#include "_forest.h"

/* Into x: the largest transmissibility around each own unknown. */
void strongest(const level *L) {
    PARALLEL(L)
    PLANES(L) ROWS(L) OWN(L) {
        const int64_t d[3][3] = {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}};
        double most = 0;
        for (int a = 0; a < 3; a++) {
            const double low = transmissibility(L, a, i - d[a][0], j - d[a][1], k - d[a][2]),
                         high = transmissibility(L, a, i, j, k);
            most = fmax(most, fmax(low, high));
        }
        L->x[place(L, i, j) + k] = (float)most;
    }
}

/* Place of the next unknown along an axis; of the first one again where the axis meets itself. */
static inline int64_t next_place(const level *L, int a, const int64_t *index, int64_t at) {
    const int64_t step = stride_of(L, a);
    return L->wrap[a] && index[a] == L->n[a] ? at - (L->n[a] - 1) * step : at + step;
}

static inline int is_strong(const level *L, double share, double t, int64_t at, int64_t next) {
    return t > 0 && t >= share * fmax(L->x[at], L->x[next]);
}

/* `parent` (an entry per unknown with ghosts) gets a forest whose trees are the clusters of own unknowns: a face
   binds if it has at least a share of the largest transmissibility on both of its sides. x holds what
   `strongest` found, ghosts included. Returns the number of unknowns that have any face. */
int64_t clusters(const level *L, double share, int32_t *parent) {
    int64_t count = 0;
    PLANES(L) ROWS(L) OWN(L) {
        const int64_t at = place(L, i, j) + k;
        parent[at] = (int32_t)at;
        count += L->x[at] > 0;
    }
    PLANES(L) ROWS(L) OWN(L) {
        const int64_t at = place(L, i, j) + k, index[3] = {i, j, k};
        if (L->x[at] == 0) continue;
        for (int a = 0; a < 3; a++) {
            if (index[a] == L->n[a] && !L->wrap[a]) continue;
            const int64_t next = next_place(L, a, index, at);
            if (is_strong(L, share, transmissibility(L, a, i, j, k), at, next)) join(parent, at, next);
        }
    }
    PLANES(L) ROWS(L) OWN(L) {
        const int64_t at = place(L, i, j) + k;
        parent[at] = (int32_t)find(parent, at);
    }
    return count;
}

/* Sums over the clusters by number: unknowns, strong faces (`within`), the energy of a cluster's indicator
   (`across`: what binds it to all else). `number` of an unknown is -1 where it is in no cluster of interest; its
   ghosts are those of other ranks. */
void cluster_sums(const level *L, double share, const int32_t *number, int64_t *size, double *within, double *across) {
    PLANES(L) ROWS(L) OWN(L) {
        const int64_t at = place(L, i, j) + k, index[3] = {i, j, k};
        const int32_t c = number[at];
        if (c < 0) continue;
        size[c] += 1;
        for (int a = 0; a < 3; a++)
            for (int side = 0; side < 2; side++) {
                const int64_t step = stride_of(L, a), d[3] = {a == 0, a == 1, a == 2};
                const double t = side ? transmissibility(L, a, i, j, k)
                                      : transmissibility(L, a, i - d[0], j - d[1], k - d[2]);
                int64_t next = side ? at + step : at - step;
                if (L->wrap[a] && index[a] == (side ? L->n[a] : 1)) next += (side ? -1 : 1) * L->n[a] * step;
                if (number[next] == c)
                    within[c] += 0.5 * t;
                else if (L->kind < BYTES)
                    across[c] += t;
            }
        if (L->kind < BYTES) continue;
        /* Elements: minus the entries of the row that lead out of the cluster. */
        for (int di = -1; di <= 1; di++)
            for (int dj = -1; dj <= 1; dj++)
                for (int dk = -1; dk <= 1; dk++) {
                    const int64_t d[3] = {di, dj, dk};
                    int64_t next = at;
                    for (int a = 0; a < 3; a++) {
                        next += d[a] * stride_of(L, a);
                        if (L->wrap[a] && index[a] + d[a] > L->n[a]) next -= L->n[a] * stride_of(L, a);
                        if (L->wrap[a] && index[a] + d[a] < 1) next += L->n[a] * stride_of(L, a);
                    }
                    if (number[next] == c) continue;
                    for (int part = 0; part < L->parts; part++) {
                        const double e = element_entry(L, L->parts == 3 ? part : -1, di != 0, dj != 0, dk != 0);
                        double kappa = 0;
                        for (int s = 0; s < 8; s++) {
                            const int low[3] = {s >> 2, s >> 1 & 1, s & 1};
                            if ((di && low[0] != (di > 0)) || (dj && low[1] != (dj > 0)) || (dk && low[2] != (dk > 0)))
                                continue;
                            kappa += kappa_of(L, part, voxel_at(L, i - 1 + low[0] + L->offset[0],
                                                                j - 1 + low[1] + L->offset[1],
                                                                k - 1 + low[2] + L->offset[2]));
                        }
                        across[c] -= e * kappa;
                    }
                }
    }
}

/* Pairs of numbers, own and another rank's, of unknowns that a strong face binds; returns how many. With
   `pairs` 0 they are only counted. */
int64_t cluster_links(const level *L, double share, const int32_t *number, int32_t *pairs) {
    int64_t count = 0;
    PLANES(L) ROWS(L) OWN(L) {
        const int64_t index[3] = {i, j, k}, at = place(L, i, j) + k;
        for (int a = 0; a < 3; a++) {
            if (L->wrap[a] || (index[a] != 1 && index[a] != L->n[a])) continue;
            for (int side = 0; side < 2; side++) {
                if (index[a] != (side ? L->n[a] : 1)) continue;
                const int64_t step = stride_of(L, a), d[3] = {a == 0, a == 1, a == 2};
                const double t = side ? transmissibility(L, a, i, j, k)
                                      : transmissibility(L, a, i - d[0], j - d[1], k - d[2]);
                const int64_t next = side ? at + step : at - step;
                if (number[next] == -1 || !is_strong(L, share, t, at, next)) continue;
                if (pairs) {
                    pairs[2 * count] = number[at];
                    pairs[2 * count + 1] = number[next];
                }
                count++;
            }
        }
    }
    return count;
}

/* Entry of A x at an own unknown; the ghosts of x are known. */
static double product_at(const level *L, const float *x, int64_t at) {
    const int64_t i = at / plane_size(L), j = at % plane_size(L) / row_size(L), k = at % row_size(L);
    double sum = 0;
    if (L->kind < BYTES) {
        for (int a = 0; a < 3; a++) {
            const int64_t step = stride_of(L, a), d[3] = {a == 0, a == 1, a == 2};
            sum += transmissibility(L, a, i, j, k) * ((double)x[at] - x[at + step]) +
                   transmissibility(L, a, i - d[0], j - d[1], k - d[2]) * ((double)x[at] - x[at - step]);
        }
        return sum + L->shift * x[at];
    }
    /* Voxel by voxel: the entries of an element between this node and its eight. */
    for (int part = 0; part < L->parts; part++) {
        double entry[8];
        for (int e = 0; e < 8; e++)
            entry[e] = element_entry(L, L->parts == 3 ? part : -1, e >> 2, e >> 1 & 1, e & 1);
        for (int s = 0; s < 8; s++) {
            const int64_t up[3] = {s >> 2, s >> 1 & 1, s & 1};
            const double kappa = kappa_of(L, part, voxel_at(L, i - 1 + up[0] + L->offset[0],
                                                            j - 1 + up[1] + L->offset[1], k - 1 + up[2] + L->offset[2]));
            if (kappa == 0) continue;
            for (int e = 0; e < 8; e++) {
                const int64_t di = e >> 2 ? 2 * up[0] - 1 : 0, dj = e >> 1 & 1 ? 2 * up[1] - 1 : 0,
                              dk = e & 1 ? 2 * up[2] - 1 : 0;
                sum += kappa * entry[e] * x[at + di * plane_size(L) + dj * row_size(L) + dk];
            }
        }
    }
    return sum;
}

/* load[q, c]: sum of b over the unknowns of each cluster, residual[q, c]: of b - A x (if `started`, else the
   same). `at` are the places of the unknowns, `number` their clusters. */
void cluster_gather(const level *L, int32_t started, int64_t count, const int32_t *at, const int32_t *number,
                    int64_t clusters, double *load, double *residual) {
    for (int32_t q = 0; q < L->rhs; q++) {
        const float *b = L->b + q * size_of(L), *x = L->x + q * size_of(L);
        for (int64_t m = 0; m < count; m++) {
            load[q * clusters + number[m]] += b[at[m]];
            residual[q * clusters + number[m]] += b[at[m]] - (started ? product_at(L, x, at[m]) : 0);
        }
    }
}

/* x += values[q, c] on the unknowns of each cluster. */
void cluster_scatter(const level *L, int64_t count, const int32_t *at, const int32_t *number, int64_t clusters,
                     const double *values) {
    for (int32_t q = 0; q < L->rhs; q++) {
        float *x = L->x + q * size_of(L);
        for (int64_t m = 0; m < count; m++) x[at[m]] += (float)values[q * clusters + number[m]];
    }
}
