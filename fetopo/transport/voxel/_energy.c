/* What follows from a potential: energies, fluxes, derivatives with respect to conductivities. Double precision. */
#include "_level.h"

/* Step of the potential from an unknown to the next one along an axis, the mean gradient included. */
static inline double step_of(const level *L, const double *u, const double *gradient, int a, int64_t at) {
    return u[at + stride_of(L, a)] - u[at] + (gradient ? gradient[a] : 0);
}

/* Conductivity of an unknown of finite volumes. */
static inline double own_kappa(const level *L, int a, int64_t at) {
    return L->kind == MASK ? (double)(L->code[at] != 0) : kappa_of(L, a, at);
}

/* Finite volumes. `energy`: sums over faces of t J J' for each pair of right-hand sides. Faces shared with
   another rank count once: those after an own unknown are own. */
void volumes_energy(const level *L, const double *u, const double *gradient, double *energy) {
    const int64_t S = size_of(L), pairs = (int64_t)L->rhs * L->rhs;
    double *part = calloc((L->n[0] + 2) * pairs, sizeof(double));
    _Pragma("omp parallel for schedule(static) num_threads(L->threads) if (L->threads > 1)")
    for (int64_t i = 0; i <= L->n[0]; i++)
        for (int a = 0; a < 3; a++) {
            if (i == 0 && !(a == 0 && L->low[0])) continue;
            for (int64_t j = a == 1 && L->low[1] ? 0 : 1; j <= L->n[1]; j++)
                for (int64_t k = a == 2 && L->low[2] ? 0 : 1; k <= L->n[2]; k++) {
                    const double t = transmissibility(L, a, i, j, k);
                    if (t == 0) continue;
                    double J[L->rhs];
                    for (int32_t q = 0; q < L->rhs; q++)
                        J[q] = step_of(L, u + q * S, gradient ? gradient + 3 * q : 0, a, place(L, i, j) + k);
                    for (int32_t q = 0; q < L->rhs; q++)
                        for (int32_t r = 0; r < L->rhs; r++) part[i * pairs + q * L->rhs + r] += t * J[q] * J[r];
                }
        }
    for (int64_t p = 0; p < pairs; p++) {
        energy[p] = 0;
        for (int64_t i = 0; i <= L->n[0]; i++) energy[p] += part[i * pairs + p];
    }
    free(part);
}

/* Finite volumes. Fluxes F = t J through the faces of each voxel, as a field that is linear along each axis in
   it (lowest-order Raviart-Thomas).
     mean[a, q]    sum over voxels of the flux along a; times its edge it is density times volume
     energy[q, r]  sum of |density|^2/kappa, times volume
     net[q]        sum of |net flux out of a voxel - source|
     faces[q, r]   sum over faces of t J J', as `volumes_energy`
     plane[f]      of the first right-hand side: flux through the planes of faces normal to `axis` */
