/* A row of the product A x and of the diagonal of A. Included once for each pair of types: entries X, sums ACC. */
#ifndef ROW
#define CAT_(a, b) a##_##b
#define CAT(a, b) CAT_(a, b)
#define ROW(name) CAT(name, SUFFIX)
#endif

static inline void ROW(mask)(const level *L, int64_t i, int64_t j, const X *x, ACC *restrict ax, ACC *restrict dg) {
    const int64_t P = plane_size(L), R = row_size(L), n = L->n[2], at = place(L, i, j);
    const uint8_t *restrict code = L->code + at;
    const X *m = x + at;
    const ACC w0 = (ACC)L->weight[0], w1 = (ACC)L->weight[1], w2 = (ACC)L->weight[2], shift = (ACC)L->shift;
    if (w0 == w1 && w1 == w2) { /* cubes: the open half faces count alike */
        for (int64_t k = 1; k <= n; k++) {
            const int32_t c = code[k];
            const ACC d = w0 * (ACC)((c & 3) + (c >> 2 & 3) + (c >> 4)) + shift;
            const ACC sum = ((ACC)m[k - P] + (ACC)m[k + P]) + ((ACC)m[k - R] + (ACC)m[k + R]) +
                            ((ACC)m[k - 1] + (ACC)m[k + 1]);
            dg[k] = c ? d : (ACC)0;
            ax[k] = c ? d * (ACC)m[k] - w0 * sum : (ACC)0;
        }
        return;
    }
    for (int64_t k = 1; k <= n; k++) {
        const int32_t c = code[k];
        const ACC d = w0 * (ACC)(c & 3) + w1 * (ACC)(c >> 2 & 3) + w2 * (ACC)(c >> 4) + shift;
        const ACC sum = w0 * ((ACC)m[k - P] + (ACC)m[k + P]) + w1 * ((ACC)m[k - R] + (ACC)m[k + R]) +
                        w2 * ((ACC)m[k - 1] + (ACC)m[k + 1]);
        dg[k] = c ? d : (ACC)0;
        ax[k] = c ? d * (ACC)m[k] - sum : (ACC)0;
    }
}

#define ROW_OF_FACES(name, T, member)                                                                          \
    static inline void ROW(name)(const level *L, int64_t i, int64_t j, const X *x, ACC *restrict ax,          \
                                 ACC *restrict dg) {                                                           \
        const int64_t P = plane_size(L), R = row_size(L), n = L->n[2], at = place(L, i, j);                    \
        const T *restrict t0 = L->member[0] + at, *restrict t1 = L->member[1] + at,                            \
                          *restrict t2 = L->member[2] + at;                                                    \
        const X *m = x + at;                                                                                   \
        const ACC shift = (ACC)L->shift;                                                                       \
        for (int64_t k = 1; k <= n; k++) {                                                                     \
            const ACC here = (ACC)m[k];                                                                        \
            const ACC a = (ACC)t0[k - P], b = (ACC)t0[k], c = (ACC)t1[k - R], d = (ACC)t1[k],                  \
                      e = (ACC)t2[k - 1], f = (ACC)t2[k];                                                      \
            dg[k] = a + b + c + d + e + f + shift;                                                             \
            ax[k] = a * (here - (ACC)m[k - P]) + b * (here - (ACC)m[k + P]) + c * (here - (ACC)m[k - R]) +     \
                    d * (here - (ACC)m[k + R]) + e * (here - (ACC)m[k - 1]) + f * (here - (ACC)m[k + 1]) +     \
                    shift * here;                                                                              \
        }                                                                                                      \
    }
ROW_OF_FACES(faces, float, face)
ROW_OF_FACES(fine_faces, double, fine_face)
#undef ROW_OF_FACES

/* Conductivities of the four rows of voxels around a row of nodes. */
static inline void ROW(voxels)(const level *L, int part, int64_t i, int64_t j, ACC *restrict v, int64_t m) {
    for (int s = 0; s < 4; s++) {
        const int64_t at = voxel_at(L, i - 1 + (s >> 1) + L->offset[0], j - 1 + (s & 1) + L->offset[1], 0);
        ACC *restrict out = v + s * m;
        if (L->kind == VALUES) {
            const double *restrict in = L->kappa[part] + at;
            for (int64_t k = 0; k < m; k++) out[k] = (ACC)in[k];
        } else if (L->binary) {
            const uint8_t *restrict in = L->label + at;
            for (int64_t k = 0; k < m; k++) out[k] = (ACC)in[k];
        } else {
            const uint8_t *restrict in = L->label + at;
            for (int64_t k = 0; k < m; k++) out[k] = (ACC)L->table[in[k]];
        }
    }
}

