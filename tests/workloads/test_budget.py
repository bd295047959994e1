"""Parameters, FLOPs and state: against counts by hand and against torch's own counter, for every method."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import kernels
from kernels import cost
from workloads import build_feedforward, build_mixer, build_model, list_feedforwards, list_mixers, list_routers, seeding
from workloads.budget import active_parameters, budget, forward_flops, training_flops
from workloads.config import ModelConfig
from workloads.shell import SequenceModel, count_parameters
from workloads.slots import LayerContext
from workloads.tasks.base import Signature

D, T = 32, 16
HEAD = D * 256


def a_config(**model: Any) -> dict[str, Any]:
    shell = {"d_model": D, "n_layers": 1, "mixer": "gru", "feedforward": {"name": "dense", "hidden": 8}}
    return {"model": shell | model, "training": {"sequence_length": T}}


def test_a_gru_and_a_dense_layer_agree_with_the_count_by_hand():
    cost = budget(a_config())
    gru, dense, norms, embedding = 2 * 3 * D * D, 3 * D * 8, 3 * D, 256 * D
    assert cost.params == cost.active_params == embedding + gru + 2 * 3 * D + dense + norms + HEAD
    assert cost.inference_flops_per_token == 2 * (gru + dense + HEAD)
    assert cost.train_flops_per_token == 3 * cost.inference_flops_per_token
    assert cost.state_bytes == D * 4


def test_depth_multiplies_the_blocks_alone():
    one, three = budget(a_config()), budget(a_config(n_layers=3))
    assert three.inference_flops_per_token - 2 * HEAD == 3 * (one.inference_flops_per_token - 2 * HEAD)
    assert three.state_bytes == 3 * one.state_bytes


@pytest.mark.parametrize("k", [1, 2, 4])
def test_a_mixture_agrees_with_the_count_by_hand(k: int):
    moe = {"name": "moe", "num_experts": 4, "expert_hidden": 8, "router": {"name": "topk", "k": k}}
    cost, dense = budget(a_config(feedforward=moe)), budget(a_config())
    expert, gate = 3 * D * 8, 4 * D
    assert cost.params - dense.params == 4 * expert + gate - expert
    assert cost.active_params - dense.active_params == k * expert + gate - expert
    assert cost.inference_flops_per_token - dense.inference_flops_per_token == 2 * (k * expert + gate - expert)


def test_glam_s_pattern_is_dense_in_every_other_layer_and_one_expert_more_in_the_rest():
    """Experts as wide as the dense layer: k - 1 feed-forwards more are active in half of the layers, and the gates."""
    layer = {"activation": "geglu"}
    dense = {"name": "dense", "hidden": 8} | layer
    glam = {"name": "moe", "num_experts": 4, "expert_hidden": 8, "router": "glam"} | layer
    sparse, plain = (a_config(n_layers=4, feedforward=each) for each in ([dense, glam], dense))
    more = budget(sparse).active_params - budget(plain).active_params
    assert more == 2 * (3 * D * 8 + 4 * D)
    shapes = [{name: p.shape for name, p in build_model(each).blocks[2].named_parameters()} for each in (sparse, plain)]
    assert shapes[0] == shapes[1]


# Parameters, and FLOPs a token at T tokens: products, and 2 D for each scan of the recurrences that have one
BY_HAND = {
    "rnn_tanh": (2 * D * D + 2 * D, 2 * 2 * D * D),
    "indrnn": (D * D + 2 * D, 2 * D * D),
    "mgu": (4 * D * D + 2 * D, 2 * 4 * D * D),
    "gru": (6 * D * D + 6 * D, 2 * 6 * D * D),
    "lstm": (8 * D * D + 8 * D, 2 * 8 * D * D),
    "mingru": (2 * D * D + 2 * D, 2 * 2 * D * D + 2 * D),
    "minlstm": (3 * D * D + 3 * D, 2 * 3 * D * D + 2 * D),
    "attention": (4 * D * D, 2 * 4 * D * D + 2 * 2 * T * D),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_a_mixer_agrees_with_the_count_by_hand(name: str):
    mixer = build_mixer(name, D)
    assert (count_parameters(mixer), forward_flops(mixer, torch.randn(1, T, D)) / T) == BY_HAND[name]


def attention_by_hand(q: tuple[int, ...], k: tuple[int, ...], v: tuple[int, ...], *_: Any, **__: Any) -> int:
    batch, heads, steps, size = q
    return 2 * batch * heads * steps * k[2] * (size + v[3])


def attention_backward_by_hand(_: tuple[int, ...], *shapes: Any, **__: Any) -> int:
    """Two products of the same size for each of the two: to both of its sides."""
    return 2 * attention_by_hand(*shapes[:3])


def transform_by_hand(x: tuple[int, ...], dims: list[int], *_: Any, out_shape: tuple[int, ...], **__: Any) -> int:
    """Of one real axis, the textbook 2.5 n log₂ n a row; n is the longer side of the pair of shapes."""
    (dim,) = dims
    n = max(x[dim], out_shape[dim])
    rows = math.prod(x) // x[dim]
    return round(2.5 * rows * n * math.log2(n))


def complex_transform_by_hand(x: tuple[int, ...], dims: list[int], *_: Any, **__: Any) -> int:
    """Twice the work of a real one of the same length."""
    return 2 * transform_by_hand(x, dims, out_shape=x)


# What torch's counter does not know on the CPU
MISSING = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_by_hand,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_by_hand,
    torch.ops.aten._fft_r2c: transform_by_hand,
    torch.ops.aten._fft_c2r: transform_by_hand,
    torch.ops.aten._fft_c2c: complex_transform_by_hand,
}


class OutsideCounter(FlopCounterMode):
    """torch's counter, deaf while one of `kernels`' operations runs."""

    def __init__(self, ledger: cost.Ledger) -> None:
        super().__init__(display=False, custom_mapping=MISSING)
        self.ledger = ledger

    def _count_flops(self, func_packet: Any, out: Any, args: Any, kwargs: Any) -> Any:
        return out if self.ledger.inside else super()._count_flops(func_packet, out, args, kwargs)


def by_torchs_counter(module: nn.Module, *inputs: Any) -> int:
    # Without gradients by flag: the counter's module tracker stumbles over torch.no_grad
    module.eval().requires_grad_(False)
    with cost.counting() as ledger, OutsideCounter(ledger) as counter:
        module(*inputs)
    return int(counter.get_total_flops()) + sum(ledger.flops.values())


@pytest.mark.parametrize("name", list_mixers())
def test_every_mixer_agrees_with_torchs_counter(name: str):
    seeding.seed_everything(0, name)
    mixer, x = build_mixer(name, D), torch.randn(2, T, D)
    flops = forward_flops(mixer, x)
    assert flops == by_torchs_counter(mixer, x)
    assert flops >= 2 * 2 * T * D * D, "at least one square map a token"


@pytest.mark.parametrize("name", list_routers())
def test_every_router_agrees_with_torchs_counter(name: str):
    seeding.seed_everything(0, name)
    moe = build_feedforward("moe", D, num_experts=4, expert_hidden=8, router={"name": name})
    x = torch.randn(2, T, D)
    assert 0 < active_parameters(moe) <= count_parameters(moe)
    assert forward_flops(moe, x) == by_torchs_counter(moe, x) > 0


@pytest.mark.parametrize("name", list_feedforwards())
def test_every_feedforward_agrees_with_torchs_counter(name: str):
    seeding.seed_everything(0, name)
    layer, x = build_feedforward(name, D), torch.randn(2, T, D)
    assert forward_flops(layer, x) == by_torchs_counter(layer, x) > 0


# Of these the number is an expectation, what capacity allows, or what they settle on at the end of training
NOT_AT_ONCE = {"acm", "comet", "cosine", "dselect_k", "expert_choice", "mixture_of_depths", "sma"}


@pytest.mark.parametrize("name", sorted(set(list_routers()) - NOT_AT_ONCE))
def test_active_parameters_are_those_that_a_token_meets(name: str):
    seeding.seed_everything(0, name)
    moe = build_feedforward("moe", D, num_experts=4, expert_hidden=8, router={"name": name})
    context = LayerContext(health=True)
    context.num_layers, context.tokens = 1, torch.randint(256, (4, T))
    moe.eval()(torch.randn(4, T, D), context)
    experts_met = len(context.routings[0].expert) / (4 * T)
    assert active_parameters(moe) == count_parameters(moe) - (4 - experts_met) * 3 * D * 8


def a_model(d_model: int = D, **model: Any) -> SequenceModel:
    seeding.seed_everything(0, str(model))
    signature = Signature(vocab_size=64, outputs=64, sequence_length=T)
    return SequenceModel(ModelConfig(**{"d_model": d_model, "n_layers": 1, "mixer": "mingru"} | model), signature)


def training_by_torchs_counter(model: SequenceModel, inputs: torch.Tensor) -> int:
    model.eval()
    with cost.counting() as ledger, OutsideCounter(ledger) as counter:
        output = model(inputs)
        (output.logits.sum() + sum(output.losses.values())).backward()
    return int(counter.get_total_flops()) + sum(ledger.flops.values()) + ledger.backward


@pytest.mark.parametrize("name", list_mixers())
def test_training_every_mixer_agrees_with_torchs_counter(name: str):
    model, tokens = a_model(mixer=name), torch.randint(64, (2, T))
    flops = training_flops(model, tokens)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert flops == training_by_torchs_counter(model, tokens)
    assert forward_flops(model, tokens) < flops <= 3 * forward_flops(model, tokens)


@pytest.mark.parametrize("name", list_routers())
def test_training_every_router_agrees_with_torchs_counter(name: str):
    moe = {"name": "moe", "num_experts": 4, "expert_hidden": 8, "router": {"name": name}}
    model, tokens = a_model(feedforward=moe), torch.randint(64, (2, T))
    flops = training_flops(model, tokens)
    assert flops == training_by_torchs_counter(model, tokens)
    assert forward_flops(model, tokens) < flops <= 3 * forward_flops(model, tokens)


@pytest.mark.parametrize("mixer", ["gru", "lstm", "rg_lru", "gla", "gated_deltanet", "attention", "gcnn"])
def test_training_costs_two_products_backward_for_each_forward_one(mixer: str):
    model, tokens = a_model(mixer=mixer), torch.randint(64, (2, T))
    assert training_flops(model, tokens) == 3 * forward_flops(model, tokens)


def test_the_way_to_a_fixed_point_is_not_gone_back():
    """DEER's Newton steps have no gradient; what they lead to has."""
    model, tokens = a_model(mixer="deer_gru"), torch.randint(64, (2, T))
    assert training_flops(model, tokens) < 2 * forward_flops(model, tokens)


