/* The gated delta rule, step after step, with the state in the first-level cache.
 *
 *   S' = a[t] S[t-1],   e[t] = v[t] - S'^T k[t],   u[t] = b[t] e[t],   S[t] = S' + k[t] u[t]^T,   o[t] = q[t] S[t]
 *
 * (a the decay, b beta) and its gradient, where dS[t] gathers what the later steps send back:
 *
 *   dS[t] += q[t] do[t]^T,   dq[t] = S[t] do[t],   du[t] = dS[t]^T k[t],   db[t] = e[t] . du[t],   dv[t] = b[t] du[t],
 *   dS' = dS[t] - k[t] dv[t]^T,   dk[t] = dS[t] u[t] - S' dv[t],   da[t] = sum(dS' * S[t-1]),   dS[t-1] = a[t] dS'
 *
 * States are contiguous [B, H, N + 1, K, V]: before each span of SPAN steps, and the last.
 */
#include "vectors.h"

/* One step of `width` vectors of columns of the state, which is [keys][width]. */
INLINE void step(Vector *s, const REAL *q, const REAL *k, REAL a, REAL b, const Vector *v, Vector *o, int64_t keys,
                 const int width) {
    Vector r[4] = {{0}}, y[4] = {{0}}, u[4];
    for (int64_t i = 0; i < keys; i++)
        for (int j = 0; j < width; j++) r[j] += k[i] * s[i * width + j];
    for (int j = 0; j < width; j++) u[j] = b * (v[j] - a * r[j]);
    for (int64_t i = 0; i < keys; i++)
        for (int j = 0; j < width; j++) y[j] += q[i] * (s[i * width + j] = a * s[i * width + j] + k[i] * u[j]);
    for (int j = 0; j < width; j++) o[j] = y[j];
}

/* Items [first, end) of B x H x blocks of columns, which do not meet. states[..., 0, :, :] holds the first state; the
 * others are written. */