static inline void ROW(elements)(const level *L, int64_t i, int64_t j, const X *x, ACC *restrict ax,
                                 ACC *restrict dg) {
    const int64_t P = plane_size(L), R = row_size(L), n = L->n[2], m = L->voxels[2] + 2;
    const X *row = x + place(L, i, j);
    const X *x00 = row - P - R, *x01 = row - P, *x02 = row - P + R, *x10 = row - R, *x11 = row, *x12 = row + R,
            *x20 = row + P - R, *x21 = row + P, *x22 = row + P + R;
    ACC v[4 * m];
    for (int64_t k = 1; k <= n; k++) ax[k] = dg[k] = 0;
    for (int part = 0; part < L->parts; part++) {
        const int which = L->parts == 3 ? part : -1;
        ACC e[8];
        for (int s = 0; s < 8; s++) e[s] = (ACC)element_entry(L, which, s >> 2, s >> 1 & 1, s & 1);
        ROW(voxels)(L, part, i, j, v, m);
        const ACC *restrict v00 = v + L->offset[2], *restrict v01 = v00 + m, *restrict v10 = v01 + m,
                           *restrict v11 = v10 + m;
        for (int64_t k = 1; k <= n; k++) {
            const ACC a0 = v00[k - 1], a1 = v00[k], b0 = v01[k - 1], b1 = v01[k], c0 = v10[k - 1], c1 = v10[k],
                      d0 = v11[k - 1], d1 = v11[k];
            const ACC ab0 = a0 + b0, ab1 = a1 + b1, cd0 = c0 + d0, cd1 = c1 + d1, ac0 = a0 + c0, ac1 = a1 + c1,
                      bd0 = b0 + d0, bd1 = b1 + d1, all0 = ab0 + cd0, all1 = ab1 + cd1;
            /* Rows sum to zero: with differences a constant costs no accuracy, however good the conductor. */
            const ACC here = (ACC)x11[k];
#define ENDS(q0, q1, y, entry)                                                                                 \
    (e[(entry) + 1] * ((q0) * ((ACC)y[k - 1] - here) + (q1) * ((ACC)y[k + 1] - here)))
#define THREE(q0, q1, y, entry) (e[entry] * ((q0) + (q1)) * ((ACC)y[k] - here) + ENDS(q0, q1, y, entry))
            ax[k] += THREE(a0, a1, x00, 6) + THREE(b0, b1, x02, 6) + THREE(c0, c1, x20, 6) +
                     THREE(d0, d1, x22, 6) + THREE(ab0, ab1, x01, 4) + THREE(cd0, cd1, x21, 4) +
                     THREE(ac0, ac1, x10, 2) + THREE(bd0, bd1, x12, 2) + ENDS(all0, all1, x11, 0);
#undef THREE
#undef ENDS
            dg[k] += e[0] * (all0 + all1);
        }
    }
}

static inline void ROW(any)(const level *L, int64_t i, int64_t j, const X *x, ACC *restrict ax, ACC *restrict dg) {
    switch (L->kind) {
    case MASK: ROW(mask)(L, i, j, x, ax, dg); break;
    case FACES: ROW(faces)(L, i, j, x, ax, dg); break;
    case FINE_FACES: ROW(fine_faces)(L, i, j, x, ax, dg); break;
    default: ROW(elements)(L, i, j, x, ax, dg);
    }
}

/* Values of the ghosts of an axis that meets itself on this rank; axis after axis, so that corners are right. */
void ROW(wrap)(const level *L, X *x, int32_t rhs) {
    const int64_t P = plane_size(L), R = row_size(L), S = size_of(L);
    for (int32_t q = 0; q < rhs; q++, x += S) {
        if (L->wrap[0]) {
            memcpy(x, x + L->n[0] * P, P * sizeof(X));
            memcpy(x + (L->n[0] + 1) * P, x + P, P * sizeof(X));
        }
        if (L->wrap[1])
            for (int64_t i = 0; i < L->n[0] + 2; i++) {
                X *plane = x + i * P;
                memcpy(plane, plane + L->n[1] * R, R * sizeof(X));
                memcpy(plane + (L->n[1] + 1) * R, plane + R, R * sizeof(X));
            }
        if (L->wrap[2])
            for (int64_t at = 0; at < S; at += R) {
                x[at] = x[at + L->n[2]];
                x[at + L->n[2] + 1] = x[at + 1];
            }
    }
}
