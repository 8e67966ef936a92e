/* The triad of STREAM (McCalpin): what the memory of this machine delivers. */

#include <stddef.h>

/* a = b + s c */
void triad(double *restrict a, const double *restrict b, const double *restrict c, double s, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        a[i] = b[i] + s * c[i];
}
