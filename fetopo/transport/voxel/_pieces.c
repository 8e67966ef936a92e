/* Conductors cut to pieces by the walls between them and by cubic blocks, and sums over the pieces. */
#include "_level.h"
#include "_forest.h"

#define SUFFIX ff
#define X float
#define ACC float
#include "_rows.h"

/* Largest transmissibility of masks; of elements that between nodes within the best conductor. */
double largest(const level *L) {
    double most = 0;
    for (int a = 0; a < 3; a++) {
        if (L->kind == MASK) {
            most = fmax(most, L->weight[a]);
            continue;
        }
        const int b = (a + 1) % 3, c = (a + 2) % 3;
        double kappa = 0;
        for (int64_t i = 1; i <= L->voxels[0]; i++)
            for (int64_t j = 1; j <= L->voxels[1]; j++)
                for (int64_t k = 1; k <= L->voxels[2]; k++) {
                    const double here = kappa_of(L, a, voxel_at(L, i, j, k));
                    kappa = here > kappa ? here : kappa;
                }
        most = fmax(most, 4 * kappa * L->stiffness[a] * (L->diagonal[b] + L->coupling[b]) *
                              (L->diagonal[c] + L->coupling[c]));
    }
    return most;
}

static inline int conducts(const level *L, double strong, int64_t i, int64_t j, int64_t k) {
    if (L->kind == MASK) return L->code[place(L, i, j) + k] != 0;
    for (int a = 0; a < 3; a++) {
        const int64_t d[3] = {a == 0, a == 1, a == 2};
        if (transmissibility(L, a, i, j, k) >= strong || transmissibility(L, a, i - d[0], j - d[1], k - d[2]) >= strong)
            return 1;
    }
    return 0;
}

/* Number of parts of 2x2x2 entries, of which `in` (a bit each) are there; `bound` has a bit for each that is bound
   to the next one, along each axis. */
static int parts_of(int in, const int *bound) {
    int left = in, count = 0;
    while (left) {
        int grown = left & -left, before = 0;
        while (grown != before) {
            before = grown;
            for (int a = 0; a < 3; a++) {
                const int step = 1 << a;
                grown |= (grown & bound[a]) << step | (grown >> step & bound[a]);
            }
        }
        left &= ~grown;
        count++;
    }
    return count;
}

/* counts: unknowns that conduct, i.e. have a face from `strong` on; aggregates of 2x2x2 with any of them; aggregates
   in which they are in more than one part. `first` is the place of this block's first unknown in the whole grid. */
void parted(const level *L, double strong, const int64_t *first, int64_t *counts) {
    static const int lower[3] = {0x55, 0x33, 0x0f}; /* entries that have a next one along an axis */
    int64_t all = 0, some = 0, many = 0;
    const int64_t o0 = first[0] % 2, o1 = first[1] % 2, o2 = first[2] % 2;
    _Pragma("omp parallel for schedule(static) reduction(+ : all, some, many) num_threads(L->threads) if (L->threads > 1)")
    for (int64_t i = 1 - o0; i <= L->n[0]; i += 2)
        for (int64_t j = 1 - o1; j <= L->n[1]; j += 2)
            for (int64_t k = 1 - o2; k <= L->n[2]; k += 2) {
                int in = 0, bound[3] = {0, 0, 0};
                for (int s = 0; s < 8; s++) {
                    const int64_t u = i + (s >> 2), v = j + (s >> 1 & 1), w = k + (s & 1);
                    if (u < 1 || v < 1 || w < 1 || u > L->n[0] || v > L->n[1] || w > L->n[2]) continue;
                    in |= conducts(L, strong, u, v, w) << s;
                }
                if (!in) continue;
                all += __builtin_popcount(in);
                some++;
                if (L->kind == MASK)
                    for (int a = 0; a < 3; a++) bound[a] = in & in >> (1 << a) & lower[a];
                else
                    for (int s = 0; s < 8; s++)
                        for (int a = 0; a < 3; a++) {
                            const int both = 1 << s | 1 << (s + (1 << a));
                            if ((lower[a] >> s & 1) && (in & both) == both)
                                bound[a] |= (transmissibility(L, 2 - a, i + (s >> 2), j + (s >> 1 & 1), k + (s & 1)) >=
                                             strong) << s;
                        }
                many += parts_of(in, bound) > 1;
            }
    counts[0] = all;
    counts[1] = some;
    counts[2] = many;
}

