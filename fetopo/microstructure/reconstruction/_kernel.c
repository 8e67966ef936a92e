/* Exchanges of two voxels of a periodic two-phase image, with the counts behind S2, lineal paths and chords
   kept up to date. All counts are integers, so that no round-off builds up. Compiled by _kernel.py. */
#include <math.h>
#include <stdint.h>

typedef struct {
    /* The image with a halo on every side, so that a lag is one offset; two-dimensional: shape[0] = 1. */
    uint8_t *cells;
    int64_t shape[3], stride[3], halo[3], size;
    /* Places (flat index without halo) of the voxels of phase 1 and of phase 0. */
    int64_t *ones, *zeros, number_of_ones, number_of_zeros;
    /* Two-point rows: the lags first[r] … first[r + 1] − 1 add up to the count of row r. */
    int64_t rows, *first, *offset, *count, *change;
    double *share, *row_weight, *residual; /* share: one over the pairs of the row */
    /* Lines: one block of n + 1 per axis and phase. runs[l]: runs of l < n voxels; runs[n]: lines wholly in it.
       Paths and chords of that block: target and weight, 0 where not wanted. */
    int64_t blocks, *axis, *phase, *begin, *runs;
    double *path, *path_weight, *chord, *chord_weight;
    double voxels, anywhere;
    uint64_t random;
} annealing;