static inline __attribute__((always_inline)) void
flux_of(const level *L, const int rhs, const double *u, const double *gradient, const double *source, int32_t axis,
        double *mean, double *energy, double *net, double *faces, double *plane) {
    const int64_t S = size_of(L);
    for (int q = 0; q < 3 * rhs; q++) mean[q] = 0;
    for (int q = 0; q < rhs * rhs; q++) energy[q] = faces[q] = 0;
    for (int q = 0; q < rhs; q++) net[q] = 0;
    PLANES(L) ROWS(L) {
        double M[3 * rhs], C[rhs * rhs], E[rhs * rhs], N[rhs];
        memset(M, 0, sizeof M);
        memset(C, 0, sizeof C);
        memset(E, 0, sizeof E);
        memset(N, 0, sizeof N);
        OWN(L) {
            const int64_t at = place(L, i, j) + k, index[3] = {i, j, k};
            double out[rhs];
            for (int q = 0; q < rhs; q++) out[q] = source ? -source[q * S + at] : 0;
            for (int a = 0; a < 3; a++) {
                const double kappa = own_kappa(L, a, at);
                if (kappa == 0 || L->weight[a] == 0) continue;
                const int64_t d[3] = {a == 0, a == 1, a == 2}, step = stride_of(L, a);
                const double lower = transmissibility(L, a, i - d[0], j - d[1], k - d[2]),
                             upper = transmissibility(L, a, i, j, k);
                const double share = 1 / (3 * kappa * L->weight[a]);
                double F[rhs], G[rhs], J[rhs];
                for (int q = 0; q < rhs; q++) {
                    const double *g = gradient ? gradient + 3 * q : 0;
                    F[q] = lower ? lower * step_of(L, u + q * S, g, a, at - step) : 0;
                    J[q] = upper ? step_of(L, u + q * S, g, a, at) : 0;
                    G[q] = upper * J[q];
                    M[a * rhs + q] += 0.5 * (F[q] + G[q]);
                    out[q] += F[q] - G[q];
                    for (int r = 0; r <= q; r++) {
                        C[q * rhs + r] += share * (F[q] * F[r] + 0.5 * (F[q] * G[r] + G[q] * F[r]) + G[q] * G[r]);
                        E[q * rhs + r] += G[q] * J[r];
                        if (index[a] == 1 && L->low[a]) E[q * rhs + r] += F[q] * F[r] / lower;
                    }
                }
                if (a == axis && plane) {
                    plane[index[a]] += G[0];
                    if (index[a] == 1) plane[0] += F[0];
                }
            }
            for (int q = 0; q < rhs; q++) N[q] += fabs(out[q]);
        }
        for (int q = 0; q < 3 * rhs; q++) mean[q] += M[q];
        for (int q = 0; q < rhs * rhs; q++) energy[q] += C[q], faces[q] += E[q];
        for (int q = 0; q < rhs; q++) net[q] += N[q];
    }
    for (int q = 0; q < rhs; q++)
        for (int r = q + 1; r < rhs; r++) {
            energy[q * rhs + r] = energy[r * rhs + q];
            faces[q * rhs + r] = faces[r * rhs + q];
        }
}

/* The usual numbers of right-hand sides are known to the compiler. */
void volumes_flux(const level *L, const double *u, const double *gradient, const double *source, int32_t axis,
                  double *mean, double *energy, double *net, double *faces, double *plane) {
    switch (L->rhs) {
    case 1: flux_of(L, 1, u, gradient, source, axis, mean, energy, net, faces, plane); break;
    case 2: flux_of(L, 2, u, gradient, source, axis, mean, energy, net, faces, plane); break;
    case 3: flux_of(L, 3, u, gradient, source, axis, mean, energy, net, faces, plane); break;
    default: flux_of(L, L->rhs, u, gradient, source, axis, mean, energy, net, faces, plane);
    }
}

static inline __attribute__((always_inline)) void
derivative_row(const level *L, const int rhs, int64_t i, int64_t j, const double *u, const double *gradient,
               const double *weight, double *derivative) {
    const int64_t S = size_of(L), own = L->n[0] * L->n[1] * L->n[2];
    OWN(L) {
        const int64_t at = place(L, i, j) + k, index[3] = {i, j, k};
        const int64_t mine = ((i - 1) * L->n[1] + j - 1) * L->n[2] + k - 1;
        if (L->parts == 1) derivative[mine] = 0;
        for (int a = 0; a < 3; a++) {
            double sum = 0;
            const int64_t step = stride_of(L, a);
            const double one = kappa_of(L, a, at);
            for (int side = 0; side < 2; side++) {
                const int fixed = side ? index[a] == L->n[a] && L->high[a] : index[a] == 1 && L->low[a];
                const double other = kappa_of(L, a, side ? at + step : at - step), both = one + other;
                const double share = both > 0 ? other / both : 0, slope = fixed ? 2 : 2 * share * share;
                if (slope == 0) continue;
                double square = 0, J[rhs];
                for (int q = 0; q < rhs; q++)
                    J[q] = step_of(L, u + q * S, gradient ? gradient + 3 * q : 0, a, side ? at : at - step);
                for (int q = 0; q < rhs; q++)
                    for (int r = 0; r < rhs; r++) square += weight[q * rhs + r] * J[q] * J[r];
                sum += slope * L->weight[a] * square;
            }
            if (L->parts == 1)
                derivative[mine] += sum;
            else
                derivative[a * own + mine] = sum;
        }
    }
}

/* Finite volumes. Derivative of sum_qr weight[q, r] energy[q, r] with respect to every own conductivity, the
   potentials held: one array, or one per axis. */
void volumes_derivative(const level *L, const double *u, const double *gradient, const double *weight,
                        double *derivative) {
    PARALLEL(L)
    PLANES(L) ROWS(L) switch (L->rhs) {
    case 1: derivative_row(L, 1, i, j, u, gradient, weight, derivative); break;
    case 2: derivative_row(L, 2, i, j, u, gradient, weight, derivative); break;
    case 3: derivative_row(L, 3, i, j, u, gradient, weight, derivative); break;
    default: derivative_row(L, L->rhs, i, j, u, gradient, weight, derivative);
    }
}

