"""Mixers against their formulas written out: direct sums, plain loops, known solutions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kernels import chunk_gla, gated_delta_rule, linear_scan
from kernels.testing import assert_close
from tests.workloads.mixers.support import WIDTH, built, copy, sequence
from workloads import build_mixer
from workloads.mixers.attention import banded
from workloads.mixers.gsa import slot_logits
from workloads.mixers.memory import HippoLegS, legs_matrices, legt_hold
from workloads.mixers.parts import rotate
from workloads.mixers.rfa import LEAST_NORMALISER
from workloads.mixers.rwkv4 import integrate_and_fire

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture
def no_gradients():
    with torch.no_grad():
        yield


def heads(x: Tensor, count: int) -> Tensor:
    return x.unflatten(-1, (count, -1))


def test_attention_is_the_softmax_over_earlier_steps():
    mixer = built("attention", num_heads=2)
    x = sequence(9)
    q, k, v = mixer.maps(x)
    q, k = rotate(q, torch.arange(9)), rotate(k, torch.arange(9))
    scores = torch.einsum("bihk,bjhk->bhij", q, k) / math.sqrt(WIDTH // 2)
    weight = scores.masked_fill(torch.ones(9, 9).triu(1).bool(), -math.inf).softmax(dim=-1)
    expected = mixer.maps.out(torch.einsum("bhij,bjhk->bihk", weight, v).flatten(2))
    assert_close("y", expected, mixer(x)[0], 1e-9)


def test_rotary_scores_depend_on_distance_alone():
    q, k = sequence(1, 8)[:, :, None], sequence(2, 8)[:, :1, None]

    def score(i: int, j: int) -> Tensor:
        return (rotate(q, torch.tensor([i])) * rotate(k, torch.tensor([j]))).sum()

    assert_close("score", score(7, 3), score(1007, 1003), 1e-9)
    assert not torch.allclose(score(7, 3), score(7, 4))


@pytest.mark.parametrize(("steps", "keys", "window"), [(1, 1, 4), (1, 9, 4), (10, 12, 4), (12, 12, 4), (5, 5, 1)])
def test_banded_attention_is_masked_attention(steps, keys, window):
    q, k, v = sequence(steps, 8)[:, :, None], sequence(keys, 8)[:, :, None], sequence(keys + 1, 8)[:, 1:, None]
    i, j = torch.arange(keys - steps, keys)[:, None], torch.arange(keys)
    mask = (j <= i) & (j > i - window)
    expected = F.scaled_dot_product_attention(*(y.transpose(1, 2) for y in (q, k, v)), attn_mask=mask)
    assert_close("o", expected.transpose(1, 2).flatten(2), banded(q, k, v, window), 1e-12)


def test_retention_is_the_decayed_product_of_scores():
    mixer = built("retnet", num_heads=2)
    x = sequence(11)
    q, k, v = (heads(layer(x), 2) for layer in (mixer.q, mixer.k, mixer.v))
    q, k = rotate(q, torch.arange(11)), rotate(k, torch.arange(11))
    gamma = 1 - 2.0 ** (-5 - torch.arange(2, dtype=torch.float64))
    lag = torch.arange(11)[:, None] - torch.arange(11)
    decay = (gamma[:, None, None] ** lag) * (lag >= 0)
    o = torch.einsum("bihk,bjhk,hij,bjhv->bihv", q, k, decay, v) / math.sqrt(WIDTH // 2)
    expected = mixer.out(mixer.norm(o).flatten(2) * F.silu(mixer.gate(x)))
    assert_close("y", expected, mixer(x)[0], 1e-9)


def test_gateloop_is_its_surrogate_attention():
    mixer = built("gateloop")
    x = sequence(12)
    q, k, v = mixer.into(x).chunk(3, dim=-1)
    log_a = torch.complex(F.logsigmoid(mixer.magnitude(x)), mixer.phase(x)).cumsum(dim=1)
    weight = (log_a[:, :, None] - log_a[:, None]).exp().real
    weight = weight * torch.ones(12, 12).tril()[..., None]
    read = q * torch.einsum("btsd,bsd->btd", weight, k * v)
    assert_close("y", mixer.out(F.silu(mixer.gate(x)) * read), mixer(x)[0], 1e-9)


def test_complex_hgrn_rotates_its_state():
    mixer = built("hgrn", form="complex")
    x = sequence(8)
    f, c = mixer.forget(x).sigmoid(), F.silu(mixer.into(x))
    c = torch.complex(*c.chunk(2, dim=-1))
    h = torch.zeros(2, WIDTH, dtype=torch.complex128)
    for t in range(8):
        h = f[:, t] * torch.exp(1j * mixer.theta) * h + (1 - f[:, t]) * c[:, t]
    y, (state, _) = mixer(x)
    assert_close("h", h, state, 1e-9)
    both = torch.cat([h.real, h.imag], dim=-1)
    assert_close("y", mixer.out(mixer.norm(mixer.gate(x[:, -1]).sigmoid() * both)), y[:, -1], 1e-9)


def test_rg_lru_with_shut_recurrence_gate_keeps_its_state_and_takes_nothing():
    unit = built("rg_lru").unit
    unit.recurrence_gate.weight.zero_()
    unit.recurrence_gate.bias.fill_(-1000.0)
    h0 = sequence(1)[:, 0]
    log_a, h = unit(sequence(5), h0)
    assert not log_a.any()
    assert torch.equal(h, h0[:, None].expand_as(h))


def test_rg_lru_whose_gate_reads_nothing_decays_at_fixed_rates():
    unit = built("rg_lru").unit
    unit.recurrence_gate.weight.zero_()
    unit.recurrence_gate.bias.zero_()
    u = sequence(6)
    decay = torch.exp(-4 * F.softplus(unit.decay))
    expected = linear_scan(
        decay.expand_as(u), (1 - decay**2).sqrt() * unit.input_gate(u).sigmoid() * u, sequence(1)[:, 0]
    )
    assert_close("h", expected, unit(u, sequence(1)[:, 0])[1], 1e-9)


def test_rg_lru_starts_inside_its_decay_range():
    decay = torch.exp(-F.softplus(build_mixer("rg_lru", 64).unit.decay))
    assert 0.9 <= decay.min() <= decay.max() <= 0.999


def test_slstm_stabiliser_changes_nothing():
    mixer = built("slstm", num_heads=2, recurrence="uniform", conv_width=0)
    x = sequence(9)
    h = c = n = torch.zeros(2, WIDTH, dtype=torch.float64)
    for t in range(9):
        per_head = heads(x[:, t], 2), heads(h, 2)
        i, f, z, o = (
            (torch.einsum("bhi,hoi->bho", per_head[0], w) + torch.einsum("bhi,hoi->bho", per_head[1], r)).flatten(1) + b
            for w, r, b in zip(mixer.into, mixer.recurrent, mixer.bias, strict=True)
        )
        c = f.sigmoid() * c + i.exp() * z.tanh()
        n = f.sigmoid() * n + i.exp()
        h = o.sigmoid() * c / n
    assert_close("h", h, mixer(x)[1]["h"], 1e-9)


def test_slstm_without_recurrence_is_two_linear_scans():
    mixer = built("slstm", num_heads=2, conv_width=0)
    mixer.recurrent.zero_()
    x = sequence(9)
    i, f, z, o = (
        torch.einsum("bthi,hoi->btho", heads(x, 2), w).flatten(2) + b
        for w, b in zip(mixer.into, mixer.bias, strict=True)
    )
    c, n = (linear_scan(f.sigmoid(), written) for written in (i.exp() * z.tanh(), i.exp()))
    assert_close("h", (o.sigmoid() * c / n)[:, -1], mixer(x)[1]["h"], 1e-9)


def wkv(mixer, x: Tensor) -> Tensor:
    """RWKV-4's weighted mean as a direct sum."""
    past = F.pad(x, (0, 0, 1, -1))
    key, value = (mu * x + (1 - mu) * past for mu in mixer.mix[:2])
    k, v, w = mixer.key(key), mixer.value(value), -mixer.decay.exp()
    means = []
    for t in range(x.shape[1]):
        age = torch.arange(t - 1, -1, -1, dtype=torch.float64)[:, None]
        weight = torch.cat([(age * w + k[:, :t]).exp(), (mixer.bonus + k[:, t : t + 1]).exp()], dim=1)
        means.append((weight * v[:, : t + 1]).sum(dim=1) / weight.sum(dim=1))
    return torch.stack(means, dim=1)


