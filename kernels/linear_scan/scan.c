/* The element-wise linear recurrence and its gradient, one pass over memory each.
 *
 *   forward    h[t] = a[t] h[t-1] + x[t]
 *   backward   g[t] = dh[t] + conj(a[t+1]) g[t+1],   dx = g,   da[t] = g[t] conj(h[t-1])
 *
 * REAL is float or double; in the complex forms real and imaginary parts alternate, and strides and channels count
 * pairs. A call owns the channels [d0, d1) of the batch rows [b0, b1). Rows of channels are contiguous; the strides of
 * batch and time are given. The row written last is the state, and is still in the first-level cache.
 */
#include <stddef.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline))

typedef struct {
    int64_t steps, reverse, b0, b1, d0, d1;
} Part;

INLINE int64_t at(const int64_t *stride, int64_t b, int64_t t) { return b * stride[0] + t * stride[1]; }

/* The s-th step in the order of the recurrence. */
INLINE int64_t when(const Part *p, int64_t s) { return p->reverse ? p->steps - 1 - s : s; }

int forward_real(const REAL *a, const int64_t *sa, const REAL *x, const int64_t *sx, const REAL *h0,
                 const int64_t *s0, REAL *h, const int64_t *sh, const Part *p) {
    for (int64_t b = p->b0; b < p->b1; b++) {
        const REAL *past = h0 ? h0 + b * s0[0] : NULL;
        for (int64_t s = 0; s < p->steps; s++) {
            const int64_t t = when(p, s);
            const REAL *now_a = a + at(sa, b, t), *xt = x + at(sx, b, t);
            REAL *restrict ht = h + at(sh, b, t);
            if (past)
                for (int64_t d = p->d0; d < p->d1; d++) ht[d] = now_a[d] * past[d] + xt[d];
            else
                for (int64_t d = p->d0; d < p->d1; d++) ht[d] = xt[d];
            past = ht;
        }
    }
    return 0;
}

int backward_real(const REAL *a, const int64_t *sa, const REAL *h, const int64_t *sh, const REAL *h0,
                  const int64_t *s0, const REAL *dh, const int64_t *sdh, REAL *da, const int64_t *sda, REAL *dx,
                  const int64_t *sdx, const Part *p) {
    for (int64_t b = p->b0; b < p->b1; b++) {
        for (int64_t s = p->steps - 1; s >= 0; s--) {
            const int64_t t = when(p, s), last = s == p->steps - 1;
            const REAL *dht = dh + at(sdh, b, t);
            const REAL *past = s ? h + at(sh, b, when(p, s - 1)) : h0 ? h0 + b * s0[0] : NULL;
            REAL *restrict g = dx + at(sdx, b, t), *restrict dat = da + at(sda, b, t);
            if (last)
                for (int64_t d = p->d0; d < p->d1; d++) g[d] = dht[d];
            else {
                const REAL *next = dx + at(sdx, b, when(p, s + 1)), *a_next = a + at(sa, b, when(p, s + 1));
                for (int64_t d = p->d0; d < p->d1; d++) g[d] = dht[d] + a_next[d] * next[d];
            }
            for (int64_t d = p->d0; d < p->d1; d++) dat[d] = past ? g[d] * past[d] : 0;
        }
    }
    return 0;
}

int forward_complex(const REAL *a, const int64_t *sa, const REAL *x, const int64_t *sx, const REAL *h0,
                    const int64_t *s0, REAL *h, const int64_t *sh, const Part *p) {
    for (int64_t b = p->b0; b < p->b1; b++) {
        const REAL *past = h0 ? h0 + 2 * b * s0[0] : NULL;
        for (int64_t s = 0; s < p->steps; s++) {
            const int64_t t = when(p, s);
            const REAL *now_a = a + 2 * at(sa, b, t), *xt = x + 2 * at(sx, b, t);
            REAL *restrict ht = h + 2 * at(sh, b, t);
            for (int64_t d = 2 * p->d0; d < 2 * p->d1; d += 2) {
                const REAL re = past ? past[d] : 0, im = past ? past[d + 1] : 0;
                ht[d] = now_a[d] * re - now_a[d + 1] * im + xt[d];
                ht[d + 1] = now_a[d] * im + now_a[d + 1] * re + xt[d + 1];
            }
            past = ht;
        }
    }
    return 0;
}

int backward_complex(const REAL *a, const int64_t *sa, const REAL *h, const int64_t *sh, const REAL *h0,
                     const int64_t *s0, const REAL *dh, const int64_t *sdh, REAL *da, const int64_t *sda, REAL *dx,
                     const int64_t *sdx, const Part *p) {
    for (int64_t b = p->b0; b < p->b1; b++) {
        for (int64_t s = p->steps - 1; s >= 0; s--) {
            const int64_t t = when(p, s), last = s == p->steps - 1;
            const REAL *dht = dh + 2 * at(sdh, b, t);
            const REAL *past = s ? h + 2 * at(sh, b, when(p, s - 1)) : h0 ? h0 + 2 * b * s0[0] : NULL;
            const REAL *next = last ? NULL : dx + 2 * at(sdx, b, when(p, s + 1));
            const REAL *a_next = last ? NULL : a + 2 * at(sa, b, when(p, s + 1));
            REAL *restrict g = dx + 2 * at(sdx, b, t), *restrict dat = da + 2 * at(sda, b, t);
            for (int64_t d = 2 * p->d0; d < 2 * p->d1; d += 2) {
                const REAL re = dht[d] + (next ? a_next[d] * next[d] + a_next[d + 1] * next[d + 1] : 0);
                const REAL im = dht[d + 1] + (next ? a_next[d] * next[d + 1] - a_next[d + 1] * next[d] : 0);
                const REAL past_re = past ? past[d] : 0, past_im = past ? past[d + 1] : 0;
                g[d] = re;
                g[d + 1] = im;
                dat[d] = re * past_re + im * past_im;
                dat[d + 1] = im * past_re - re * past_im;
            }
        }
    }
    return 0;
}
