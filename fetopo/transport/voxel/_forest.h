/* A forest in an array: each entry points at another one of its tree, the root, its smallest, at itself. */
#include <stdint.h>

static inline int64_t find(int32_t *parent, int64_t at) {
    while (parent[at] != at) {
        parent[at] = parent[parent[at]];
        at = parent[at];
    }
    return at;
}

static inline void join(int32_t *parent, int64_t one, int64_t other) {
    one = find(parent, one);
    other = find(parent, other);
    if (one < other) parent[other] = (int32_t)one;
    if (other < one) parent[one] = (int32_t)other;
}
