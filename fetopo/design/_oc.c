/* Passes over the variables of the optimality criteria method. Compiled by oc.py. */
#include <math.h>
#include <stdint.h>

static double clip(double x, double low, double high)
{
    const double above = x > low ? x : low;
    return above < high ? above : high;
}

/* new = clip(base + c growth), with c = λ^−η: the growth of every variable, how far it may go, and
   sums: change of the constraint if all go as far down, and up, as they may; Σ |∂f|, Σ max(−∂f, 0);
   a norm of ∂f₀; Σ of the variables above their origin and of their growth, whose ratio is a first guess of c.
   `low` is where a variable goes that the objective has no use for, `high` where one goes that costs nothing. */
void growth(int64_t n, const double *x, const double *df0, const double *df, const double *lower,
            const double *upper, double move, double damping, double shift, double *factor, double *sums)
{
    /* The usual exponent is far cheaper than any. */
    const int root = damping == 0.5;
    for (int i = 0; i < 7; i++)
        sums[i] = 0;
    for (int64_t j = 0; j < n; j++) {
        const double span = upper[j] - lower[j], reach = move * span, z = x[j] - lower[j] + shift * span;
        const double low = fmax(lower[j], x[j] - reach), high = fmin(upper[j], x[j] + reach);
        const double gain = df0[j] < 0 ? -df0[j] : 0.0, cost = df[j] > 0 ? df[j] : 0.0;
        const double ratio = gain / cost, grown = z * (root ? sqrt(ratio) : pow(ratio, damping));
        factor[j] = gain > 0 ? (cost > 0 ? grown : HUGE_VAL) : 0.0;
        sums[0] += cost * (low - x[j]);
        sums[1] += cost * ((gain > 0 ? high : low) - x[j]);
        sums[2] += fabs(df[j]);
        sums[3] += cost - df[j];
        sums[4] += fabs(df0[j]);
        if (gain > 0 && cost > 0) {
            sums[5] += z;
            sums[6] += factor[j];
        }
    }
}

/* New variables for one c, and sums: change of the constraint and its slope in c. */
void update(int64_t n, const double *x, const double *df, const double *lower, const double *upper, double move,
            double shift, const double *factor, double c, double *sums, double *new)
{
    double change = 0, slope = 0;
    for (int64_t j = 0; j < n; j++) {
        const double span = upper[j] - lower[j], reach = move * span;
        const double low = fmax(lower[j], x[j] - reach), high = fmin(upper[j], x[j] + reach);
        const double cost = df[j] > 0 ? df[j] : 0.0, grown = c > 0 ? c * factor[j] : 0.0;
        const double wanted = lower[j] - shift * span + grown, y = clip(wanted, low, high);
        change += cost * (y - x[j]);
        slope += wanted == y && factor[j] < HUGE_VAL ? cost * factor[j] : 0.0;
        new[j] = y;
    }
    sums[0] = change;
    sums[1] = slope;
}