/* Elements. For every own voxel the energies of all pairs at conductivity 1.
     energy[q, r]   their sum with the conductivities
     layer[n]       of the first right-hand side: flux along `axis` through each layer of own voxels
     derivative     sum_qr weight[q, r] energy per voxel at conductivity 1; one array, or one per axis */
void elements_energy(const level *L, const double *u, const double *gradient, const double *weight, int32_t axis,
                     double *energy, double *layer, double *derivative) {
    const int64_t S = size_of(L), own = L->voxels[0] * L->voxels[1] * L->voxels[2];
    const int rhs = L->rhs, pairs = rhs * rhs;
    double *part = calloc((L->voxels[0] + 1) * pairs, sizeof(double));
    double *flux = calloc((L->voxels[0] + 1) * (L->voxels[0] + L->voxels[1] + L->voxels[2]), sizeof(double));
    const int64_t layers = axis >= 0 ? L->voxels[axis] : 0;
    _Pragma("omp parallel for schedule(static) num_threads(L->threads) if (L->threads > 1)")
    for (int64_t i = 1; i <= L->voxels[0]; i++)
        for (int64_t j = 1; j <= L->voxels[1]; j++)
            for (int64_t k = 1; k <= L->voxels[2]; k++) {
                const int64_t v = voxel_at(L, i, j, k), index[3] = {i, j, k};
                const int64_t node = place(L, i - L->offset[0], j - L->offset[1]) + k - L->offset[2];
                const int64_t mine = ((i - 1) * L->voxels[1] + j - 1) * L->voxels[2] + k - 1;
                if (derivative && L->parts == 1) derivative[mine] = 0;
                for (int a = 0; a < 3; a++) {
                    if (L->stiffness[a] == 0) {
                        if (derivative && L->parts == 3) derivative[a * own + mine] = 0;
                        continue;
                    }
                    const double kappa = kappa_of(L, a, v);
                    if (kappa == 0 && !derivative) continue;
                    const int b = (a + 1) % 3, c = (a + 2) % 3;
                    const int64_t sb = stride_of(L, b), sc = stride_of(L, c), sa = stride_of(L, a);
                    double J[rhs][4], K[rhs][4], slope = 0;
                    for (int q = 0; q < rhs; q++) {
                        const double *w = u + q * S + node, g = gradient ? gradient[3 * q + a] : 0;
                        for (int s = 0; s < 4; s++) {
                            const int64_t at = (s >> 1) * sb + (s & 1) * sc;
                            J[q][s] = w[at + sa] - w[at] + g;
                        }
                        const double db = L->diagonal[b], ob = L->coupling[b], dc = L->diagonal[c], oc = L->coupling[c];
                        for (int s = 0; s < 4; s++)
                            K[q][s] = L->stiffness[a] * (db * dc * J[q][s] + db * oc * J[q][s ^ 1] +
                                                         ob * dc * J[q][s ^ 2] + ob * oc * J[q][s ^ 3]);
                    }
                    for (int q = 0; q < rhs; q++)
                        for (int r = 0; r < rhs; r++) {
                            const double e = J[q][0] * K[r][0] + J[q][1] * K[r][1] + J[q][2] * K[r][2] +
                                             J[q][3] * K[r][3];
                            part[i * pairs + q * rhs + r] += kappa * e;
                            if (weight) slope += weight[q * rhs + r] * e;
                        }
                    if (derivative && L->parts == 1) derivative[mine] += slope;
                    if (derivative && L->parts == 3) derivative[a * own + mine] = slope;
                    if (a == axis) flux[i * layers + index[a] - 1] += kappa * (K[0][0] + K[0][1] + K[0][2] + K[0][3]);
                }
            }
    for (int p = 0; p < pairs; p++) {
        energy[p] = 0;
        for (int64_t i = 1; i <= L->voxels[0]; i++) energy[p] += part[i * pairs + p];
    }
    for (int64_t n = 0; n < layers; n++) {
        layer[n] = 0;
        for (int64_t i = 1; i <= L->voxels[0]; i++) layer[n] += flux[i * layers + n];
    }
    free(part);
    free(flux);
}
