/* Clusters of a mask from its runs: stretches of voxels of the phase along the last axis. Runs that touch are
   united as they are found, so that no array of labels is needed. Compiled by _runs.py; 2D: shape[1] = 1. */
#include <stdint.h>
#include <string.h>

typedef struct {
    const uint8_t *mask;
    int64_t shape[3];
    /* Rows (lines along the last axis) that are done, and per row the first of its runs. */
    int64_t rows, *first;
    /* Of each run its first voxel, the one after its last, and a run it touches; later its cluster. */
    int64_t used, room;
    int32_t *begin, *end, *parent;
} runs;

#define ONES 0x0101010101010101u

static int64_t next_set(const uint8_t *row, int64_t i, int64_t n)
{
    uint64_t word;
    for (; i + 8 <= n; i += 8) {
        memcpy(&word, row + i, 8);
        if (word)
            break;
    }
    while (i < n && !row[i])
        i++;
    return i;
}

static int64_t next_clear(const uint8_t *row, int64_t i, int64_t n)
{
    uint64_t word;
    for (; i + 8 <= n; i += 8) {
        memcpy(&word, row + i, 8);
        if (word != ONES)
            break;
    }
    while (i < n && row[i])
        i++;
    return i;
}

static int32_t root(int32_t *parent, int32_t i)
{
    while (parent[i] != i) {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    return i;
}

/* The earlier run becomes the root: a parent never comes after its child. */
static void unite(int32_t *parent, int32_t i, int32_t j)
{
    i = root(parent, i);
    j = root(parent, j);
    if (i < j)
        parent[j] = i;
    else
        parent[i] = j;
}

/* Unite the runs of two rows that share a place. */
static void touch(runs *s, int64_t one, int64_t other)
{
    int64_t i = s->first[one], j = s->first[other];
    const int64_t last_i = s->first[one + 1], last_j = s->first[other + 1];
    while (i < last_i && j < last_j) {
        if (s->begin[i] < s->end[j] && s->begin[j] < s->end[i])
            unite(s->parent, (int32_t)i, (int32_t)j);
        if (s->end[i] < s->end[j])
            i++;
        else
            j++;
    }
}

/* Find and unite runs, row by row, until all rows are done (returns 1) or the room is used up (0). */
int find_runs(runs *s)
{
    const int64_t n = s->shape[2], total = s->shape[0] * s->shape[1];
    for (; s->rows < total; s->rows++) {
        const int64_t r = s->rows;
        const uint8_t *row = s->mask + r * n;
        if (s->used + (n + 1) / 2 > s->room)
            return 0;
        s->first[r] = s->used;
        for (int64_t i = next_set(row, 0, n); i < n; i = next_set(row, i, n)) {
            s->begin[s->used] = (int32_t)i;
            i = next_clear(row, i, n);
            s->end[s->used] = (int32_t)i;
            s->parent[s->used] = (int32_t)s->used;
            s->used++;
        }
        s->first[r + 1] = s->used;
        if (r % s->shape[1])
            touch(s, r - 1, r);
        if (r >= s->shape[1])
            touch(s, r - s->shape[1], r);
    }
    return 1;
}

/* Unite what touches across opposite faces. */
void wrap_runs(runs *s, int axis)
{
    const int64_t n0 = s->shape[0], n1 = s->shape[1];
    if (axis == 0)
        for (int64_t j = 0; j < n1; j++)
            touch(s, j, (n0 - 1) * n1 + j);
    else if (axis == 1)
        for (int64_t i = 0; i < n0; i++)
            touch(s, i * n1, i * n1 + n1 - 1);
    else
        for (int64_t r = 0; r < n0 * n1; r++) {
            const int64_t a = s->first[r], b = s->first[r + 1] - 1;
            if (a < b && s->begin[a] == 0 && s->end[b] == s->shape[2])
                unite(s->parent, (int32_t)a, (int32_t)b);
        }
}

/* Write clusters over parents, numbered in the order of their first voxels; returns how many. */
int64_t number_clusters(runs *s)
{
    int32_t count = 0;
    for (int64_t i = 0; i < s->used; i++)
        s->parent[i] = s->parent[i] == i ? count++ : s->parent[s->parent[i]];
    return count;
}

/* Voxels of each cluster, and per axis bit 1 where it is on the first plane, bit 2 where on the last. */
void measure(const runs *s, int64_t *size, uint8_t *touched)
{
    for (int64_t i = 0, r = 0; i < s->shape[0]; i++)
        for (int64_t j = 0; j < s->shape[1]; j++, r++) {
            const uint8_t at0 = (uint8_t)((i == 0) | (i == s->shape[0] - 1) << 1);
            const uint8_t at1 = (uint8_t)((j == 0) | (j == s->shape[1] - 1) << 1);
            for (int64_t k = s->first[r]; k < s->first[r + 1]; k++) {
                uint8_t *on = touched + 3 * (int64_t)s->parent[k];
                size[s->parent[k]] += s->end[k] - s->begin[k];
                on[0] |= at0;
                on[1] |= at1;
                on[2] |= (uint8_t)((s->begin[k] == 0) | (s->end[k] == s->shape[2]) << 1);
            }
        }
}

/* Cluster of each voxel of a plane normal to axis 0, where there is one. */
void plane(const runs *s, int64_t place, int64_t *clusters)
{
    for (int64_t j = 0, r = place * s->shape[1]; j < s->shape[1]; j++, r++)
        for (int64_t k = s->first[r]; k < s->first[r + 1]; k++)
            for (int32_t x = s->begin[k]; x < s->end[k]; x++)
                clusters[j * s->shape[2] + x] = s->parent[k];
}

/* Set the voxels of chosen clusters. */
void select_clusters(const runs *s, const uint8_t *chosen, uint8_t *mask)
{
    for (int64_t r = 0; r < s->shape[0] * s->shape[1]; r++)
        for (int64_t k = s->first[r]; k < s->first[r + 1]; k++)
            if (chosen[s->parent[k]])
                memset(mask + r * s->shape[2] + s->begin[k], 1, (size_t)(s->end[k] - s->begin[k]));
}