static uint64_t draw(annealing *s)
{   /* splitmix64 (Steele, Lea, Flood 2014, doi:10.1145/2714064.2660195) */
    uint64_t z = (s->random += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static double uniform(annealing *s) { return ((double)(draw(s) >> 11) + 0.5) * 0x1p-53; }

static int64_t below(annealing *s, int64_t n) { return (int64_t)(uniform(s) * (double)n); }

static void place(const annealing *s, int64_t flat, int64_t *x)
{
    x[2] = flat % s->shape[2];
    x[1] = flat / s->shape[2] % s->shape[1];
    x[0] = flat / (s->shape[2] * s->shape[1]);
}

static int64_t inside(const annealing *s, const int64_t *x)
{
    return (x[0] + s->halo[0]) * s->stride[0] + (x[1] + s->halo[1]) * s->stride[1] + (x[2] + s->halo[2]);
}

/* Change the voxel and its copies in the halo. */
static void flip(annealing *s, const int64_t *x)
{
    int64_t at[3][3];
    int copies[3];
    for (int a = 0; a < 3; a++) {
        copies[a] = 0;
        for (int64_t c = x[a] - s->shape[a]; c <= x[a] + s->shape[a]; c += s->shape[a])
            if (c >= -s->halo[a] && c < s->shape[a] + s->halo[a])
                at[a][copies[a]++] = c;
    }
    for (int i = 0; i < copies[0]; i++)
        for (int j = 0; j < copies[1]; j++)
            for (int k = 0; k < copies[2]; k++) {
                const int64_t y[3] = {at[0][i], at[1][j], at[2][k]};
                s->cells[inside(s, y)] ^= 1;
            }
}

/* Runs after the voxel at x, of whichever phase, has changed sides; call it before or after the flip. */
static void recount(annealing *s, const int64_t *x, int value)
{
    const int64_t middle = inside(s, x);
    for (int64_t b = 0; b < s->blocks; b++) {
        const int64_t axis = s->axis[b], n = s->shape[axis], step = s->stride[axis];
        const uint8_t *line = s->cells + middle - x[axis] * step;
        const uint8_t phase = (uint8_t)s->phase[b];
        int64_t *runs = s->runs + s->begin[b];
        int64_t left = 0, right = 0;
        for (int64_t y = x[axis]; left < n - 1; left++) {
            y = y ? y - 1 : n - 1;
            if (line[y * step] != phase)
                break;
        }
        if (left < n - 1)
            for (int64_t y = x[axis];; right++) {
                y = y < n - 1 ? y + 1 : 0;
                if (line[y * step] != phase)
                    break;
            }
        /* One run with the voxel (the whole line when left is n − 1), or one on either side without it. */
        const int64_t sign = value == phase ? 1 : -1;
        runs[left + right + 1] += sign;
        runs[left] -= sign;
        runs[right] -= sign;
        runs[0] = 0;
    }
}

/* Σ w (value − target)² over lineal paths and chords. */
double line_energy(const annealing *s)
{
    double energy = 0.0;
    for (int64_t b = 0; b < s->blocks; b++) {
        const int64_t n = s->shape[s->axis[b]], start = s->begin[b];
        const int64_t *runs = s->runs + start;
        int64_t longer = 0, held = runs[n] * n;
        for (int64_t k = n - 1; k >= 0; k--) {
            /* longer: runs of more than k voxels; held: voxel sides of starting points for a segment of k. */
            held += longer;
            const double path = (double)held / s->voxels - s->path[start + k];
            const double chord = (double)longer / s->voxels - s->chord[start + k];
            energy += s->path_weight[start + k] * path * path + s->chord_weight[start + k] * chord * chord;
            longer += runs[k];
        }
    }
    return energy;
}

double pair_energy(const annealing *s)
{
    double energy = 0.0;
    for (int64_t r = 0; r < s->rows; r++)
        energy += s->row_weight[r] * s->residual[r] * s->residual[r];
    return energy;
}

static int at_interface(const annealing *s, int64_t flat)
{
    int64_t x[3];
    place(s, flat, x);
    const uint8_t *here = s->cells + inside(s, x);
    for (int a = 0; a < 3; a++)
        if (s->halo[a] && (here[s->stride[a]] != *here || here[-s->stride[a]] != *here))
            return 1;
    return 0;
}

static int64_t candidate(annealing *s, const int64_t *list, int64_t length)
{
    int64_t i = below(s, length);
    if (uniform(s) >= s->anywhere)
        for (int tries = 0; tries < 10000 && !at_interface(s, list[i]); tries++)
            i = below(s, length);
    return i;
}

/* Propose exchanges of a voxel of phase 1 with one of phase 0 and take them by Metropolis' rule, until the
   energy is at most `enough`. Without a temperature (negative) every exchange is taken.
   risen[0], risen[1]: sum and number of the proposed increases. Returns the number of exchanges taken. */
int64_t anneal(annealing *s, int64_t proposals, double temperature, double enough, double *energy,
               double *lowest, double *risen)
{
    int64_t taken = 0;
    double pairs = pair_energy(s), lines = line_energy(s);
    for (int64_t p = 0; p < proposals && pairs + lines > enough; p++) {
        const int64_t i = candidate(s, s->ones, s->number_of_ones);
        const int64_t j = candidate(s, s->zeros, s->number_of_zeros);
        int64_t a[3], b[3];
        place(s, s->ones[i], a);
        place(s, s->zeros[j], b);
        recount(s, a, 0);
        flip(s, a);
        const uint8_t *out = s->cells + inside(s, a), *in = s->cells + inside(s, b);
        double change = 0.0;
        for (int64_t r = 0; r < s->rows; r++) {
            int64_t d = 0;
            for (int64_t l = s->first[r]; l < s->first[r + 1]; l++) {
                const int64_t h = s->offset[l];
                d += in[h] + in[-h] - out[h] - out[-h];
            }
            s->change[r] = d;
            const double step = (double)d * s->share[r];
            change += s->row_weight[r] * step * (step + 2.0 * s->residual[r]);
        }
        recount(s, b, 1);
        flip(s, b);
        const double after = s->blocks ? line_energy(s) : 0.0;
        change += after - lines;
        if (change > 0.0) {
            risen[0] += change;
            risen[1] += 1.0;
        }
        if (temperature < 0.0 || change <= 0.0 || uniform(s) < exp(-change / temperature)) {
            const int64_t moved = s->ones[i];
            s->ones[i] = s->zeros[j];
            s->zeros[j] = moved;
            pairs = 0.0;
            for (int64_t r = 0; r < s->rows; r++) {
                if (s->change[r]) {
                    s->count[r] += s->change[r];
                    s->residual[r] += (double)s->change[r] * s->share[r];
                }
                pairs += s->row_weight[r] * s->residual[r] * s->residual[r];
            }
            lines = after;
            taken++;
            if (pairs + lines < *lowest)
                *lowest = pairs + lines;
        } else {
            recount(s, b, 0);
            flip(s, b);
            recount(s, a, 1);
            flip(s, a);
        }
    }
    *energy = pairs + lines;
    return taken;
}
