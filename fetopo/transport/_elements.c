/* Assembly of elements that are all alike but for one factor each. */
#include <stdint.h>

/* Where the entries of each element's matrix are in a sparse one; columns of a row are sorted. */
void positions(int64_t cells, int32_t width, const int32_t *dofs, const int64_t *start, const int32_t *column,
               int32_t *position)
{
    for (int64_t c = 0; c < cells; c++)
        for (int32_t i = 0; i < width; i++)
            for (int32_t j = 0; j < width; j++) {
                int32_t row = dofs[c * width + i], wanted = dofs[c * width + j];
                int64_t low = start[row], high = start[row + 1] - 1;
                while (low < high) {
                    int64_t middle = (low + high) / 2;
                    if (column[middle] < wanted)
                        low = middle + 1;
                    else
                        high = middle;
                }
                position[(c * width + i) * width + j] = (int32_t)low;
            }
}

/* Adds factor times the matrix of one element at these places. */
void add_scaled(int64_t cells, int32_t entries, const int32_t *position, const double *element,
                const double *factor, double *values)
{
    for (int64_t c = 0; c < cells; c++)
        for (int32_t e = 0; e < entries; e++)
            values[position[c * entries + e]] += factor[c] * element[e];
}
