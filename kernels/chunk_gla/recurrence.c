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

/* `steps` steps of `width` vectors of columns of the state, which is [keys][width]: read and written once for all of
 * them. Row n of q, k and gate is that of step n; so is column block n of v and o. */
INLINE void advance(Vector *s, const REAL *const *q, const REAL *const *k, const REAL *const *gate,
                    const Vector v[][4], Vector o[][4], int64_t keys, const int steps, const int width) {
    Vector sum[2][4] = {{{0}}};
    for (int64_t i = 0; i < keys; i++, s += width)
        for (int j = 0; j < width; j++) {
            Vector x = s[j];
            for (int n = 0; n < steps; n++) {
                x = gate[n][i] * x + k[n][i] * v[n][j];
                sum[n][j] += q[n][i] * x;
            }
            s[j] = x;
        }
    memcpy(o, sum, sizeof sum);
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
        Vector vt[2][4] = {{{0}}}, ot[2][4];
        memset(s, 0, z->keys * width * sizeof(Vector));
        copy_rows(s, width * LANES, state, z->values, z->keys, columns);
        for (int64_t t = 0, n; t < z->steps; t += n) {
            const REAL *qt[2], *kt[2], *gt[2];
            n = z->steps - t < 2 ? 1 : 2;
            for (int64_t m = 0; m < n; m++) {
                qt[m] = q + at(sq, b, t + m, h), kt[m] = k + at(sk, b, t + m, h), gt[m] = gate + at(sg, b, t + m, h);
                memcpy(vt[m], v + at(sv, b, t + m, h) + column, columns * sizeof(REAL));
            }
            switch (2 * width + n) {
            case 3: advance(s, qt, kt, gt, vt, ot, z->keys, 1, 1); break;
            case 4: advance(s, qt, kt, gt, vt, ot, z->keys, 2, 1); break;
            case 5: advance(s, qt, kt, gt, vt, ot, z->keys, 1, 2); break;
            case 6: advance(s, qt, kt, gt, vt, ot, z->keys, 2, 2); break;
            case 7: advance(s, qt, kt, gt, vt, ot, z->keys, 1, 3); break;
            case 8: advance(s, qt, kt, gt, vt, ot, z->keys, 2, 3); break;
            case 9: advance(s, qt, kt, gt, vt, ot, z->keys, 1, 4); break;
            default: advance(s, qt, kt, gt, vt, ot, z->keys, 2, 4);
            }
            for (int64_t m = 0; m < n; m++) memcpy(o + at(so, b, t + m, h) + column, ot[m], columns * sizeof(REAL));
            if ((t + n) % SPAN == 0 || t + n == z->steps) {
                state += z->keys * z->values;
                copy_rows(state, z->values, s, width * LANES, z->keys, columns);
            }
        }
    }
    free(s);
    return 0;
}

/* What a span needs on its way back, padded with zeros along the keys: fields[steps][row][FIELDS] side by side, since
 * arrays of one another's length would meet in the cache; starts[parts][groups][row][GROUP], the states before each
 * part of PART steps, whose fields and history[PART + 1][row][GROUP] fit the first-level cache; ds[groups][row][GROUP];
 * and v, dout, dv [steps][columns], the values padded to whole groups. */
enum { Q, KEY, GATE, DQ, DK, DGATE, FIELDS };
enum { PART = 8, PARTS = SPAN / PART };

typedef struct {
    int64_t row, steps;
    Vector *fields, *starts, *history, *ds;
    REAL *v, *dout, *dv;
    int64_t columns;
} Span;

/* The states of GROUP columns, from `column` on, after each of the steps from `start` on, `stride` vectors apart;
 * only the last of them where `stride` is 0. */
