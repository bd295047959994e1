/* Gated linear attention, step after step, with the state in the first-level cache.
 *
 *   S[t] = diag(gate[t]) S[t-1] + k[t] v[t]^T,   o[t] = q[t] S[t]
 *
 * and its gradient, where dS[t] gathers what the later steps send back:
 *
 *   dS[t] += q[t] do[t]^T,   dq[t] = S[t] do[t],   dk[t] = dS[t] v[t],   dv[t] = dS[t]^T k[t],
 *   dlog[t] = gate[t] rowsum(S[t-1] * dS[t]),   dS[t-1] = diag(gate[t]) dS[t]
 *
 * dlog, the gradient of log gate, needs no product of states: dlog[t] = dlog[t+1] + q[t] dq[t] - k[t] dk[t]. The sum
 * starts at the end of a span of SPAN steps from rowsum(S * dS), and anew at every step with a gate below STRONG, where
 * its terms would cancel: there dlog is taken from the states.
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

/* What a span needs on its way back, padded along the keys and to whole groups of columns. One row of LANES keys and
 * one group is a recurrence of its own: its state stays in registers, and all else in the first-level cache.
 * fields[row][SPAN][FIELDS], side by side since arrays of one another's length would meet in the cache;
 * strong[row][SPAN], whether a gate is below STRONG, and if so past[SPAN][GROUP], the states before the step;
 * dv_rows[SPAN][GROUP], what the rows add to dv; state[row][GROUP] before the span, ds[groups][row][GROUP] after it,
 * end[row]; v, dout, dv [steps][columns]; values[SPAN][2][GROUP], v and dout of the group. */
enum { Q, KEY, GATE, DQ, DK, DGATE, FIELDS };
#define STRONG ((REAL)0x1p-7)

typedef struct {
    int64_t row, steps, columns;
    char *strong;
    Vector *fields, *past, *dv_rows, *state, *ds, *end;
    REAL *v, *dout, *dv;
    REAL values[SPAN][2][GROUP];
} Span;

/* Adds to a row's dq; s becomes the state after the span. */
INLINE void walk_forth(const Span *p, Vector *x, const char *strong, Vector *s) {
    for (int64_t t = 0; t < p->steps; t++, x += FIELDS) {
        const REAL *v = p->values[t][0], *dout = p->values[t][1];
        const Vector key = x[KEY], gate = x[GATE];
        Vector dq = x[DQ];
        if (strong[t])
            for (int j = 0; j < GROUP; j++) p->past[t * GROUP + j] = s[j];
        for (int j = 0; j < GROUP; j++) {
            s[j] = gate * s[j] + key * v[j];
            dq += dout[j] * s[j];
        }
        x[DQ] = dq;
    }
}

/* Adds to a row's dk and dgate, and to dv_rows; d, the gradient of the state after the span, becomes that of the
 * state before it. */
INLINE void walk_back(const Span *p, Vector *x, const char *strong, Vector *d) {
    for (int64_t t = p->steps - 1; t >= 0; t--) {
        const REAL *v = p->values[t][0], *dout = p->values[t][1];
        const Vector q = x[t * FIELDS + Q], key = x[t * FIELDS + KEY], gate = x[t * FIELDS + GATE];
        Vector *dv = p->dv_rows + t * GROUP, dk = x[t * FIELDS + DK];
        for (int j = 0; j < GROUP; j++) {
            d[j] += q * dout[j];
            dk += v[j] * d[j];
            dv[j] += key * d[j];
        }
        if (strong[t])
            for (int j = 0; j < GROUP; j++) x[t * FIELDS + DGATE] += p->past[t * GROUP + j] * d[j];
        for (int j = 0; j < GROUP; j++) d[j] *= gate;
        x[t * FIELDS + DK] = dk;
    }
}

/* The GROUP columns from `column` on; `end` gathers rowsum(S * dS) after the span. */
INLINE void walk(Span *p, Vector *ds, int64_t column) {
    copy_rows(p->values[0][0], 2 * GROUP, p->v + column, p->columns, p->steps, GROUP);
    copy_rows(p->values[0][1], 2 * GROUP, p->dout + column, p->columns, p->steps, GROUP);
    memset(p->dv_rows, 0, p->steps * GROUP * sizeof(Vector));
    for (int64_t i = 0; i < p->row; i++) {
        Vector s[GROUP], d[GROUP], *x = p->fields + i * SPAN * FIELDS;
        const char *strong = p->strong + i * SPAN;
        for (int j = 0; j < GROUP; j++) s[j] = p->state[i * GROUP + j], d[j] = ds[i * GROUP + j];
        walk_forth(p, x, strong, s);
        for (int j = 0; j < GROUP; j++) p->end[i] += s[j] * d[j];
        walk_back(p, x, strong, d);
        for (int j = 0; j < GROUP; j++) ds[i * GROUP + j] = d[j];
    }
    for (int64_t t = 0; t < p->steps; t++)
        for (int j = 0; j < GROUP; j++) p->dv[t * p->columns + column + j] = total(p->dv_rows + t * GROUP + j);
}