def test_rwkv4_is_the_direct_sum():
    mixer = built("rwkv4")
    x = sequence(14)
    mu = mixer.mix[2]
    r = mixer.receptance(mu * x + (1 - mu) * F.pad(x, (0, 0, 1, -1)))
    assert_close("y", mixer.out(r.sigmoid() * wkv(mixer, x)), mixer(x)[0], 1e-9)


def test_rwkv4_with_infinite_decay_sees_this_step_and_the_one_before():
    mixer = built("rwkv4")
    mixer.decay.fill_(10.0)
    x = sequence(9)
    changed = x.clone()
    changed[:, 5] += 1  # shifted into steps 5 and 6, remembered by 6 and 7
    moved = (mixer(x)[0] - mixer(changed)[0]).abs().amax(dim=(0, 2)) > 1e-12
    assert moved.tolist() == [False] * 5 + [True] * 3 + [False]


def test_rwkv4_survives_keys_that_overflow_the_exponential():
    mixer = built("rwkv4", dtype=torch.float32)
    x = 1e4 * sequence(300, dtype=torch.float32)
    assert mixer(x)[0].isfinite().all()


def test_rwkv4_with_constant_keys_is_a_moving_average_of_the_values():
    mixer = built("rwkv4")
    mixer.key.weight.zero_()
    mixer.bonus.zero_()
    x = sequence(12)
    past = F.pad(x, (0, 0, 1, -1))
    v = mixer.value(mixer.mix[1] * x + (1 - mixer.mix[1]) * past)
    # this step at weight 1, as the one before it; older ones decay
    age = (torch.arange(10, -2, -1).clamp(min=0) * -mixer.decay.exp()[:, None]).T.exp()
    mean = (age * v).sum(dim=1) / age.sum(dim=0)
    assert_close("mean", mean, wkv(mixer, x)[:, -1], 1e-9)
    r = mixer.receptance(mixer.mix[2] * x + (1 - mixer.mix[2]) * past)[:, -1]
    assert_close("y", mixer.out(r.sigmoid() * mean), mixer(x)[0][:, -1], 1e-9)