INLINE void remember(const Span *p, const Vector *state, Vector *after, int64_t stride, int64_t column, int64_t start,
                     int64_t steps) {
    for (int64_t i = 0; i < p->row; i++) {
        const Vector *x = p->fields + (start * p->row + i) * FIELDS;
        Vector s[GROUP], *out = after + i * GROUP;
        for (int j = 0; j < GROUP; j++) s[j] = state[i * GROUP + j];
        for (int64_t t = start; t < start + steps; t++, x += p->row * FIELDS, out += stride) {
            const REAL *v = p->v + t * p->columns + column;
            for (int j = 0; j < GROUP; j++) s[j] = x[GATE] * s[j] + x[KEY] * v[j];
            if (stride)
                for (int j = 0; j < GROUP; j++) out[j] = s[j];
        }
        if (!stride)
            for (int j = 0; j < GROUP; j++) out[j] = s[j];
    }
}

INLINE void walk_back(Span *p, Vector *ds, int64_t column, int64_t start, int64_t steps) {
    for (int64_t t = start + steps - 1; t >= start; t--) {
        const Vector *past = p->history + (t - start) * p->row * GROUP, *now = past + p->row * GROUP;
        Vector *x = p->fields + t * p->row * FIELDS, *d = ds, v[GROUP], dout[GROUP], dv[GROUP];
        for (int j = 0; j < GROUP; j++) {
            v[j] = (Vector){0} + p->v[t * p->columns + column + j];
            dout[j] = (Vector){0} + p->dout[t * p->columns + column + j];
            dv[j] = (Vector){0};
        }
        for (int64_t i = 0; i < p->row; i++, x += FIELDS, past += GROUP, now += GROUP, d += GROUP) {
            const Vector q = x[Q], key = x[KEY], gate = x[GATE];
            Vector dq = x[DQ], dk = x[DK], dgate = x[DGATE];
            for (int j = 0; j < GROUP; j++) {
                const Vector dj = d[j] + q * dout[j];
                dq += dout[j] * now[j];
                dk += v[j] * dj;
                dgate += past[j] * dj;
                dv[j] += key * dj;
                d[j] = gate * dj;
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
    const int64_t state_row = groups * group_row;
    Vector *space = workspace(field_row + (PART + 1) * group_row + (PARTS + 1) * state_row + 3 * value_row);
    if (!space) return 1;
    Vector *history = space + field_row, *starts = history + (PART + 1) * group_row, *ds = starts + PARTS * state_row;
    Vector *v_space = ds + state_row;
    Span p = {row, 0, space, starts, history, ds, (REAL *)v_space, (REAL *)(v_space + value_row),
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
            const int64_t parts = (p.steps + PART - 1) / PART;
            memset(p.fields, 0, field_row * sizeof(Vector));
            load_field(p.fields + Q, FIELDS, row, q + at(sq, b, start, h), sq[1], p.steps, keys);
            load_field(p.fields + KEY, FIELDS, row, k + at(sk, b, start, h), sk[1], p.steps, keys);
            load_field(p.fields + GATE, FIELDS, row, gate + at(sg, b, start, h), sg[1], p.steps, keys);
            copy_rows(p.v, p.columns, v + at(sv, b, start, h), sv[1], p.steps, values);
            copy_rows(p.dout, p.columns, dout + at(sdo, b, start, h), sdo[1], p.steps, values);
            for (int64_t j = 0; j < groups; j++) {
                const int64_t column = j * GROUP, columns = values - column < GROUP ? values - column : GROUP;
                Vector *first_state = p.starts + j * group_row;
                memset(first_state, 0, group_row * sizeof(Vector));
                gather(first_state, state, column, columns, keys, values);
                for (int64_t part = 1; part < parts; part++) {
                    const Vector *before = first_state + (part - 1) * state_row;
                    remember(&p, before, first_state + part * state_row, 0, column, (part - 1) * PART, PART);
                }
            }
            for (int64_t part = parts - 1; part >= 0; part--) {
                const int64_t from = part * PART, steps = p.steps - from < PART ? p.steps - from : PART;
                for (int64_t j = 0; j < groups; j++) {
                    const Vector *before = p.starts + part * state_row + j * group_row;
                    memcpy(p.history, before, group_row * sizeof(Vector));
                    remember(&p, before, p.history + group_row, group_row, j * GROUP, from, steps);
                    walk_back(&p, p.ds + j * group_row, j * GROUP, from, steps);
                }
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
