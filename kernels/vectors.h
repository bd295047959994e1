/* What the recurrences with a matrix state share: vectors of REAL (float or double), and moving rows to and from them.
 * Tensors are [B, T, H, X] with the last axis contiguous and the strides of the others given.
 */
#ifndef VECTORS_H
#define VECTORS_H
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef REAL Vector __attribute__((vector_size(64)));

enum { LANES = sizeof(Vector) / sizeof(REAL), SPAN = 64, GROUP = 4, BLOCK = 4 * LANES };

typedef struct {
    int64_t heads, steps, keys, values;
} Size;

INLINE int64_t at(const int64_t *stride, int64_t b, int64_t t, int64_t h) {
    return b * stride[0] + t * stride[1] + h * stride[2];
}

INLINE int64_t vectors(int64_t n) { return (n + LANES - 1) / LANES; }

INLINE void *workspace(int64_t n) { return aligned_alloc(sizeof(Vector), (n ? n : 1) * sizeof(Vector)); }

INLINE void copy_rows(void *to, int64_t to_row, const void *from, int64_t from_row, int64_t rows, int64_t columns) {
    for (int64_t i = 0; i < rows; i++)
        memcpy((REAL *)to + i * to_row, (const REAL *)from + i * from_row, columns * sizeof(REAL));
}

INLINE REAL total(const Vector *x) {
    typedef REAL Half __attribute__((vector_size(32)));
    typedef REAL Quarter __attribute__((vector_size(16)));
    const Half half = ((const Half *)x)[0] + ((const Half *)x)[1];
    const Quarter quarter = ((const Quarter *)&half)[0] + ((const Quarter *)&half)[1];
    REAL sum = quarter[0] + quarter[1];
    for (int i = 2; i < LANES / 4; i++) sum += quarter[i];
    return sum;
}

/* Between a state [K][V], columns from `column` on, and [row][GROUP] vectors along K. */
INLINE void gather(Vector *to, const REAL *state, int64_t column, int64_t columns, int64_t keys, int64_t values) {
    for (int64_t i = 0; i < keys; i++)
        for (int64_t j = 0; j < columns; j++)
            ((REAL *)(to + i / LANES * GROUP + j))[i % LANES] = state[i * values + column + j];
}

INLINE void scatter(REAL *state, const Vector *from, int64_t column, int64_t columns, int64_t keys, int64_t values) {
    for (int64_t i = 0; i < keys; i++)
        for (int64_t j = 0; j < columns; j++)
            state[i * values + column + j] = ((const REAL *)(from + i / LANES * GROUP + j))[i % LANES];
}

/* Between rows of a tensor along its keys and vectors of them, `step` apart in time and `block` along the keys. */
INLINE void load_field(Vector *to, int64_t step, int64_t block, const REAL *x, int64_t x_row, int64_t steps,
                       int64_t keys) {
    for (int64_t t = 0; t < steps; t++)
        for (int64_t i = 0; i < keys; i += LANES)
            memcpy(to + t * step + i / LANES * block, x + t * x_row + i,
                   (keys - i < LANES ? keys - i : LANES) * sizeof(REAL));
}

INLINE void store_field(REAL *x, int64_t x_row, const Vector *from, int64_t step, int64_t block, int64_t steps,
                        int64_t keys) {
    for (int64_t t = 0; t < steps; t++)
        for (int64_t i = 0; i < keys; i += LANES)
            memcpy(x + t * x_row + i, from + t * step + i / LANES * block,
                   (keys - i < LANES ? keys - i : LANES) * sizeof(REAL));
}

#endif