def test_spiking_rwkv4_sends_spikes_of_leaky_neurons():
    quiet, spiking = built("rwkv4"), built("rwkv4", spiking=True)
    copy(quiet, spiking)
    x = sequence(40)
    current, spikes = quiet(x)[0], spiking(x)[0]
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    potential = torch.zeros(2, WIDTH, dtype=torch.float64)
    for t in range(40):
        potential = potential + (current[:, t] - potential) / 2
        fired = potential >= 1
        assert torch.equal(fired.double(), spikes[:, t])
        potential = torch.where(fired, 0.0, potential)


def test_spikes_have_the_arctan_gradient_and_resets_none():
    with torch.enable_grad():
        current = torch.tensor([[[1.0], [1.5]]], dtype=torch.float64, requires_grad=True)
        spikes, _ = integrate_and_fire(current, None)
        (gradient,) = torch.autograd.grad(spikes.sum(), current)
    # potentials ½ and ½·½ + ¾ = 1: the second is at its threshold
    slope = [1 / (1 + (math.pi * (v - 1)) ** 2) for v in (0.5, 1.0)]
    assert spikes.flatten().tolist() == [0.0, 1.0]
    assert_close("gradient", torch.tensor([slope[0] / 2 + slope[1] / 4, slope[1] / 2]), gradient.flatten(), 1e-6)