int forward(const REAL *q, const int64_t *sq, const REAL *k, const int64_t *sk, const REAL *v, const int64_t *sv,
            const REAL *beta, const int64_t *sb, const REAL *decay, const int64_t *sa, REAL *o, const int64_t *so,
            REAL *states, const Size *z, int64_t first, int64_t end) {
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
            const REAL *qt = q + at(sq, b, t, h), *kt = k + at(sk, b, t, h);
            const REAL decay_t = decay[at(sa, b, t, h)], beta_t = beta[at(sb, b, t, h)];
            memcpy(vt, v + at(sv, b, t, h) + column, columns * sizeof(REAL));
            switch (width) {
            case 1: step(s, qt, kt, decay_t, beta_t, vt, ot, z->keys, 1); break;
            case 2: step(s, qt, kt, decay_t, beta_t, vt, ot, z->keys, 2); break;
            case 3: step(s, qt, kt, decay_t, beta_t, vt, ot, z->keys, 3); break;
            default: step(s, qt, kt, decay_t, beta_t, vt, ot, z->keys, 4);
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

/* What a span needs on its way back, padded with zeros: fields[steps][row][FIELDS] along the keys,
 * history[steps + 1][row][GROUP], ds[groups][row][GROUP]; v, dout, dv [steps][columns]; error [steps][GROUP]. */
enum { Q, KEY, DQ, DK, FIELDS };

typedef struct {
    int64_t row, steps, columns;
    Vector *fields, *history, *ds;
    REAL *v, *dout, *dv;
    REAL error[SPAN][GROUP], beta[SPAN], decay[SPAN], dbeta[SPAN], ddecay[SPAN];
} Span;

/* The states after each step, and the errors that were written, for the GROUP columns from `column` on. */
INLINE void remember(Span *p, int64_t column) {
    for (int64_t t = 0; t < p->steps; t++) {
        const Vector *past = p->history + t * p->row * GROUP, *x = p->fields + t * p->row * FIELDS;
        Vector *now = p->history + (t + 1) * p->row * GROUP, r[GROUP] = {{0}};
        REAL u[GROUP];
        for (int64_t i = 0; i < p->row; i++)
            for (int j = 0; j < GROUP; j++) r[j] += x[i * FIELDS + KEY] * past[i * GROUP + j];
        for (int j = 0; j < GROUP; j++) {
            p->error[t][j] = p->v[t * p->columns + column + j] - p->decay[t] * total(r + j);
            u[j] = p->beta[t] * p->error[t][j];
        }
        for (int64_t i = 0; i < p->row; i++)
            for (int j = 0; j < GROUP; j++)
                now[i * GROUP + j] = p->decay[t] * past[i * GROUP + j] + x[i * FIELDS + KEY] * u[j];
    }
}

INLINE void walk_back(Span *p, Vector *ds, int64_t column) {
    for (int64_t t = p->steps - 1; t >= 0; t--) {
        const Vector *past = p->history + t * p->row * GROUP, *now = past + p->row * GROUP;
        const REAL *dout = p->dout + t * p->columns + column, a = p->decay[t], b = p->beta[t];
        Vector *x = p->fields + t * p->row * FIELDS, du[GROUP] = {{0}}, da = {0};
        REAL u[GROUP], dv[GROUP];
        for (int64_t i = 0; i < p->row; i++) {
            Vector dq = x[i * FIELDS + DQ];
            for (int j = 0; j < GROUP; j++) {
                dq += dout[j] * now[i * GROUP + j];
                ds[i * GROUP + j] += x[i * FIELDS + Q] * dout[j];
                du[j] += x[i * FIELDS + KEY] * ds[i * GROUP + j];
            }
            x[i * FIELDS + DQ] = dq;
        }
        for (int j = 0; j < GROUP; j++) {
            const REAL sum = total(du + j);
            u[j] = b * p->error[t][j];
            dv[j] = p->dv[t * p->columns + column + j] = b * sum;
            p->dbeta[t] += p->error[t][j] * sum;
        }
        for (int64_t i = 0; i < p->row; i++) {
            Vector dk = x[i * FIELDS + DK];
            for (int j = 0; j < GROUP; j++) {
                const Vector d = ds[i * GROUP + j] - x[i * FIELDS + KEY] * dv[j];
                dk += u[j] * ds[i * GROUP + j] - (a * dv[j]) * past[i * GROUP + j];
                da += d * past[i * GROUP + j];
                ds[i * GROUP + j] = a * d;
            }
            x[i * FIELDS + DK] = dk;
        }
        p->ddecay[t] += total(&da);
    }
}

/* Items [first, end) of B x H. dstate holds the gradient of the last state and leaves as that of the first. */
int backward(const REAL *q, const int64_t *sq, const REAL *k, const int64_t *sk, const REAL *v, const int64_t *sv,
             const REAL *beta, const int64_t *sb, const REAL *decay, const int64_t *sa, const REAL *dout,
             const int64_t *sdo, const REAL *states, REAL *dq, const int64_t *sdq, REAL *dk, const int64_t *sdk,
             REAL *dv, const int64_t *sdv, REAL *dbeta, const int64_t *sdb, REAL *ddecay, const int64_t *sda,
             REAL *dstate, const Size *z, int64_t first, int64_t end) {
    const int64_t keys = z->keys, values = z->values, row = vectors(keys), spans = (z->steps + SPAN - 1) / SPAN;
    const int64_t groups = (values + GROUP - 1) / GROUP, group_row = GROUP * row, field_row = SPAN * row * FIELDS;
    const int64_t value_row = vectors(SPAN * groups * GROUP);
    Vector *space = workspace(field_row + (SPAN + 1 + groups) * group_row + 3 * value_row);
    if (!space) return 1;
    Vector *history = space + field_row, *ds = history + (SPAN + 1) * group_row, *v_space = ds + groups * group_row;
    Span p = {.row = row, .columns = groups * GROUP, .fields = space, .history = history, .ds = ds,
              .v = (REAL *)v_space, .dout = (REAL *)(v_space + value_row), .dv = (REAL *)(v_space + 2 * value_row)};
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
            load_field(p.fields + Q, row * FIELDS, FIELDS, q + at(sq, b, start, h), sq[1], p.steps, keys);
            load_field(p.fields + KEY, row * FIELDS, FIELDS, k + at(sk, b, start, h), sk[1], p.steps, keys);
            copy_rows(p.v, p.columns, v + at(sv, b, start, h), sv[1], p.steps, values);
            copy_rows(p.dout, p.columns, dout + at(sdo, b, start, h), sdo[1], p.steps, values);
            copy_rows(p.beta, 1, beta + at(sb, b, start, h), sb[1], p.steps, 1);
            copy_rows(p.decay, 1, decay + at(sa, b, start, h), sa[1], p.steps, 1);
            memset(p.dbeta, 0, sizeof p.dbeta), memset(p.ddecay, 0, sizeof p.ddecay);
            for (int64_t j = 0; j < groups; j++) {
                const int64_t column = j * GROUP, columns = values - column < GROUP ? values - column : GROUP;
                memset(p.history, 0, group_row * sizeof(Vector));
                gather(p.history, state, column, columns, keys, values);
                remember(&p, column);
                walk_back(&p, p.ds + j * group_row, column);
            }
            store_field(dq + at(sdq, b, start, h), sdq[1], p.fields + DQ, row * FIELDS, FIELDS, p.steps, keys);
            store_field(dk + at(sdk, b, start, h), sdk[1], p.fields + DK, row * FIELDS, FIELDS, p.steps, keys);
            copy_rows(dv + at(sdv, b, start, h), sdv[1], p.dv, p.columns, p.steps, values);
            copy_rows(dbeta + at(sdb, b, start, h), sdb[1], p.dbeta, 1, p.steps, 1);
            copy_rows(ddecay + at(sda, b, start, h), sda[1], p.ddecay, 1, p.steps, 1);
        }
        for (int64_t j = 0; j < groups; j++) {
            const int64_t column = j * GROUP, columns = values - column < GROUP ? values - column : GROUP;
            scatter(dlast, p.ds + j * group_row, column, columns, keys, values);
        }
    }
    free(space);
    return 0;
}
