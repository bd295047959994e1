"""The models run on the operations of `kernels`: each method's own calls are counted, in a layer and in training."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from kernels import cost
from workloads import build_feedforward, build_mixer, train

D, T = 16, 8

FAMILIES = {
    "linear_scan": ("gateloop", "hgrn", "mingru", "minlstm", "rg_lru", "rwkv4"),
    "chunk_gla": ("gla", "hgrn2", "liger", "mamba2", "retnet", "rfa"),
    "gated_delta_rule": ("deltanet", "gated_deltanet"),
    "fused_rnn": ("gru", "lstm", "rnn_tanh", "slstm"),
}
MIXERS = {name: Counter({kernel: 1}) for kernel, names in FAMILIES.items() for name in names} | {
    "griffin": Counter(linear_scan=2),  # two recurrent blocks for one of attention
    "gsa": Counter(linear_scan=1, chunk_gla=1),
}
MIXTURE = Counter(moe_route=1, moe_dispatch=1, fused_glu_mlp=1, moe_combine=1)
ROUTERS = ("topk", "switch", "noisy_topk", "loss_free", "cosine", "deepseek_moe", "sparsemixer", "pre_gated")


def calls(module: nn.Module) -> Counter[str]:
    """The operations that one forward and backward pass over [2, T, D] calls."""
    with cost.counting() as ledger:
        output = module(torch.randn(2, T, D))
        (output[0] if isinstance(output, tuple) else output).sum().backward()
    return ledger.calls


@pytest.mark.parametrize("name", MIXERS)
def test_a_recurrent_mixer_calls_its_kernel_once_a_layer(name: str):
    assert calls(build_mixer(name, D)) == MIXERS[name]


@pytest.mark.parametrize("name", ROUTERS)
def test_a_mixture_calls_each_of_its_kernels_once_a_layer(name: str):
    moe = build_feedforward("moe", D, num_experts=4, expert_hidden=8, router={"name": name})
    assert calls(moe) == MIXTURE


def test_experts_without_a_gate_are_two_grouped_products():
    moe = build_feedforward("moe", D, num_experts=4, expert_hidden=8, activation="relu", router={"name": "topk"})
    assert calls(moe)["grouped_mm"] == 2


@pytest.mark.parametrize("mixer", ["rg_lru", "gla", "gated_deltanet"])
def test_training_calls_them_in_every_layer_of_every_step(mixer: str):
    layers, steps = 2, 3
    feedforward = {"name": "moe", "num_experts": 4, "expert_hidden": 8, "router": {"name": "topk", "k": 2}}
    config = {
        "task": {"name": "bytes_lm", "corpus": str(Path(__file__).parents[2] / "LICENSE")},
        "model": {"d_model": D, "n_layers": layers, "mixer": {"name": mixer}, "feedforward": feedforward},
        "training": {"steps": steps, "batch_size": 2, "sequence_length": 64, "figures": False},
        "seed": 0,
    }
    with cost.counting() as ledger:
        list(train(config))
    assert all(ledger.calls[name] >= layers * steps for name in MIXERS[mixer] + MIXTURE), ledger.calls
