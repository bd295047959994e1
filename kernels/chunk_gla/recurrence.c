/* Gated linear attention, step after step, with the state in the first-level cache.
 *
 *   S[t] = diag(gate[t]) S[t-1] + k[t] v[t]^T,   o[t] = q[t] S[t]
 *
 * and its gradient, where dS[t] gathers what the later steps send back:
 *
 *   dS[t] += q[t] do[t]^T,   dq[t] = S[t] do[t],   dk[t] = dS[t] v[t],   dv[t] = dS[t]^T k[t],
 *   dgate[t] = rowsum(S[t-1] * dS[t]),   dS[t-1] = diag(gate[t]) dS[t]
 *
 * REAL is float or double. Tensors are [B, T, H, K or V] with the last axis contiguous and the strides of the others
 * given; states are contiguous [B, H, N + 1, K, V]: before each span of SPAN steps, and the last.
 */
#include "vectors.h"

/* One step of `width` vectors of columns of the state, which is [keys][width]. */
INLINE void step(Vector *s, const REAL *q, const REAL *k, const REAL *gate, const Vector *v, Vector *o, int64_t keys,
                 const int width) {
    Vector o0 = {0}, o1 = {0}, o2 = {0}, o3 = {0};
    for (int64_t i = 0; i < keys; i++, s += width) {
        o0 += q[i] * (s[0] = gate[i] * s[0] + k[i] * v[0]);
        if (width > 1) o1 += q[i] * (s[1] = gate[i] * s[1] + k[i] * v[1]);
        if (width > 2) o2 += q[i] * (s[2] = gate[i] * s[2] + k[i] * v[2]);
        if (width > 3) o3 += q[i] * (s[3] = gate[i] * s[3] + k[i] * v[3]);
    }
    o[0] = o0;
    if (width > 1) o[1] = o1;
    if (width > 2) o[2] = o2;
    if (width > 3) o[3] = o3;
}

/* Items [first, end) of B x H x blocks of columns, which do not meet. states[..., 0, :, :] holds the first state; the
 * others are written. */
int forward(const REAL *q, const int64_t *sq, const REAL *k, const int64_t *sk, const REAL *v, const int64_t *sv,
            const REAL *gate, const int64_t *sg, REAL *o, const int64_t *so, REAL *states, const Size *z, int64_t first,
            int64_t end) {
    const int64_t blocks = (z->values + BLOCK - 1) / BLOCK, spans = (z->steps + SPAN - 1) / SPAN;
    Vector *s = workspace(4 * z->keys);
    if (!s) return 1;
    for (int64_t item = first; item < end; item++) {
        const int64_t head = item / blocks, b = head / z->heads, h = head % z->heads, column = item % blocks * BLOCK;
        const int64_t columns = z->values - column < BLOCK ? z->values - column : BLOCK, width = vectors(columns);
        REAL *state = states + head * (spans + 1) * z->keys * z->values + column;
        Vector vt[4] = {0}, ot[4];
        memset(s, 0, z->keys * width * sizeof(Vector));
        copy_rows(s, width * LANES, state, z->values, z->keys, columns);
        for (int64_t t = 0; t < z->steps; t++) {
            const REAL *qt = q + at(sq, b, t, h), *kt = k + at(sk, b, t, h), *gt = gate + at(sg, b, t, h);
            memcpy(vt, v + at(sv, b, t, h) + column, columns * sizeof(REAL));
            switch (width) {
            case 1: step(s, qt, kt, gt, vt, ot, z->keys, 1); break;
            case 2: step(s, qt, kt, gt, vt, ot, z->keys, 2); break;
            case 3: step(s, qt, kt, gt, vt, ot, z->keys, 3); break;
            default: step(s, qt, kt, gt, vt, ot, z->keys, 4);
            }
            memcpy(o + at(so, b, t, h) + column, ot, columns * sizeof(REAL));
            if ((t + 1) % SPAN == 0 || t + 1 == z->steps) {
                state += z->keys * z->values;
                copy_rows(state, z->values, s, width * LANES, z->keys, columns);
            }
        }
    }
    free(s);
    return 0;
}

/* What a span needs on its way back, padded with zeros along the keys: fields[steps][row][FIELDS] side by side, since
 * arrays of one another's length would meet in the cache; history[steps + 1][row][GROUP]; ds[groups][row][GROUP];
 * and v, dout, dv [steps][columns], the values padded to whole groups. */
enum { Q, KEY, GATE, DQ, DK, DGATE, FIELDS };

typedef struct {
    int64_t row, steps;
    Vector *fields, *history, *ds;
    REAL *v, *dout, *dv;
    int64_t columns;
} Span;

/* The states after each step, for the GROUP columns from `column` on. */
INLINE void remember(Span *p, int64_t column) {
    const Vector *x = p->fields, *past = p->history;
    Vector *now = p->history + p->row * GROUP;
    for (int64_t t = 0; t < p->steps; t++) {
        const REAL *v = p->v + t * p->columns + column;
        for (int64_t i = 0; i < p->row; i++, x += FIELDS, past += GROUP, now += GROUP)
            for (int j = 0; j < GROUP; j++) now[j] = x[GATE] * past[j] + x[KEY] * v[j];
    }
}