def test_legs_memory_keeps_a_constant_and_rebuilds_a_curve():
    mixer = built("hippo_legs", memory_size=16)
    assert isinstance(mixer, HippoLegS)
    t = torch.linspace(0, 1, 400, dtype=torch.float64)
    signal = torch.stack([torch.full_like(t, 0.7), torch.sin(6 * t) + 0.3 * t])
    state = mixer.start(torch.zeros(2, 1, WIDTH, dtype=torch.float64))
    for u in signal.T:
        state |= mixer.advance(state, u[:, None])
    memory = state["memory"][:, 0]
    assert_close("constant", torch.tensor([0.7] + [0.0] * 15).double(), memory[0], 1e-6)
    # Legendre polynomials on [−1, 1] by their recurrence, scaled to norm 1 on [0, 1]
    s = 2 * t - 1
    basis = [torch.ones_like(s), s]
    for n in range(1, 15):
        basis.append(((2 * n + 1) * s * basis[n] - n * basis[n - 1]) / (n + 1))
    rebuilt = sum(c * math.sqrt(2 * n + 1) * p for n, (c, p) in enumerate(zip(memory[1], basis, strict=True)))
    assert (rebuilt - signal[1]).square().mean().sqrt() < 5e-3


def test_legs_poles_are_the_negative_integers():
    a, _ = legs_matrices(6)
    assert_close("poles", -torch.arange(1, 7).double(), torch.linalg.eigvals(a).real.sort(descending=True).values, 1e-9)


def test_lmu_memory_holds_the_window_shifted_by_its_length():
    theta, size = 100.0, 12
    decay, write = legt_hold(size, theta)
    t = torch.arange(300, dtype=torch.float64)
    signal = torch.sin(2 * math.pi * t / 120)
    m = torch.zeros(size, dtype=torch.float64)
    for u in signal:
        m = decay @ m + write * u
    # shifted Legendre polynomials at the far end of the window are (−1)^n times those at the near end, which are 1
    oldest = (m * torch.ones(size)).sum()
    newest = (m * (-1.0) ** torch.arange(size)).sum()
    assert abs(newest - signal[-1]) < 0.06
    assert abs(oldest - signal[-1 - int(theta)]) < 0.06


def test_gcnn_with_open_gates_is_a_linear_convolution():
    mixer = built("gcnn", kernel=3)
    weight, bias = mixer.conv.weight.clone(), mixer.conv.bias
    bias[WIDTH:] = 1000.0
    x = sequence(10)
    kernel = weight[:WIDTH].unflatten(1, (3, WIDTH)).transpose(1, 2)
    expected = F.conv1d(F.pad(x.transpose(1, 2), (2, 0)), kernel, bias[:WIDTH]).transpose(1, 2)
    assert_close("y", expected, mixer(x)[0], 1e-9)


def test_pgn_reads_its_window_and_not_the_present_step():
    mixer = built("pgn", window=1)
    x = sequence(6)
    history = mixer.unit.past(F.pad(x, (0, 0, 1, -1)))
    gate, candidate = mixer.unit.mix(torch.cat([x, history], dim=-1)).chunk(2, dim=-1)
    expected = gate.sigmoid() * history + (1 - gate.sigmoid()) * candidate.tanh()
    assert_close("y", expected, mixer(x)[0], 1e-9)


def test_tpgn_is_the_folded_series_at_the_end_of_the_sequence():
    mixer = built("tpgn", period=4, periods=3)
    x = sequence(12)
    folded = x.unflatten(1, (3, 4))  # rows of one period, columns of one phase
    long, _ = mixer.long(x[:, -1], folded[:, :-1, -1].flatten(1))
    short = mixer.column(mixer.row(folded.flatten(2)).flatten(1))
    assert_close("y", mixer.out(torch.cat([long, short], dim=-1)), mixer(x)[0][:, -1], 1e-9)


