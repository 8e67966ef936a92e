/* One level of a grid: a rank's own block of unknowns with one layer of ghosts around.

   Arrays have (n0+2)(n1+2)(n2+2) entries; own ones are 1..n along each axis. Several right-hand sides follow
   one another. A face array holds at an entry the face between it and the next one along its axis. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MASK, FACES, FINE_FACES, BYTES, VALUES };

typedef struct {
    int64_t n[3];         /* own unknowns */
    int32_t kind;         /* MASK, FACES (float), FINE_FACES (double); elements: BYTES or VALUES */
    int32_t rhs;          /* right-hand sides */
    int32_t threads;
    int32_t binary;       /* BYTES: the byte itself is the conductivity */
    int32_t parts;        /* 1: scalar conductivities, 3: one per axis */
    int32_t wrap[3];      /* the axis meets itself on this rank */
    int32_t low[3];       /* the potential is fixed at the first, */
    int32_t high[3];      /* or the last face of this block */
    int32_t sweeps;       /* of the smoother, before and after the correction */
    int32_t factor[3];    /* unknowns per aggregate of the next level */
    double weight[3];     /* area/distance of a face */
    double shift;         /* added to the diagonal */
    double radius;        /* bound of the eigenvalues of D^-1 A */
    uint8_t *code;        /* MASK: number of open half faces per axis, two bits each; 0 is solid */
    float *face[3];
    double *fine_face[3];
    uint8_t *label;       /* voxels with a layer of ghosts: index into table */
    double *table;
    double *kappa[3];     /* the same as numbers */
    int64_t voxels[3];    /* own voxels */
    int32_t offset[3];    /* elements: own node i lies between voxels i-1+offset and i+offset */
    double stiffness[3], diagonal[3], coupling[3]; /* of a one-dimensional element along each axis */
    float *x, *y, *b;
} level;

#define PLANES(L) for (int64_t i = 1; i <= (L)->n[0]; i++)
#define ROWS(L) for (int64_t j = 1; j <= (L)->n[1]; j++)
#define OWN(L) for (int64_t k = 1; k <= (L)->n[2]; k++)
#define PARALLEL(L) _Pragma("omp parallel for schedule(static) num_threads(L->threads) if (L->threads > 1)")

static inline int64_t row_size(const level *L) { return L->n[2] + 2; }
static inline int64_t plane_size(const level *L) { return (L->n[1] + 2) * (L->n[2] + 2); }
static inline int64_t size_of(const level *L) { return (L->n[0] + 2) * plane_size(L); }
static inline int64_t place(const level *L, int64_t i, int64_t j) { return i * plane_size(L) + j * row_size(L); }
static inline int64_t stride_of(const level *L, int a) {
    return a == 0 ? plane_size(L) : a == 1 ? row_size(L) : 1;
}

/* Conductivity of a voxel along an axis, with ghosts. */
static inline int64_t voxel_at(const level *L, int64_t i, int64_t j, int64_t k) {
    return (i * (L->voxels[1] + 2) + j) * (L->voxels[2] + 2) + k;
}
static inline double kappa_of(const level *L, int a, int64_t at) {
    if (L->label) return L->binary ? (double)(L->label[at] != 0) : L->table[L->label[at]];
    return L->kappa[L->parts == 3 ? a : 0][at];
}

/* Entry of the element matrix of a voxel with conductivity 1 between nodes that differ along some axes. */
static inline double element_entry(const level *L, int part, int di, int dj, int dk) {
    const int d[3] = {di, dj, dk};
    double total = 0;
    for (int a = 0; a < 3; a++) {
        if (part >= 0 && part != a) continue;
        double product = d[a] ? -L->stiffness[a] : L->stiffness[a];
        for (int b = 0; b < 3; b++)
            if (b != a) product *= d[b] ? L->coupling[b] : L->diagonal[b];
        total += product;
    }
    return total;
}

/* Transmissibility between an unknown and the next one along an axis. Of elements it is that of the edge,
   with the mean of the voxels around: a seven-point operator spectrally equivalent to the elements'. */
static inline double transmissibility(const level *L, int a, int64_t i, int64_t j, int64_t k) {
    const int64_t at = place(L, i, j) + k;
    if (L->kind == FACES) return L->face[a][at];
    if (L->kind == FINE_FACES) return L->fine_face[a][at];
    const int64_t index[3] = {i, j, k};
    if (L->kind == MASK) {
        const int here = L->code[at] != 0, next = L->code[at + stride_of(L, a)] != 0;
        if (index[a] == 0 && L->low[a]) return next ? 2 * L->weight[a] : 0;
        if (index[a] == L->n[a] && L->high[a]) return here ? 2 * L->weight[a] : 0;
        return here && next ? L->weight[a] : 0;
    }
    const int b = (a + 1) % 3, c = (a + 2) % 3;
    double sum = 0;
    for (int s = 0; s < 2; s++)
        for (int t = 0; t < 2; t++) {
            int64_t v[3];
            v[a] = index[a] + L->offset[a];
            v[b] = index[b] - 1 + s + L->offset[b];
            v[c] = index[c] - 1 + t + L->offset[c];
            sum += kappa_of(L, a, voxel_at(L, v[0], v[1], v[2]));
        }
    return sum * L->stiffness[a] * (L->diagonal[b] + L->coupling[b]) * (L->diagonal[c] + L->coupling[c]);
}
