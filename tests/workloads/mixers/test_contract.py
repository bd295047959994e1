"""The promises of `workloads.slots.Mixer`, held by every mixer of the registry; a new one enters by being listed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from kernels.testing import assert_close
from tests.workloads.mixers.support import WIDTH, built, sequence
from workloads import build_mixer, list_mixers
from workloads.slots import Mixer, State, tensors_of

VARIANTS: list[tuple[str, dict[str, object]]] = [
    ("deer_gru", {"jacobian": "diagonal"}),
    ("deer_gru", {"max_iterations": 1}),
    ("deer_lstm", {"jacobian": "diagonal", "hidden_size": 6}),
    ("hippo_legs", {"signals": 2, "memory_size": 5, "hidden_size": 7}),
    ("indrnn", {"activation": "identity"}),
    ("low_rank_gru", {"diagonal": True, "tied": True}),
    ("low_rank_lstm", {"diagonal": True, "hidden_size": 12}),
    ("deltanet", {"max_beta": 2.0, "conv_width": 0}),
    ("gated_deltanet", {"max_beta": 2.0, "num_heads": 1}),
    ("gcnn", {"kernel": 3}),
    ("grc_attention", {"segment": 4, "slots": 3, "num_heads": 2}),
    ("gss", {"state_size": 6, "narrow": 0.5}),
    ("liger", {"window": 4, "num_kv_heads": 2, "rank": 0}),
    ("pgn", {"window": 3}),
    ("seqboat", {"window": 3}),
    ("seqboat", {"window": 4, "attention": "softmax", "ema_size": 3}),
    ("tpgn", {"period": 3, "periods": 3}),
    ("gla", {"conv_width": 4, "temperature": 1.0}),
    ("gsa", {"num_slots": 3, "conv_width": 2}),
    ("hgrn2", {"expand_ratio": 4, "conv_width": 4}),
    ("mamba2", {"head_dim": 8, "conv_width": 0}),
    ("retnet", {"rotary": False, "expand_v": 1.0, "conv_width": 4}),
    ("rfa", {"gate": "none", "features": "positive"}),
    ("rfa", {"gate": "token"}),
    ("rfa", {"gate": "sentence", "sentence_length": 3}),
    ("slstm", {"num_heads": 1, "conv_width": 0, "recurrence": "uniform"}),
    ("attention", {"num_kv_heads": 2, "qk_norm": True, "conv_width": 3}),
    ("griffin", {"window": 3}),
    ("gru", {"reset": "before", "hidden_size": 6}),
    ("hgrn", {"form": "complex", "conv_width": 3}),
    ("local_attention", {"window": 4, "num_kv_heads": 1, "rotary_fraction": 0.5, "conv_width": 2}),
    ("mingru", {"expand": 1.5, "candidate": "linear", "conv_width": 4}),
    ("rg_lru", {"conv_width": 0}),
    ("rwkv4", {"spiking": True}),
]
CASES = [pytest.param(name, {}, id=name) for name in list_mixers()] + [
    pytest.param(name, options, id=f"{name}-{'-'.join(map(str, options.values()))}") for name, options in VARIANTS
]
NOT_BITWISE_CAUSAL = {"gss", "seqboat"}
"""Mixers with a convolution by FFT, which mixes all steps and cancels the later ones to rounding only."""

every_mixer = pytest.mark.parametrize(("name", "options"), CASES)


def in_pieces(mixer: Mixer, x: Tensor, *cuts: int) -> tuple[Tensor, object]:
    outputs, state = [], None
    for piece in torch.tensor_split(x, cuts, dim=1):
        y, state = mixer(piece, state)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


def step_by_step(mixer: Mixer, x: Tensor) -> tuple[Tensor, object]:
    outputs, state = [], None
    for token in x.unbind(1):
        y, state = mixer.step(token, state)
        outputs.append(y)
    return torch.stack(outputs, dim=1), state


def mapped(act: Callable[[Tensor], Tensor], state: State) -> State:
    """The state with `act` done to each of its tensors."""
    if isinstance(state, dict):
        return {name: mapped(act, part) for name, part in state.items()}
    if isinstance(state, tuple):
        return tuple(mapped(act, part) for part in state)
    return act(state) if isinstance(state, Tensor) else state


def assert_same_state(expected: object, actual: object, rel: float) -> None:
    pairs = list(zip(tensors_of(expected), tensors_of(actual), strict=True))
    for i, (e, a) in enumerate(pairs):
        assert_close(f"state {i}", e, a, rel)


# float32: sums over 13 steps in another order; float64: the contract's figure
@pytest.mark.parametrize(("dtype", "rel"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=["float64", "float32"])
@every_mixer
def test_steps_and_pieces_give_what_the_whole_gives(name, options, dtype, rel):
    mixer, x = built(name, dtype=dtype, **options), sequence(13, dtype=dtype)
    with torch.no_grad():
        whole, state = mixer(x)
        assert whole.shape == x.shape
        assert whole.dtype is dtype
        assert whole.abs().max() > 0
        for other, state_of_other in (in_pieces(mixer, x, 1, 6), step_by_step(mixer, x)):
            assert_close("y", whole, other, rel)
            assert_same_state(state, state_of_other, rel)


@every_mixer
def test_pieces_agree_where_no_chunk_divides_them(name, options):
    mixer, x = built(name, **options), sequence(137, batch=1)
    with torch.no_grad():
        whole, state = mixer(x)
        pieces, state_of_pieces = in_pieces(mixer, x, 64, 65, 101)
    assert_close("y", whole, pieces, 1e-9)
    assert_same_state(state, state_of_pieces, 1e-9)


@every_mixer
def test_rows_padded_to_one_length_give_what_each_gives_alone(name, options):
    mixer, x = built(name, **options), sequence(13)
    x[1, 6:] = 0
    with torch.no_grad():
        both, alone = mixer(x)[0], mixer(x[1:, :6])[0]
    assert_close("y", alone, both[1:, :6], 1e-9)


@every_mixer
def test_later_input_leaves_earlier_output_untouched(name, options):
    mixer, x = built(name, **options), sequence(23)
    changed = x.clone()
    changed[:, 9:] = sequence(14) * 3
    with torch.no_grad():
        before, after = mixer(x)[0], mixer(changed)[0]
    if name in NOT_BITWISE_CAUSAL:
        assert_close("y", before[:, :9], after[:, :9], 1e-12)
    else:
        assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.equal(before[:, 9], after[:, 9])


@every_mixer
def test_the_past_reaches_the_present(name, options):
    mixer, x = built(name, **options), sequence(6)
    changed = x.clone()
    changed[:, 3] += 1
    with torch.no_grad():
        assert not torch.equal(mixer(x)[0][:, 5], mixer(changed)[0][:, 5])


@every_mixer
def test_gradients_are_those_of_finite_differences(name, options):
    if options.get("spiking"):
        pytest.skip("a spike has no derivative; its surrogate is tested with the closed forms")
    mixer = built(name, **options)
    names = [n for n, p in mixer.named_parameters() if p.requires_grad]
    parameters = [mixer.get_parameter(n).detach().clone().requires_grad_() for n in names]
    x = sequence(5, batch=1).requires_grad_()

    def run(x: Tensor, *values: Tensor) -> Tensor:
        weights = dict(zip(names, values, strict=True))
        first, state = torch.func.functional_call(mixer, weights, (x[:, :3],))
        second, _ = torch.func.functional_call(mixer, weights, (x[:, 3:], state))
        return torch.cat([first, second], dim=1)

    assert torch.autograd.gradcheck(run, (x, *parameters), fast_mode=True, atol=1e-6, rtol=1e-5)


@every_mixer
def test_gradient_flows_through_the_carried_state(name, options):
    mixer, x = built(name, **options), sequence(7, batch=1).requires_grad_()
    whole = torch.autograd.grad(mixer(x)[0][:, -1].sum(), x)[0]
    pieces = torch.autograd.grad(in_pieces(mixer, x, 4)[0][:, -1].sum(), x)[0]
    assert_close("dx", whole, pieces, 1e-9)


@every_mixer
def test_truncated_backpropagation_ends_at_the_segment(name, options):
    mixer, x = built(name, **options), sequence(7, batch=1)
    _, carried = mixer(x[:, :4])
    state = mapped(Tensor.detach, carried)
    later = x[:, 4:].requires_grad_()
    y, _ = mixer(later, state)
    y.sum().backward()
    assert later.grad.any()
    assert_close("y", mixer(x)[0][:, 4:].detach(), y.detach(), 1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@every_mixer
def test_shut_and_open_gates_stay_finite(name, options, dtype):
    mixer = built(name, dtype=dtype, **options)
    x = (1000 * sequence(70, dtype=dtype, batch=1)).requires_grad_()
    y, state = mixer(x)
    y, _ = mixer(torch.zeros_like(x), state)
    assert y.dtype is dtype
    assert y.isfinite().all()
    y, _ = mixer(x)
    y.float().pow(2).mean().sqrt().backward()
    assert y.isfinite().all()
    assert all(t.isfinite().all() for t in tensors_of(state))
    gradients = {n: p.grad for n, p in mixer.named_parameters() if p.grad is not None}
    assert x.grad.isfinite().all()
    assert [n for n, g in gradients.items() if not g.isfinite().all()] == []


@every_mixer
def test_every_parameter_is_trained(name, options):
    mixer = built(name, **options)
    mixer(sequence(70))[0].pow(2).sum().backward()
    idle = [n for n, p in mixer.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert idle == []


@every_mixer
def test_same_seed_gives_the_same_numbers(name, options):
    runs = []
    for _ in range(2):
        mixer, x = built(name, dtype=torch.float32, **options), sequence(11, dtype=torch.float32).requires_grad_()
        y = mixer(x)[0]
        y.sum().backward()
        runs.append((y, x.grad, *[p.grad for p in mixer.parameters() if p.grad is not None]))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@every_mixer
def test_state_bytes_are_those_of_the_state_that_is_carried(name, options):
    mixer = built(name, dtype=torch.float32, **options)
    with torch.no_grad():
        state = mixer(sequence(9, dtype=torch.float32, batch=3))[1]
    held = tensors_of(state)
    assert held
    assert all(t.shape[0] == 3 for t in held)
    assert mixer.state_bytes(3, 9) == sum(t.numel() * t.element_size() for t in held)
    assert mixer.state_bytes(6, 9) == 2 * mixer.state_bytes(3, 9)


@every_mixer
def test_state_grows_with_length_in_full_attention_alone(name, options):
    mixer = built(name, dtype=torch.float32, **options)
    grows = mixer.state_bytes(1, 320) > mixer.state_bytes(1, 192)
    assert grows == (name == "attention")


@every_mixer
def test_gates_are_summarised_on_request_only(name, options):
    mixer, x = built(name, **options), sequence(5)
    mixer(x)
    assert mixer.last_gate is None
    mixer.record_gates = True
    mixer(x)
    if mixer.last_gate is not None:
        assert all(value.ndim == 0 and not value.requires_grad for value in mixer.last_gate.values())
        assert 0 <= mixer.last_gate["gate_mean"] <= 1
        assert mixer.last_gate["memory_steps"] >= 0


@pytest.mark.parametrize("name", list_mixers())
def test_autocast_to_bf16_trains(name):
    torch.manual_seed(0)
    mixer = build_mixer(name, WIDTH)
    x = sequence(12, dtype=torch.float32).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y, state = mixer(x)
        y, _ = mixer(x, state)
    y.float().square().mean().backward()
    assert y.isfinite().all()
    assert all(p.grad.isfinite().all() for p in mixer.parameters() if p.grad is not None)


def test_every_mixer_is_a_module_of_the_slot():
    assert all(isinstance(build_mixer(name, WIDTH), nn.Module) for name in list_mixers())