def test_gss_that_reads_no_pole_works_step_by_step():
    mixer = built("gss", state_size=8)
    mixer.space.read.zero_()
    x = sequence(7)
    v = F.gelu(mixer.into(x))
    expected = mixer.out(mixer.widen(mixer.space.skip * v) * F.gelu(mixer.gate(x)))
    assert_close("y", expected, mixer(x)[0], 1e-9)


def test_gss_is_its_recurrence():
    mixer = built("gss", state_size=8)
    x = sequence(7)
    v, space = F.gelu(mixer.into(x)), mixer.space
    pole = torch.complex(-space.log_rate.exp(), space.log_frequency.exp())
    read = torch.complex(*space.read) * (pole.exp() - 1) / pole
    s = torch.zeros(2, v.shape[2], 8, dtype=torch.complex128)
    for t in range(7):
        s = pole.exp() * s + v[:, t, :, None]
    z = (read * s).sum(dim=-1).real + space.skip * v[:, -1]
    expected = mixer.out(mixer.widen(z) * F.gelu(mixer.gate(x[:, -1])))
    assert_close("y", expected, mixer(x)[0][:, -1], 1e-9)


def test_delta_rule_recalls_orthonormal_keys_and_overwrites_them():
    keys = torch.eye(4, dtype=torch.float64)[[0, 1, 2, 0]][None, :, None]
    values = sequence(4, 3, batch=1)[:, :, None]
    one = torch.ones(1, 4, 1, dtype=torch.float64)
    _, state = gated_delta_rule(keys, keys, values, one, torch.zeros_like(one))
    assert_close("state", values[0, [3, 1, 2], 0], state[0, 0, :3], 1e-12)


def test_delta_rule_without_memory_holds_the_last_pair_alone():
    k, v = sequence(5, 4)[:, :, None], sequence(6, 3)[:, 1:, None]
    beta = torch.full((2, 5, 1), 0.5, dtype=torch.float64)
    _, state = gated_delta_rule(k, k, v, beta, torch.full_like(beta, -1000.0))
    assert_close("state", torch.einsum("bk,bv->bkv", k[:, -1, 0], v[:, -1, 0]) / 2, state[:, 0], 1e-12)


def test_gla_that_forgets_nothing_is_linear_attention():
    mixer = built("gla", num_heads=2)
    mixer.decay[1].weight.zero_()
    mixer.decay[1].bias.fill_(1000.0)
    x = sequence(70)
    q, k, v = (heads(part, 2) for part in mixer.into(x).split(mixer.sizes, dim=-1))
    o = torch.einsum("bihk,bjhk,ij,bjhv->bihv", q, k, torch.ones(70, 70).double().tril(), v) * mixer.scale
    assert_close("y", mixer.out(mixer.norm(o).flatten(2) * F.silu(mixer.gate(x))), mixer(x)[0], 1e-9)


def test_deltanet_with_beta_2_flips_its_state_on_each_write():
    mixer = built("deltanet", num_heads=WIDTH, max_beta=2.0, conv_width=0)
    keys = slice(WIDTH, 2 * WIDTH)
    mixer.into.weight[keys] = 0
    mixer.into.weight[keys, 0] = 1.0
    mixer.into.weight[2 * WIDTH :] = 0  # values 0: only the transition acts
    mixer.beta.weight[:] = 0
    mixer.beta.weight[:, 0] = 50.0
    ones = torch.ones(1, 5, WIDTH, dtype=torch.float64) * 4
    start = torch.ones(1, WIDTH, 1, 1, dtype=torch.float64)
    state = (start, ones[:, :0].new_zeros(1, 0, 3 * WIDTH))
    for flips in range(1, 4):
        _, state = mixer(ones[:, :1], state)
        assert_close("state", start * (-1) ** flips, state[0], 1e-5)


