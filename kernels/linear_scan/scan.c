/* The element-wise linear recurrence and its gradient, one pass over memory each.
 *
 *   forward    h[t] = a[t] h[t-1] + x[t]
 *   backward   g[t] = dh[t] + conj(a[t+1]) g[t+1],   dx = g,   da[t] = g[t] conj(h[t-1])
 *
 * A call owns the channels [d0, d1) of the batch rows [b0, b1). Rows of channels are contiguous; batch and time
 * strides, in elements, come in pairs. The row written last is the state, and is still in the first-level cache.
 */
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__linux__)
#define CLONES __attribute__((target_clones("arch=skylake-avx512", "arch=haswell", "default")))
#else
#define CLONES
#endif

typedef struct {
    int64_t steps, b0, b1, d0, d1, reverse;
} Part;

#define REAL_SCAN(R, SUFFIX)                                                                                           \
    CLONES void forward_##SUFFIX(const R *a, const int64_t *sa, const R *x, const int64_t *sx, const R *h0, int64_t s0, \
                                 R *h, const int64_t *sh, const Part *p) {                                             \
        for (int64_t b = p->b0; b < p->b1; b++) {                                                                      \
            const R *past = h0 ? h0 + b * s0 : NULL;                                                                   \
            for (int64_t s = 0; s < p->steps; s++) {                                                                   \
                const int64_t t = p->reverse ? p->steps - 1 - s : s;                                                   \
                const R *at = a + b * sa[0] + t * sa[1], *xt = x + b * sx[0] + t * sx[1];                              \
                R *restrict ht = h + b * sh[0] + t * sh[1];                                                            \
                if (past)                                                                                              \
                    for (int64_t d = p->d0; d < p->d1; d++) ht[d] = at[d] * past[d] + xt[d];                           \
                else                                                                                                   \
                    for (int64_t d = p->d0; d < p->d1; d++) ht[d] = xt[d];                                             \
                past = ht;                                                                                             \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    CLONES void backward_##SUFFIX(const R *a, const int64_t *sa, const R *h, const int64_t *sh, const R *h0,           \
                                  int64_t s0, const R *dh, const int64_t *sdh, R *da, const int64_t *sda, R *dx,       \
                                  const int64_t *sg, const Part *p) {                                                  \
        const int64_t step = p->reverse ? -1 : 1;                                                                      \
        for (int64_t b = p->b0; b < p->b1; b++) {                                                                      \
            for (int64_t s = p->steps - 1; s >= 0; s--) {                                                              \
                const int64_t t = p->reverse ? p->steps - 1 - s : s;                                                   \
                const R *dt = dh + b * sdh[0] + t * sdh[1];                                                            \
                R *restrict gt = dx + b * sg[0] + t * sg[1], *restrict dat = da + b * sda[0] + t * sda[1];             \
                const R *past = s ? h + b * sh[0] + (t - step) * sh[1] : h0 ? h0 + b * s0 : NULL;                      \
                if (s < p->steps - 1) {                                                                                \
                    const R *next = dx + b * sg[0] + (t + step) * sg[1];                                               \
                    const R *an = a + b * sa[0] + (t + step) * sa[1];                                                  \
                    for (int64_t d = p->d0; d < p->d1; d++) gt[d] = dt[d] + an[d] * next[d];                           \
                } else                                                                                                 \
                    for (int64_t d = p->d0; d < p->d1; d++) gt[d] = dt[d];                                             \
                for (int64_t d = p->d0; d < p->d1; d++) dat[d] = past ? gt[d] * past[d] : 0;                           \
            }                                                                                                          \
        }                                                                                                              \
    }

/* Real and imaginary parts alternate; strides and channels count complex numbers. */
#define COMPLEX_SCAN(R, SUFFIX)                                                                                        \
    CLONES void forward_##SUFFIX(const R *a, const int64_t *sa, const R *x, const int64_t *sx, const R *h0, int64_t s0, \
                                 R *h, const int64_t *sh, const Part *p) {                                             \
        for (int64_t b = p->b0; b < p->b1; b++) {                                                                      \
            const R *past = h0 ? h0 + 2 * b * s0 : NULL;                                                               \
            for (int64_t s = 0; s < p->steps; s++) {                                                                   \
                const int64_t t = p->reverse ? p->steps - 1 - s : s;                                                   \
                const R *at = a + 2 * (b * sa[0] + t * sa[1]), *xt = x + 2 * (b * sx[0] + t * sx[1]);                  \
                R *restrict ht = h + 2 * (b * sh[0] + t * sh[1]);                                                      \
                for (int64_t d = 2 * p->d0; d < 2 * p->d1; d += 2) {                                                   \
                    const R re = past ? past[d] : 0, im = past ? past[d + 1] : 0;                                      \
                    ht[d] = at[d] * re - at[d + 1] * im + xt[d];                                                       \
                    ht[d + 1] = at[d] * im + at[d + 1] * re + xt[d + 1];                                               \
                }                                                                                                      \
                past = ht;                                                                                             \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    CLONES void backward_##SUFFIX(const R *a, const int64_t *sa, const R *h, const int64_t *sh, const R *h0,           \
                                  int64_t s0, const R *dh, const int64_t *sdh, R *da, const int64_t *sda, R *dx,       \
                                  const int64_t *sg, const Part *p) {                                                  \
        const int64_t step = p->reverse ? -1 : 1;                                                                      \
        for (int64_t b = p->b0; b < p->b1; b++) {                                                                      \
            for (int64_t s = p->steps - 1; s >= 0; s--) {                                                              \
                const int64_t t = p->reverse ? p->steps - 1 - s : s;                                                   \
                const R *dt = dh + 2 * (b * sdh[0] + t * sdh[1]);                                                      \
                R *restrict gt = dx + 2 * (b * sg[0] + t * sg[1]);                                                     \
                R *restrict dat = da + 2 * (b * sda[0] + t * sda[1]);                                                  \
                const R *past = s ? h + 2 * (b * sh[0] + (t - step) * sh[1]) : h0 ? h0 + 2 * b * s0 : NULL;            \
                const R *next = s < p->steps - 1 ? dx + 2 * (b * sg[0] + (t + step) * sg[1]) : NULL;                   \
                const R *an = next ? a + 2 * (b * sa[0] + (t + step) * sa[1]) : NULL;                                  \
                for (int64_t d = 2 * p->d0; d < 2 * p->d1; d += 2) {                                                   \
                    const R re = dt[d] + (next ? an[d] * next[d] + an[d + 1] * next[d + 1] : 0);                       \
                    const R im = dt[d + 1] + (next ? an[d] * next[d + 1] - an[d + 1] * next[d] : 0);                   \
                    const R pr = past ? past[d] : 0, pi = past ? past[d + 1] : 0;                                      \
                    gt[d] = re;                                                                                        \
                    gt[d + 1] = im;                                                                                    \
                    dat[d] = re * pr + im * pi;                                                                        \
                    dat[d + 1] = im * pr - re * pi;                                                                    \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
    }

REAL_SCAN(float, float32)
REAL_SCAN(double, float64)
COMPLEX_SCAN(float, complex64)
COMPLEX_SCAN(double, complex128)
