"""Where one mixer is another's special case, the two agree."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from kernels.testing import assert_close
from tests.workloads.mixers.support import WIDTH, built, copy, sequence
from workloads import TrialConfig, build_model
from workloads.mixers.liger import convert
from workloads.mixers.newton import matrix_scan, solve
from workloads.mixers.options.attention import Liger as LigerOptions

HALF = WIDTH // 2


def with_constant(x):
    """The last channel always 1, so that maps without bias can be given one."""
    return torch.cat([x[..., :-1], torch.ones_like(x[..., :1])], dim=-1)


def test_gla_with_constant_gates_is_retnet():
    retnet = built("retnet", num_heads=4, expand_v=1.0, rotary=False)
    gla = built("gla", num_heads=4, expand_k=1.0, expand_v=1.0, temperature=1.0)
    copy(gla.into.weight, torch.cat([retnet.q.weight, retnet.k.weight, retnet.v.weight]))
    for part in ("gate", "out", "norm"):
        copy(getattr(gla, part), getattr(retnet, part))
    gamma = 1 - 2.0 ** (-5 - torch.arange(4, dtype=torch.float64))
    copy(gla.decay[1].weight, torch.zeros_like(gla.decay[1].weight))
    copy(gla.decay[1].bias, torch.logit(gamma).repeat_interleave(WIDTH // 4))
    x = sequence(70)
    assert_close("y", retnet(x)[0], gla(x)[0], 1e-9)


def test_mamba2_with_constant_steps_has_retnets_state():
    mamba = built("mamba2", head_dim=8, state_size=4, conv_width=0)
    for weight in (mamba.into.weight[-mamba.num_heads :], mamba.skip):
        copy(weight, torch.zeros_like(weight))
    x = sequence(9)
    (state, _) = mamba(x)[1]
    _, mixed, _ = mamba.into(x).split(mamba.sizes, dim=-1)
    u, b, _ = F.silu(mixed).split([mamba.width, 4, 4], dim=-1)
    dt = F.softplus(mamba.dt_bias)
    decay = torch.exp(-dt * mamba.log_rate.exp())
    expected = sum(
        (decay ** (8 - t))[:, None, None]
        * torch.einsum("bn,bhp->bhnp", b[:, t], dt[:, None] * u[:, t].unflatten(-1, (-1, 8)))
        for t in range(9)
    )
    assert_close("state", expected, state, 1e-9)


def test_hgrn2_with_heads_of_one_channel_has_hgrns_state():
    # inputs beyond 40 are left as they are by SiLU, which HGRN has and HGRN2 lacks
    hgrn, hgrn2 = built("hgrn"), built("hgrn2", expand_ratio=1)
    x = with_constant(sequence(30))
    with torch.no_grad():
        hgrn.into.weight[:, -1] = 60.0
        query = hgrn2.into.weight[:WIDTH]
        copy(hgrn2.into.weight, torch.cat([query, hgrn.forget.weight, hgrn.into.weight]))
    h, state = hgrn(x)[1][0], hgrn2(x)[1][0]
    assert_close("state", h, state.flatten(1), 1e-9)


def test_hgrn_without_lower_bound_is_mingru_with_its_gate_turned_round():
    hgrn, mingru = built("hgrn"), built("mingru", candidate="linear")
    x = with_constant(sequence(30))
    with torch.no_grad():
        hgrn.into.weight[:, -1] = 60.0
        mingru.into.bias.zero_()
        copy(mingru.into.weight, torch.cat([-hgrn.forget.weight, hgrn.into.weight]))
    assert_close("state", hgrn(x)[1][0], mingru(x)[1][0], 1e-9)


def test_gated_deltanet_with_open_gates_is_deltanet():
    delta = built("deltanet", num_heads=2)
    gated = built("gated_deltanet", num_heads=2, head_dim=HALF, expand_v=1.0)
    for part in ("into", "conv", "beta", "norm", "out"):
        copy(getattr(gated, part), getattr(delta, part))
    with torch.no_grad():
        gated.log_rate.fill_(-1000.0)
        gated.gate.weight.zero_()
        gated.gate.weight[:, -1] = 1.2784645427610738  # SiLU of it is 1
    x = with_constant(sequence(70))
    assert_close("y", delta(x)[0], gated(x)[0], 1e-9)


def test_griffin_without_attention_is_hawk():
    griffin, hawk = built("griffin", pattern=("recurrent",)), built("rg_lru")
    copy(griffin.mixers[0], hawk)
    x = sequence(21)
    assert torch.equal(griffin(x)[0], hawk(x)[0])


def test_griffin_adds_its_blocks_one_after_the_other():
    griffin = built("griffin", window=3)
    x = sequence(11)
    total = griffin.mixers[0](x)[0]
    for norm, block in zip(griffin.norms, griffin.mixers[1:], strict=True):
        total = total + block(norm(x + total))[0]
    assert_close("y", total, griffin(x)[0], 1e-12)


@pytest.mark.parametrize("tied", [False, True])
def test_low_rank_gru_of_full_rank_is_the_paper_form_gru(tied):
    low = built("low_rank_gru", rank=WIDTH, tied=tied)
    full = built("gru", reset="before")
    copy(low.recurrent.down, torch.eye(WIDTH, dtype=torch.float64).expand_as(low.recurrent.down))
    keep, reset, candidate = low.recurrent.up
    w_keep, w_reset, w_candidate = low.into.weight.chunk(3)
    b_keep, b_reset, b_candidate = low.into.bias.chunk(3)
    copy(full.weight_hh, torch.cat([reset, keep, candidate]))
    copy(full.weight_ih, torch.cat([w_reset, w_keep, w_candidate]))
    copy(full.bias_ih, torch.cat([b_reset, b_keep, b_candidate]))
    full.bias_hh.data.zero_()
    x = sequence(15)
    assert_close("y", full(x, low.start[0].expand(2, -1))[0], low(x)[0], 1e-9)


def test_low_rank_lstm_of_full_rank_is_the_lstm():
    low, full = built("low_rank_lstm", rank=WIDTH), built("lstm")
    copy(low.recurrent.down, torch.eye(WIDTH, dtype=torch.float64).expand_as(low.recurrent.down))
    copy(full.weight_hh, low.recurrent.up.flatten(0, 1))
    copy(full.weight_ih, low.into.weight)
    copy(full.bias_ih, low.into.bias)
    full.bias_hh.data.zero_()
    x = sequence(15)
    start = tuple(row.expand(2, -1) for row in low.start)
    assert_close("y", full(x, start)[0], low(x)[0], 1e-9)


def test_low_rank_gru_with_diagonal_alone_forgets_unit_by_unit():
    low = built("low_rank_gru", rank=1, diagonal=True)
    low.recurrent.up.data.zero_()
    x = sequence(5)
    h = low.start.expand(2, -1)
    u, r, m = low.into(x).chunk(3, dim=-1)
    d_u, d_r, d_m = low.recurrent.diagonal
    for t in range(5):
        keep, reset = torch.sigmoid(u[:, t] + d_u * h), torch.sigmoid(r[:, t] + d_r * h)
        h = (1 - keep) * torch.tanh(m[:, t] + d_m * reset * h) + keep * h
    assert_close("h", h, low(x)[1], 1e-9)


def test_mgu_is_the_paper_form_gru_with_its_gates_tied():
    mgu, gru = built("mgu"), built("gru", reset="before")
    w_f, w_n = mgu.into.weight.chunk(2)
    b_f, b_n = mgu.into.bias.chunk(2)
    # the GRU's z keeps where the MGU's f writes
    copy(gru.weight_ih, torch.cat([w_f, -w_f, w_n]))
    copy(gru.weight_hh, torch.cat([mgu.forget, -mgu.forget, mgu.candidate]))
    copy(gru.bias_ih, torch.cat([b_f, -b_f, b_n]))
    gru.bias_hh.data.zero_()
    x = sequence(15)
    assert_close("y", gru(x)[0], mgu(x)[0], 1e-9)


def test_both_forms_of_the_gru_agree_where_the_reset_gate_is_open():
    after, before = built("gru"), built("gru", reset="before")
    with torch.no_grad():
        after.bias_ih[:WIDTH] = 1000.0
    copy(before, after)
    x = sequence(9)
    assert_close("y", after(x)[0], before(x)[0], 1e-9)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("jacobian", ["full", "diagonal"])
def test_newton_over_time_gives_the_sequential_cell_and_its_gradient(cell, jacobian):
    deer, sequential = built(f"deer_{cell}", jacobian=jacobian), built(cell)
    copy(sequential, deer)
    x = sequence(150).requires_grad_()
    first = [sequence(1)[:, 0].tanh().requires_grad_() for _ in range(2 if cell == "lstm" else 1)]
    state = tuple(first) if cell == "lstm" else first[0]
    expected, actual = sequential(x, state)[0], deer(x, state)[0]
    assert not deer.fell_back
    assert_close("y", expected, actual, 1e-8)
    weights = ("weight_hh", "weight_ih", "bias_ih", "bias_hh")
    for name, a, b in zip(
        ("x", *("state" for _ in first), *weights),
        torch.autograd.grad(expected.square().sum(), (x, *first, *(sequential.get_parameter(w) for w in weights))),
        torch.autograd.grad(actual.square().sum(), (x, *first, *(deer.get_parameter(w) for w in weights))),
        strict=True,
    ):
        assert_close(name, a, b, 1e-8)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_newton_falls_back_to_the_loop_where_it_does_not_converge(cell):
    deer, sequential = built(f"deer_{cell}", max_iterations=1), built(cell)
    copy(sequential, deer)
    x = sequence(40)
    assert_close("y", sequential(x)[0], deer(x)[0], 1e-12)
    assert deer.fell_back


def test_newton_needs_one_pass_where_the_recurrence_is_affine():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(3, 3, generator=generator, dtype=torch.float64) / 2
    x, h0 = sequence(20, 3), sequence(1, 3)[:, 0]
    jacobian = matrix.expand(2, 20, 3, 3)
    linearise = lambda past: (past @ matrix.T + x, jacobian)  # noqa: E731
    # the second pass only sees that the first was right
    solved = solve(linearise, h0, x, tolerance=1e-12, max_iterations=2)
    assert_close("h", matrix_scan(jacobian, x, h0), solved, 1e-12)


@pytest.mark.parametrize("steps", [1, 2, 9, 10])
@pytest.mark.parametrize("reverse", [False, True])
def test_matrix_scan_is_the_dense_linear_recurrence(steps, reverse):
    generator = torch.Generator().manual_seed(0)
    j = torch.randn(2, steps, 3, 3, generator=generator, dtype=torch.float64) / 2
    x = torch.randn(2, steps, 3, generator=generator, dtype=torch.float64)
    h = h0 = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    expected = torch.empty_like(x)
    for t in reversed(range(steps)) if reverse else range(steps):
        h = torch.einsum("bij,bj->bi", j[:, t], h) + x[:, t]
        expected[:, t] = h
    assert_close("h", expected, matrix_scan(j, x, h0, reverse=reverse), 1e-12)


def test_mingru_with_a_constant_gate_is_a_moving_average():
    mingru = built("mingru", candidate="linear")
    with torch.no_grad():
        mingru.into.weight[:WIDTH] = 0
        mingru.into.bias[:WIDTH] = math.log(0.25 / 0.75)
    x = sequence(12)
    n = mingru.into(x)[..., WIDTH:]
    weights = 0.25 * 0.75 ** torch.arange(11, -1, -1, dtype=torch.float64)
    assert_close("h", torch.einsum("btd,t->bd", n, weights), mingru(x)[0][:, -1], 1e-9)


def test_gateloop_without_phase_is_its_real_form():
    turning, real = built("gateloop"), built("gateloop", phase=False)
    real.load_state_dict(turning.state_dict(), strict=False)
    with torch.no_grad():
        turning.phase.weight.zero_()
        turning.phase.bias.zero_()
    x = sequence(20)
    assert_close("y", real(x)[0], turning(x)[0], 1e-9)


def test_gateloop_with_constant_gates_is_a_linear_recurrent_unit():
    mixer = built("gateloop")
    with torch.no_grad():
        mixer.magnitude.weight.zero_()
        mixer.phase.weight.zero_()
    x = sequence(20)
    q, k, v = mixer.into(x).chunk(3, dim=-1)
    pole = torch.polar(mixer.magnitude.bias.sigmoid(), mixer.phase.bias)
    powers = pole ** torch.arange(19, -1, -1, dtype=torch.float64)[:, None]
    h = (powers * (k * v)).sum(dim=1)
    assert_close("h", h, mixer(x)[1], 1e-9)
    assert_close("y", mixer.out(F.silu(mixer.gate(x[:, -1])) * q[:, -1] * h.real), mixer(x)[0][:, -1], 1e-9)


def test_lstm_and_gru_behind_shut_gates_keep_their_state():
    lstm, gru = built("lstm"), built("gru")
    with torch.no_grad():
        lstm.bias_ih[:WIDTH] = -1000.0
        lstm.bias_ih[WIDTH : 2 * WIDTH] = 1000.0
        gru.bias_ih[WIDTH : 2 * WIDTH] = 1000.0
    h0, c0 = sequence(1)[:, 0], sequence(2)[:, 0]
    assert torch.equal(lstm(sequence(9), (h0, c0))[1][1], c0)
    assert_close("h", h0, gru(sequence(9), h0)[1], 1e-12)


def test_rfa_gates_that_are_open_leave_plain_random_features():
    plain, sentences = built("rfa", gate="none"), built("rfa", gate="sentence", sentence_length=100)
    sentences.load_state_dict(plain.state_dict(), strict=False)
    x = sequence(25)
    assert_close("y", plain(x)[0], sentences(x)[0], 1e-9)


def test_local_attention_that_sees_everything_is_attention():
    attention, local = built("attention"), built("local_attention", window=30)
    copy(local, attention)
    x = sequence(30)
    assert_close("y", attention(x)[0], local(x)[0], 1e-9)


def test_liger_that_is_local_alone_is_the_attention_it_came_from():
    config = TrialConfig.parse(
        {"model": {"d_model": WIDTH, "mixer": {"name": "attention", "num_kv_heads": 2, "conv_width": 3}}}
    )
    torch.manual_seed(0)
    model = build_model(config).double()
    tokens = torch.randint(256, (2, 40), generator=torch.Generator().manual_seed(0))
    expected = model(tokens).logits
    convert(model, LigerOptions(local_share=1.0, window=40, rank=2))
    assert_close("logits", expected, model(tokens).logits, 1e-9)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained
    assert all(name.endswith((".up", ".down")) for name in trained)


def test_liger_half_is_the_mean_of_local_and_linear_attention():
    halves = {share: built("liger", window=4, local_share=share) for share in (0.0, 0.5, 1.0)}
    x = sequence(20)
    y = {share: mixer(x)[0] for share, mixer in halves.items()}
    assert_close("y", (y[0.0] + y[1.0]) / 2, y[0.5], 1e-9)
    assert not torch.allclose(y[0.0], y[1.0])


def test_grc_that_does_not_read_its_cache_is_attention():
    grc, attention = built("grc_attention", segment=32), built("attention")
    copy(attention.maps, grc.maps)
    grc.read.data.fill_(-1000.0)
    x = sequence(32)
    assert_close("y", attention(x)[0], grc(x)[0], 1e-9)


def test_grc_cache_stays_as_it_is_behind_a_shut_update_gate():
    grc = built("grc_attention", segment=4)
    with torch.no_grad():
        grc.update.gates.weight.zero_()
        grc.update.gates.bias.fill_(-1000.0)
    assert not grc(sequence(32))[1]["cache"].any()


def test_indrnn_with_identity_is_its_loop_and_its_bound_holds_after_a_step():
    scan, loop = built("indrnn", activation="identity"), built("indrnn", activation="relu")
    copy(loop, scan)
    with torch.no_grad():
        for mixer in (scan, loop):
            mixer.into.bias.fill_(50.0)  # far from the kink
            mixer.recurrence.uniform_(0, 1, generator=torch.Generator().manual_seed(0))
    x = sequence(20)
    assert_close("y", loop(x)[0], scan(x)[0], 1e-9)
    loop.recurrence.data.fill_(3.0)
    loop.after_step()
    assert loop.recurrence.max() == 1.0


def test_hgrn_bounds_rise_with_depth_and_are_shared():
    stack = [built("hgrn") for _ in range(4)]
    for layer, mixer in enumerate(stack):
        mixer.place(layer, stack)
    lowest = [mixer.forget_gate(torch.full((WIDTH,), -1000.0).double())[0].exp() for mixer in stack]
    for layer, low in enumerate(lowest):
        assert_close("bound", torch.full((WIDTH,), layer / 4).double(), low.detach(), 1e-12)
    assert stack[3].bounds is stack[1].bounds


def test_depth_shapes_rwkv_and_slstm():
    for name, parameter in (("rwkv4", "decay"), ("slstm", "bias")):
        stack = [built(name) for _ in range(3)]
        for layer, mixer in enumerate(stack):
            mixer.place(layer, stack)
        first, last = stack[0].get_parameter(parameter), stack[2].get_parameter(parameter)
        assert not torch.equal(first, last)


def test_lower_bound_lengthens_hgrns_memory_layer_by_layer():
    memory = {}
    for bounded in (True, False):
        torch.manual_seed(0)
        mixer = {"name": "hgrn", "lower_bound": bounded}
        model = build_model({"model": {"d_model": WIDTH, "n_layers": 4, "mixer": mixer}})
        for block in model.blocks:
            block.mixer.record_gates = True
        model(torch.randint(256, (2, 20), generator=torch.Generator().manual_seed(0)))
        memory[bounded] = [float(block.mixer.last_gate["memory_steps"]) for block in model.blocks]
    # gates start near σ(0) = ½: without bounds all layers keep 1 / ln 2 steps; with them f = γ + (1 − γ)/2
    for layer, steps in enumerate(memory[True]):
        assert steps == pytest.approx(-1 / math.log((1 + layer / 4) / 2), rel=0.1)
    assert memory[False] == pytest.approx([1 / math.log(2)] * 4, rel=0.1)


@pytest.mark.parametrize("name", ["attention", "gla", "deltanet", "retnet", "mamba2", "rg_lru", "slstm"])
def test_heads_that_do_not_divide_the_width_are_refused_with_those_that_do(name):
    option = {"mamba2": "head_dim", "rg_lru": "num_blocks"}.get(name, "num_heads")
    with pytest.raises(ValueError, match=r"must divide the width \d+, got 7; \[1, 2,"):
        built(name, **{option: 7})