def rfa_weights(mixer, x: Tensor, weight: Tensor) -> Tensor:
    """Random-feature attention with a given weight [B, H, T, S] of step s in step t."""
    q, k, v = (heads(layer(x), 4) for layer in (mixer.q, mixer.k, mixer.v))
    scores = torch.einsum("bihf,bjhf->bhij", mixer._features(q), mixer._features(k)) * weight
    o = torch.einsum("bhij,bjhk->bihk", scores, v)
    return mixer.out((o / scores.sum(dim=-1).transpose(1, 2)[..., None].clamp(min=LEAST_NORMALISER)).flatten(2))


def test_rfa_with_sentences_is_one_masked_attention():
    mixer = built("rfa", gate="sentence", sentence_length=3)
    x = sequence(10)
    gate = mixer.forget(x).sigmoid().transpose(1, 2)  # [B, H, T]
    weight = torch.zeros(2, 4, 10, 10, dtype=torch.float64)
    for i in range(10):
        for j in range(i + 1):
            written = 1 - gate[:, :, 3 * (j // 3) - 1] if j >= 3 else 1.0
            ends = [3 * n + 2 for n in range(j // 3, i // 3)]
            weight[:, :, i, j] = written * math.prod((gate[:, :, end] for end in ends), start=torch.ones(2, 4).double())
    assert_close("y", rfa_weights(mixer, x, weight), mixer(x)[0], 1e-9)


def test_rfa_features_approach_the_softmax_kernel():
    torch.manual_seed(0)
    for features in ("trigonometric", "positive"):
        mixer = built("rfa", gate="none", features=features, num_features=20000, num_heads=1)
        x = sequence(5, WIDTH)
        unit = F.normalize(x, dim=-1)
        kernel = torch.einsum("bik,bjk->bij", *(mixer._features(x[:, :, None])[:, :, 0],) * 2)
        distance = torch.cdist(unit, unit).square()
        # trigonometric: the Gaussian kernel; positive, whose features lack the factor e^(−½ |x − y|²) of two unit
        # vectors, e^(x·y) times a constant of 1
        expected = torch.exp(-distance / 2) if features == "trigonometric" else torch.exp(1 - distance / 2)
        assert_close(features, expected, kernel, 5e-2)


def test_seqboat_that_chooses_nothing_is_its_moving_average():
    mixer = built("seqboat")
    mixer.choose.weight[:2] = 0
    mixer.choose.bias[:2] = torch.tensor([1.0, -1.0])
    x = sequence(12)
    m = F.silu(mixer.average(x, None)[0])
    assert_close("y", F.silu(x + mixer.choose(m)[..., 2:]), mixer(x)[0], 1e-9)


@pytest.mark.parametrize("attention", ["relu2", "softmax"])
def test_seqboat_that_chooses_everything_is_a_gated_attention_unit(attention):
    mixer = built("seqboat", window=4, attention=attention)
    mixer.choose.weight[:2] = 0
    mixer.choose.bias[:2] = torch.tensor([-1.0, 1.0])
    x = sequence(11)
    m = F.silu(mixer.average(x, None)[0])
    z, r, v = F.silu(mixer.into(m)).split([16, WIDTH, WIDTH], dim=-1)
    q, k = (z * scale + shift for scale, shift in zip(mixer.scale, mixer.shift, strict=True))
    lag = torch.arange(11)[:, None] - torch.arange(11)
    seen = (lag >= 0) & (lag < 4)
    bias = mixer.distance[(3 - lag).clamp(0, 3)]
    if attention == "relu2":
        weight = F.relu(q @ k.transpose(1, 2) / 4 + bias).square() * seen
    else:
        weight = (q @ k.transpose(1, 2) / 4 + bias).masked_fill(~seen, -math.inf).softmax(dim=-1)
    h = mixer.out(r * (weight @ v))
    tau = mixer.log_temperature.exp()
    on = torch.sigmoid(2 / tau)
    assert_close("y", F.silu(x + mixer.choose(m)[..., 2:] + on * h), mixer(x)[0], 1e-9)


def test_seqboat_packs_the_chosen_steps_only():
    mixer = built("seqboat", window=3)
    x = sequence(40)
    m = F.silu(mixer.average(x, None)[0])
    u = mixer.choose(m)[..., :2]
    chosen = u[..., 1] > u[..., 0]
    counts = chosen.sum(dim=1)
    assert (counts > 3).all()
    assert (counts < 37).all()
    state = mixer(x)[1]
    for row in range(2):
        last = m[row, chosen[row]][-2:]
        z = F.silu(mixer.into(last))[:, :16]
        assert_close("keys", z * mixer.scale[1] + mixer.shift[1], state["keys"][row], 1e-9)


def test_moving_average_starts_with_the_papers_spread():
    average = build_mixer("seqboat", 512).average
    assert abs(float(average.damp.std()) - 0.2) < 0.01
    assert torch.equal(average.write.sign()[:, 0], torch.ones(512))
    assert torch.equal(average.write.sign()[:, 1], -torch.ones(512))


def test_grc_updates_its_cache_by_the_gates():
    mixer = built("grc_attention", segment=4, slots=4)
    x = sequence(4)
    attended, _ = mixer._within(x[:, None])
    summary = attended[:, 0, :, : WIDTH // 2]
    both = torch.cat([torch.zeros_like(summary), summary], dim=-1)
    update = mixer.update.gates(both)[..., WIDTH // 2 :].sigmoid()
    candidate = mixer.update.norm(F.gelu(mixer.update.candidate(both)))
    assert_close("cache", update * candidate, mixer(x)[1]["cache"], 1e-9)


def test_grc_reads_what_earlier_segments_left():
    mixer = built("grc_attention", segment=4)
    x = sequence(12)
    changed = x.clone()
    changed[:, 1] += 1
    y, moved = mixer(x)[0], mixer(changed)[0]
    assert not torch.equal(y[:, 9], moved[:, 9])


def test_gsa_with_fresh_slots_is_softmax_attention_at_its_last_step():
    steps = 20
    q, k, v = (sequence(steps + i, 8)[:, :steps, None] for i in range(3))
    one_hot = torch.eye(steps, dtype=torch.float64).expand(2, -1, -1)[:, :, None]
    keep = torch.zeros_like(one_hot)
    logits, _ = slot_logits(q, k, one_hot, keep, None)
    o, _ = chunk_gla(logits.softmax(dim=-1), one_hot, v, keep)
    expected = F.scaled_dot_product_attention(*(y[:, :, 0] for y in (q, k, v)), is_causal=True, scale=1.0)
    assert_close("o", expected[:, -1], o[:, -1, 0], 1e-9)


def test_liger_makes_its_gate_of_the_keys():
    mixer = built("liger", local_share=0.0, rank=0, num_heads=2, num_kv_heads=1)
    x = sequence(6)
    q, k, v = mixer.maps(x)
    k, v = k.expand(-1, -1, 2, -1), v.expand(-1, -1, 2, -1)
    state = torch.zeros(2, 2, WIDTH // 2, WIDTH // 2, dtype=torch.float64)
    for t in range(6):
        gate = k[:, t].sigmoid() ** (1 / 16)
        state = gate[..., None] * state + k[:, t].softmax(dim=-1)[..., None] * v[:, t, :, None]
    o = torch.einsum("bhk,bhkv->bhv", q[:, -1].softmax(dim=-1), state)
    assert_close("y", mixer.maps.out(o.flatten(1)), mixer(x)[0][:, -1], 1e-9)


def test_gate_summary_counts_what_it_says():
    mixer = built("hgrn")
    mixer.record_gates = True
    mixer.forget.weight.zero_()
    mixer(sequence(5))
    assert mixer.last_gate["gate_mean"] == 0.5
    assert abs(mixer.last_gate["memory_steps"] - 1 / math.log(2)) < 1e-6
    assert mixer.last_gate["gate_low"] == mixer.last_gate["gate_high"] == 0