/* dlog in place of the gates. */
INLINE void sum_back(const Span *p) {
    for (int64_t i = 0; i < p->row; i++) {
        Vector dlog = p->end[i], *x = p->fields + (i * SPAN + p->steps) * FIELDS;
        for (int64_t t = p->steps - 1; t >= 0; t--) {
            x -= FIELDS;
            dlog += x[Q] * x[DQ] - x[KEY] * x[DK];
            if (p->strong[i * SPAN + t])
                for (int l = 0; l < LANES; l++)
                    if (x[GATE][l] < STRONG) dlog[l] = x[GATE][l] * x[DGATE][l];
            x[GATE] = dlog;
        }
    }
}

INLINE void load_gates(Span *p, const REAL *gate, int64_t gate_row, int64_t keys) {
    for (int64_t n = 0; n < p->row * SPAN; n++) p->fields[n * FIELDS + GATE] = (Vector){0} + 1;
    load_field(p->fields + GATE, FIELDS, SPAN * FIELDS, gate, gate_row, p->steps, keys);
    for (int64_t n = 0; n < p->row * SPAN; n++) {
        const __typeof__(*p->fields < STRONG) below = p->fields[n * FIELDS + GATE] < STRONG;
        p->strong[n] = 0;
        for (int l = 0; l < LANES; l++) p->strong[n] |= below[l] != 0;
    }
}

/* Items [first, end) of B x H. dstate holds the gradient of the last state and leaves as that of the first. */
int backward(const REAL *q, const int64_t *sq, const REAL *k, const int64_t *sk, const REAL *v, const int64_t *sv,
             const REAL *gate, const int64_t *sg, const REAL *dout, const int64_t *sdo, const REAL *states, REAL *dq,
             const int64_t *sdq, REAL *dk, const int64_t *sdk, REAL *dlog, const int64_t *sdg, REAL *dv,
             const int64_t *sdv, REAL *dstate, const Size *z, int64_t first, int64_t end) {
    const int64_t keys = z->keys, values = z->values, row = vectors(keys), spans = (z->steps + SPAN - 1) / SPAN;
    const int64_t groups = (values + GROUP - 1) / GROUP, group_row = GROUP * row, field_row = SPAN * row * FIELDS;
    const int64_t value_row = vectors(SPAN * groups * GROUP);
    const int64_t flags = vectors(row * SPAN);
    Vector *space = workspace(field_row + 2 * SPAN * GROUP + (1 + groups) * group_row + row + flags + 3 * value_row);
    if (!space) return 1;
    Vector *past = space + field_row, *dv_rows = past + SPAN * GROUP, *before = dv_rows + SPAN * GROUP;
    Vector *ds = before + group_row, *at_end = ds + groups * group_row, *strong = at_end + row;
    Vector *v_space = strong + flags;
    Span p = {.row = row, .columns = groups * GROUP, .strong = (char *)strong, .fields = space, .past = past,
              .dv_rows = dv_rows, .state = before, .ds = ds, .end = at_end, .v = (REAL *)v_space,
              .dout = (REAL *)(v_space + value_row), .dv = (REAL *)(v_space + 2 * value_row)};
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
            load_field(p.fields + Q, FIELDS, SPAN * FIELDS, q + at(sq, b, start, h), sq[1], p.steps, keys);
            load_field(p.fields + KEY, FIELDS, SPAN * FIELDS, k + at(sk, b, start, h), sk[1], p.steps, keys);
            load_gates(&p, gate + at(sg, b, start, h), sg[1], keys);
            memset(p.end, 0, row * sizeof(Vector));
            copy_rows(p.v, p.columns, v + at(sv, b, start, h), sv[1], p.steps, values);
            copy_rows(p.dout, p.columns, dout + at(sdo, b, start, h), sdo[1], p.steps, values);
            for (int64_t j = 0; j < groups; j++) {
                const int64_t column = j * GROUP, columns = values - column < GROUP ? values - column : GROUP;
                memset(p.state, 0, group_row * sizeof(Vector));
                gather(p.state, state, column, columns, keys, values);
                walk(&p, p.ds + j * group_row, column);
            }
            sum_back(&p);
            store_field(dq + at(sdq, b, start, h), sdq[1], p.fields + DQ, FIELDS, SPAN * FIELDS, p.steps, keys);
            store_field(dk + at(sdk, b, start, h), sdk[1], p.fields + DK, FIELDS, SPAN * FIELDS, p.steps, keys);
            copy_rows(dv + at(sdv, b, start, h), sdv[1], p.dv, p.columns, p.steps, values);
            store_field(dlog + at(sdg, b, start, h), sdg[1], p.fields + GATE, FIELDS, SPAN * FIELDS, p.steps, keys);
        }
        for (int64_t j = 0; j < groups; j++) {
            const int64_t column = j * GROUP, columns = values - column < GROUP ? values - column : GROUP;
            scatter(dlast, p.ds + j * group_row, column, columns, keys, values);
        }
    }
    free(space);
    return 0;
}