INLINE void walk_back(Span *p, Vector *ds, int64_t column) {
    for (int64_t t = p->steps - 1; t >= 0; t--) {
        const Vector *past = p->history + t * p->row * GROUP, *now = past + p->row * GROUP;
        const REAL *v = p->v + t * p->columns + column, *dout = p->dout + t * p->columns + column;
        Vector *x = p->fields + t * p->row * FIELDS, *d = ds, dv[GROUP] = {{0}};
        for (int64_t i = 0; i < p->row; i++, x += FIELDS, past += GROUP, now += GROUP, d += GROUP) {
            Vector dq = x[DQ], dk = x[DK], dgate = x[DGATE];
            for (int j = 0; j < GROUP; j++) {
                const Vector dj = d[j] + x[Q] * dout[j];
                dq += dout[j] * now[j];
                dk += v[j] * dj;
                dgate += past[j] * dj;
                dv[j] += x[KEY] * dj;
                d[j] = x[GATE] * dj;
            }
            x[DQ] = dq, x[DK] = dk, x[DGATE] = dgate;
        }
        for (int j = 0; j < GROUP; j++) p->dv[t * p->columns + column + j] = total(dv + j);
    }
}

/* Items [first, end) of B x H. dstate holds the gradient of the last state and leaves as that of the first. */
int backward(const REAL *q, const int64_t *sq, const REAL *k, const int64_t *sk, const REAL *v, const int64_t *sv,
             const REAL *gate, const int64_t *sg, const REAL *dout, const int64_t *sdo, const REAL *states, REAL *dq,
             const int64_t *sdq, REAL *dk, const int64_t *sdk, REAL *dgate, const int64_t *sdg, REAL *dv,
             const int64_t *sdv, REAL *dstate, const Size *z, int64_t first, int64_t end) {
    const int64_t keys = z->keys, values = z->values, row = vectors(keys), spans = (z->steps + SPAN - 1) / SPAN;
    const int64_t groups = (values + GROUP - 1) / GROUP, group_row = GROUP * row, field_row = SPAN * row * FIELDS;
    const int64_t value_row = vectors(SPAN * groups * GROUP);
    Vector *space = workspace(field_row + (SPAN + 1 + groups) * group_row + 3 * value_row);
    if (!space) return 1;
    Vector *history = space + field_row, *ds = history + (SPAN + 1) * group_row, *v_space = ds + groups * group_row;
    Span p = {row, 0, space, history, ds, (REAL *)v_space, (REAL *)(v_space + value_row),
              (REAL *)(v_space + 2 * value_row), groups * GROUP};
    memset(v_space, 0, 3 * value_row * sizeof(Vector));
    for (int64_t item = first; item < end; item++) {
        const int64_t b = item / z->heads, h = item % z->heads;
        REAL *dlast = dstate + item * keys * values;
        memset(p.ds, 0, groups * group_row * sizeof(Vector));
        for (int64_t j = 0; j < groups; j++) {
            const int64_t column = j * GROUP, columns = values - column < GROUP ? values - column : GROUP;
            gather(p.ds + j * group_row, dlast, column, columns, keys, values);
        }
        for (int64_t n = spans - 1; n >= 0; n--) {
            const int64_t start = n * SPAN;
            const REAL *state = states + (item * (spans + 1) + n) * keys * values;
            p.steps = z->steps - start < SPAN ? z->steps - start : SPAN;
            memset(p.fields, 0, field_row * sizeof(Vector));
            load_field(p.fields + Q, FIELDS, row, q + at(sq, b, start, h), sq[1], p.steps, keys);
            load_field(p.fields + KEY, FIELDS, row, k + at(sk, b, start, h), sk[1], p.steps, keys);
            load_field(p.fields + GATE, FIELDS, row, gate + at(sg, b, start, h), sg[1], p.steps, keys);
            copy_rows(p.v, p.columns, v + at(sv, b, start, h), sv[1], p.steps, values);
            copy_rows(p.dout, p.columns, dout + at(sdo, b, start, h), sdo[1], p.steps, values);
            for (int64_t j = 0; j < groups; j++) {
                const int64_t column = j * GROUP, columns = values - column < GROUP ? values - column : GROUP;
                memset(p.history, 0, group_row * sizeof(Vector));
                gather(p.history, state, column, columns, keys, values);
                remember(&p, column);
                walk_back(&p, p.ds + j * group_row, column);
            }
            store_field(dq + at(sdq, b, start, h), sdq[1], p.fields + DQ, FIELDS, row, p.steps, keys);
            store_field(dk + at(sdk, b, start, h), sdk[1], p.fields + DK, FIELDS, row, p.steps, keys);
            copy_rows(dv + at(sdv, b, start, h), sdv[1], p.dv, p.columns, p.steps, values);
            store_field(dgate + at(sdg, b, start, h), sdg[1], p.fields + DGATE, FIELDS, row, p.steps, keys);
        }
        for (int64_t j = 0; j < groups; j++) {
            const int64_t column = j * GROUP, columns = values - column < GROUP ? values - column : GROUP;
            scatter(dlast, p.ds + j * group_row, column, columns, keys, values);
        }
    }
    free(space);
    return 0;
}