/* number: of the piece of each own unknown from 0, -1 where it does not conduct. A piece hangs together by faces from
   `strong` on within a block of block³ unknowns of the whole grid. `parent` is workspace of the same size. Returns
   how many there are. */
int64_t pieces(const level *L, double strong, int64_t block, const int64_t *first, int32_t *parent, int32_t *number) {
    int64_t count = 0;
    PLANES(L) ROWS(L) OWN(L) {
        const int64_t at = place(L, i, j) + k;
        parent[at] = conducts(L, strong, i, j, k) ? (int32_t)at : -1;
    }
    PLANES(L) ROWS(L) OWN(L) {
        const int64_t at = place(L, i, j) + k, index[3] = {i, j, k};
        if (parent[at] < 0) continue;
        for (int a = 0; a < 3; a++) {
            if (index[a] == L->n[a] || (first[a] + index[a]) % block == 0) continue;
            const int64_t next = at + stride_of(L, a);
            if (parent[next] >= 0 && transmissibility(L, a, i, j, k) >= strong) join(parent, at, next);
        }
    }
    /* The root of a tree is its first entry. */
    PLANES(L) ROWS(L) OWN(L) {
        const int64_t at = place(L, i, j) + k;
        if (parent[at] < 0) {
            number[at] = -1;
            continue;
        }
        const int64_t root = find(parent, at);
        number[at] = root == at ? (int32_t)count++ : number[root];
    }
    return count;
}

/* Faces between pieces, seen from the own ones: `pairs` of own and other number, their transmissibilities. Returns
   how many; with `pairs` 0 they are only counted. diagonal: sum over the faces of a piece to all else; leak: over
   those to what is in no piece. Numbers are those of all ranks, this one's begin at `offset`. */
int64_t piece_links(const level *L, const int32_t *number, int64_t offset, int32_t *pairs, double *values,
                    double *diagonal, double *leak) {
    int64_t count = 0;
    PLANES(L) ROWS(L) OWN(L) {
        const int64_t at = place(L, i, j) + k;
        const int32_t c = number[at];
        if (c < 0) continue;
        if (pairs) {
            diagonal[c - offset] += L->shift;
            leak[c - offset] += L->shift;
        }
        for (int a = 0; a < 3; a++)
            for (int side = 0; side < 2; side++) {
                const int64_t d[3] = {a == 0, a == 1, a == 2};
                const int32_t other = number[side ? at + stride_of(L, a) : at - stride_of(L, a)];
                if (other == c) continue;
                const double t = side ? transmissibility(L, a, i, j, k)
                                      : transmissibility(L, a, i - d[0], j - d[1], k - d[2]);
                if (t == 0) continue;
                if (pairs) {
                    diagonal[c - offset] += t;
                    if (other < 0)
                        leak[c - offset] += t;
                    else {
                        pairs[2 * count] = c;
                        pairs[2 * count + 1] = other;
                        values[count] = t;
                    }
                }
                count += other >= 0;
            }
    }
    return count;
}

/* load[q, c]: sum of b over own pieces, residual[q, c]: of b - A x (if `started`, else the same). */
void piece_gather(const level *L, int32_t started, const int32_t *number, int64_t offset, int64_t count, double *load,
                  double *residual) {
    const int64_t S = size_of(L);
    float ax[L->n[2] + 2], dg[L->n[2] + 2];
    memset(ax, 0, sizeof ax);
    PLANES(L) ROWS(L) {
        const int32_t *c = number + place(L, i, j);
        int any = 0;
        OWN(L) any |= c[k] >= 0;
        if (!any) continue;
        for (int32_t q = 0; q < L->rhs; q++) {
            const float *b = L->b + q * S + place(L, i, j);
            if (started) any_ff(L, i, j, L->x + q * S, ax, dg);
            double *into = load + q * count - offset, *rest = residual + q * count - offset;
            OWN(L) if (c[k] >= 0) {
                into[c[k]] += b[k];
                rest[c[k]] += (double)b[k] - ax[k];
            }
        }
    }
}

/* x += values[q, c] on the pieces; the numbers are those of all ranks. */
void piece_scatter(const level *L, const int32_t *number, int64_t total, const double *values) {
    for (int32_t q = 0; q < L->rhs; q++) {
        float *x = L->x + q * size_of(L);
        const double *add = values + q * total;
        PLANES(L) ROWS(L) OWN(L) {
            const int64_t at = place(L, i, j) + k;
            if (number[at] >= 0) x[at] += (float)add[number[at]];
        }
    }
}