def test_a_real_valued_input_map_has_no_gradient_to_pass_on():
    signature = Signature(input_width=3, outputs=1, sequence_length=T, readout="last")
    model = SequenceModel(ModelConfig(d_model=D, n_layers=1, mixer="mingru"), signature)
    x = torch.randn(2, T, 3)
    assert training_flops(model, x) == 3 * forward_flops(model, x) - 2 * 2 * T * 3 * D


class Arithmetic(TorchDispatchMode):
    """Counts the multiplications and additions that a reference really does, one an element."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("mul", "add", "sub", "add_", "mul_"):
            self.flops += result.numel()
        elif name == "sum":
            self.flops += args[0].numel()
        elif name in ("mm", "bmm", "addmm"):
            left = args[-2]
            self.flops += 2 * left.numel() * args[-1].shape[-1]
        return result


def arithmetic_of(operation: Any, *args: Any) -> int:
    with torch.no_grad(), Arithmetic() as mode:
        operation(*args, backend="reference")
    return mode.flops


def test_the_work_of_recurrences_is_what_their_references_do():
    q, k, log_decay = (torch.rand(2, 5, 3, 4) for _ in range(3))
    v, beta = torch.rand(2, 5, 3, 6), torch.rand(2, 5, 3)
    assert cost.chunk_gla(q, k, v, log_decay) == arithmetic_of(kernels.chunk_gla, q, k, v, -log_decay)
    decay = -torch.rand(2, 5, 3)
    assert cost.gated_delta_rule(q, k, v, beta, decay) == arithmetic_of(kernels.gated_delta_rule, q, k, v, beta, decay)
    a, x = torch.rand(2, 5, 3), torch.rand(2, 5, 3)
    assert cost.linear_scan(a, x) == arithmetic_of(kernels.linear_scan, a, x)


def test_the_work_of_grouped_products_is_what_their_references_do():
    x, counts = torch.rand(10, 4), torch.tensor([3, 0, 7])
    w, down = torch.rand(3, 4, 6), torch.rand(3, 6, 5)
    with FlopCounterMode(display=False) as counter:
        kernels.grouped_mm(x, w, counts, backend="reference")
    assert counter.get_total_flops() == cost.grouped_mm(x, w, counts)
    with FlopCounterMode(display=False) as counter:
        kernels.fused_glu_mlp(x, w, w, down, counts, backend="reference")
    assert counter.get_total_flops() == cost.fused_glu_mlp(x, w, w, down, counts)


@pytest.mark.parametrize(("cell", "gates"), [("gru", 3), ("lstm", 4), ("rnn_tanh", 1)])
def test_the_work_of_a_cell_is_what_its_reference_does(cell: str, gates: int):
    x, w_ih, w_hh = torch.rand(2, 5, 3), torch.rand(gates * 4, 3), torch.rand(gates * 4, 4)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        kernels.fused_rnn(cell, x, w_ih, w_hh, None, None, backend="reference")
    assert counter.get_total_flops() == cost.fused_rnn(cell, x, w_ih, w_hh)
