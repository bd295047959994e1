"""Mixers against independent public implementations, with the same weights.

torch.nn runs in float64. The others compute in float32 inside, so agreement is asked to 1e-5, the rounding of a few
tens of steps; 1e-4 where two chunked forms sum in different orders.
"""

from __future__ import annotations

import importlib
from contextlib import ExitStack
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from fla.ops.delta_rule.naive import delta_rule_recurrence
from fla.ops.gated_delta_rule.naive import naive_recurrent_gated_delta_rule
from fla.ops.gla.naive import naive_recurrent_gla
from fla.ops.gsa.naive import naive_recurrent_gsa
from fla.ops.hgrn.naive import naive_recurrent_hgrn
from fla.ops.retention.naive import naive_retention
from torch import Tensor, nn
from transformers import Mamba2Config, Qwen3NextConfig, RecurrentGemmaConfig, RwkvConfig
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer
from transformers.models.recurrent_gemma.modeling_recurrent_gemma import (
    RecurrentGemmaRecurrentBlock,
    RecurrentGemmaRglru,
)
from transformers.models.rwkv.modeling_rwkv import RwkvSelfAttention
from xlstm.blocks.slstm.layer import sLSTMLayer, sLSTMLayerConfig

from kernels.testing import assert_close
from tests.workloads.mixers.support import WIDTH, built, copy, sequence

FLOAT32 = {"dtype": torch.float32}
STEPS = 37


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def inputs() -> Tensor:
    return sequence(STEPS, dtype=torch.float32)


def heads(x: Tensor, mixer: nn.Module) -> Tensor:
    return x.unflatten(-1, (mixer.num_heads, -1))


@pytest.mark.parametrize(
    ("name", "module"),
    [("rnn_tanh", nn.RNN), ("lstm", nn.LSTM), ("gru", nn.GRU), ("deer_gru", nn.GRU), ("deer_lstm", nn.LSTM)],
)
def test_dense_cells_agree_with_torch(name, module):
    mixer = built(name)
    judge = module(WIDTH, WIDTH, batch_first=True).double()
    for ours, theirs in (("weight_ih", "weight_ih_l0"), ("weight_hh", "weight_hh_l0"), ("bias_ih", "bias_ih_l0")):
        copy(judge.get_parameter(theirs), mixer.get_parameter(ours))
    copy(judge.bias_hh_l0, mixer.bias_hh)
    x = sequence(STEPS)
    first, second = x.split([20, STEPS - 20], dim=1)
    y, state = mixer(first)
    expected, carried = judge(first)
    assert_close("y", expected, y, 1e-9)
    assert_close("y after", judge(second, carried)[0], mixer(second, state)[0], 1e-9)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_indrnn_agrees_with_torch_and_a_diagonal_matrix(activation):
    mixer = built("indrnn", activation=activation)
    judge = nn.RNN(WIDTH, WIDTH, batch_first=True, nonlinearity=activation).double()
    copy(judge.weight_ih_l0, mixer.into.weight)
    copy(judge.bias_ih_l0, mixer.into.bias)
    copy(judge.weight_hh_l0, torch.diag(mixer.recurrence))
    judge.bias_hh_l0.zero_()
    x = sequence(STEPS)
    assert_close("y", judge(x)[0], mixer(x)[0], 1e-9)


def test_low_rank_plus_diagonal_agrees_with_torchs_lstm_on_the_assembled_matrix():
    mixer = built("low_rank_lstm", rank=3, diagonal=True)
    judge = nn.LSTM(WIDTH, WIDTH, batch_first=True).double()
    low = mixer.recurrent
    copy(judge.weight_hh_l0, (low.up @ low.down + torch.diag_embed(low.diagonal)).flatten(0, 1))
    copy(judge.weight_ih_l0, mixer.into.weight)
    copy(judge.bias_ih_l0, mixer.into.bias)
    judge.bias_hh_l0.zero_()
    x = sequence(STEPS)
    start = tuple(row.expand(1, 2, -1).contiguous() for row in mixer.start)
    assert_close("y", judge(x, start)[0], mixer(x)[0], 1e-9)


def test_rg_lru_agrees_with_recurrent_gemma():
    mixer = built("rg_lru", num_blocks=4, **FLOAT32)
    judge = RecurrentGemmaRglru(RecurrentGemmaConfig(lru_width=WIDTH, num_attention_heads=4))
    unit = mixer.unit
    copy(judge.recurrent_param, unit.decay)
    for ours, theirs in (("recurrence_gate", "recurrent_gate"), ("input_gate", "input_gate")):
        copy(getattr(judge, f"{theirs}_weight"), getattr(unit, ours).weight)
        copy(getattr(judge, f"{theirs}_bias"), getattr(unit, ours).bias.view(4, -1))
    u = inputs()
    assert_close("h", judge(u, torch.arange(STEPS).expand(2, -1)), unit(u, None)[1], 1e-5)


def test_hawks_block_agrees_with_recurrent_gemma():
    mixer = built("rg_lru", num_blocks=4, **FLOAT32)
    config = RecurrentGemmaConfig(hidden_size=WIDTH, lru_width=WIDTH, num_attention_heads=4, conv1d_width=4)
    judge = RecurrentGemmaRecurrentBlock(config, 0)
    pairs = ((judge.linear_x, mixer.into), (judge.linear_y, mixer.gate), (judge.linear_out, mixer.out))
    for theirs, ours in pairs:
        copy(theirs, ours)
    copy(judge.conv_1d.weight, mixer.conv.weight.T[:, None])
    copy(judge.conv_1d.bias, mixer.conv.bias)
    copy(judge.rg_lru.recurrent_param, mixer.unit.decay)
    for ours, theirs in (("recurrence_gate", "recurrent_gate"), ("input_gate", "input_gate")):
        copy(getattr(judge.rg_lru, f"{theirs}_weight"), getattr(mixer.unit, ours).weight)
        copy(getattr(judge.rg_lru, f"{theirs}_bias"), getattr(mixer.unit, ours).bias.view(4, -1))
    x = inputs()
    expected, _ = judge(x, torch.arange(STEPS).expand(2, -1), None, use_cache=False)
    assert_close("y", expected, mixer(x)[0], 1e-5)


def test_mamba2_agrees_with_transformers():
    mixer = built("mamba2", head_dim=8, state_size=8, **FLOAT32)
    config = Mamba2Config(
        hidden_size=WIDTH, num_heads=4, head_dim=8, state_size=8, expand=2, n_groups=1, chunk_size=16,
        layer_norm_epsilon=1e-6, num_hidden_layers=1,
    )  # fmt: skip
    judge = Mamba2Mixer(config, 0).eval()
    copy(judge.in_proj.weight, mixer.into.weight)
    copy(judge.conv1d.weight, mixer.conv.weight.T[:, None])
    copy(judge.conv1d.bias, mixer.conv.bias)
    copy(judge.dt_bias, mixer.dt_bias)
    copy(judge.A_log, mixer.log_rate)
    copy(judge.D, mixer.skip)
    copy(judge.norm.weight, mixer.norm.weight)
    copy(judge.out_proj.weight, mixer.out.weight)
    x = inputs()
    assert_close("y", judge(x), mixer(x)[0], 1e-4)


def test_gated_deltanet_agrees_with_qwen3_next():
    module = importlib.import_module("transformers.models.qwen3_next.modeling_qwen3_next")
    mixer = built("gated_deltanet", num_heads=2, head_dim=8, expand_v=1.0, **FLOAT32)
    config = Qwen3NextConfig(
        hidden_size=WIDTH, linear_num_value_heads=2, linear_num_key_heads=2, linear_key_head_dim=8,
        linear_value_head_dim=8, linear_conv_kernel_dim=4, rms_norm_eps=1e-6, num_hidden_layers=1,
    )  # fmt: skip
    judge = module.Qwen3NextGatedDeltaNet(config, 0)
    q, k, v = (part.view(2, 8, WIDTH) for part in mixer.into.weight.split(mixer.sizes))
    z = mixer.gate.weight.view(2, 8, WIDTH)
    copy(judge.in_proj_qkvz.weight, torch.cat([q, k, v, z], dim=1).flatten(0, 1))
    b, a = mixer.beta.weight.view(2, 1, WIDTH), mixer.decay.weight.view(2, 1, WIDTH)
    copy(judge.in_proj_ba.weight, torch.cat([b, a], dim=1).flatten(0, 1))
    copy(judge.conv1d.weight, mixer.conv.weight.T[:, None])
    mixer.conv.bias.zero_()
    copy(judge.dt_bias, mixer.dt_bias)
    copy(judge.A_log, mixer.log_rate)
    copy(judge.norm.weight, mixer.norm.weight)
    copy(judge.out_proj.weight, mixer.out.weight)
    x = inputs()
    with ExitStack() as stack:
        # with flash-linear-attention installed these dispatch to Triton kernels, which need a GPU
        for name in ("torch_chunk_gated_delta_rule", "causal_conv1d_fn"):
            function = getattr(module, name)
            stack.enter_context(patch.object(module, name, getattr(function, "__wrapped__", function)))
        expected = judge(x)
    assert_close("y", expected, mixer(x)[0], 1e-4)


def test_rwkv4_agrees_with_transformers():
    mixer = built("rwkv4", **FLOAT32)
    judge = RwkvSelfAttention(RwkvConfig(hidden_size=WIDTH, attention_hidden_size=WIDTH, num_hidden_layers=2))
    copy(judge.time_decay, mixer.decay)
    copy(judge.time_first, mixer.bonus)
    for theirs, ours in zip(("key", "value", "receptance"), mixer.mix, strict=True):
        copy(getattr(judge, f"time_mix_{theirs}"), ours[None, None])
    for part in ("key", "value", "receptance"):
        copy(getattr(judge, part), getattr(mixer, part))
    copy(judge.output, mixer.out)
    x = inputs()
    assert_close("y", judge(x)[0], mixer(x)[0], 1e-5)


def test_slstm_agrees_with_xlstm():
    mixer = built("slstm", num_heads=2, recurrence="uniform", **FLOAT32)
    config = sLSTMLayerConfig(
        embedding_dim=WIDTH, num_heads=2, conv1d_kernel_size=4, backend="vanilla", dtype="float32",
        enable_automatic_mixed_precision=False,
    )  # fmt: skip
    judge = sLSTMLayer(config)
    # its cell reads the maps called fgate, igate as i, f
    for name, gate in zip(("fgate", "igate", "zgate", "ogate"), mixer.into, strict=True):
        copy(getattr(judge, name).weight, gate)
    copy(judge.conv1d.conv.weight, mixer.conv.weight.T[:, None])
    copy(judge.conv1d.conv.bias, mixer.conv.bias)
    copy(judge.slstm_cell._recurrent_kernel_, mixer.recurrent.transpose(0, 1).flatten(1, 2))
    copy(judge.slstm_cell._bias_, mixer.bias.flatten())
    copy(judge.group_norm.weight, mixer.norm - 1)
    x = inputs()
    assert_close("y", judge(x), mixer(x)[0], 1e-4)


def test_gla_agrees_with_the_naive_operator():
    mixer = built("gla", temperature=1.0, **FLOAT32)
    x = inputs()
    q, k, v = (heads(part, mixer) for part in mixer.into(x).split(mixer.sizes, dim=-1))
    o, _ = naive_recurrent_gla(q, k, v, heads(F.logsigmoid(mixer.decay(x)), mixer))
    expected = mixer.out(mixer.norm(o).flatten(2) * F.silu(mixer.gate(x)))
    assert_close("y", expected, mixer(x)[0], 1e-5)


def test_hgrn2_agrees_with_the_naive_gla_operator():
    mixer = built("hgrn2", expand_ratio=8, **FLOAT32)
    x = inputs()
    q, f, v = (part.unflatten(-1, (-1, 8)) for part in mixer.into(x).chunk(3, dim=-1))
    # the operator scales its queries by K^(-1/2), HGRN2 does not
    o, _ = naive_recurrent_gla(F.silu(q) * 8**0.5, (-f).sigmoid(), v, F.logsigmoid(f))
    assert_close("y", mixer.out(mixer.norm(o.flatten(2))), mixer(x)[0], 1e-5)


def test_hgrn_agrees_with_the_naive_operator():
    mixer = built("hgrn", **FLOAT32)
    x = inputs()
    f = mixer.forget(x)
    h, _ = naive_recurrent_hgrn((-f).sigmoid() * F.silu(mixer.into(x)), F.logsigmoid(f))
    assert_close("y", mixer.out(mixer.norm(h) * F.silu(mixer.gate(x))), mixer(x)[0], 1e-5)


def test_gsa_agrees_with_the_naive_operator():
    mixer = built("gsa", num_slots=6, **FLOAT32)
    x = inputs()
    q, k, v = (heads(F.silu(part), mixer) for part in mixer.into(x).chunk(3, dim=-1))
    g = heads(F.logsigmoid(mixer.forget(x)), mixer) / 8
    o, (slot_keys, slot_values) = naive_recurrent_gsa(q, k, v, 1 - g.exp(), g, scale=1.0, output_final_state=True)
    y, (our_keys, our_values, _) = mixer(x)
    assert_close("y", mixer.out(mixer.norm(F.silu(o.flatten(2)))), y, 1e-5)
    assert_close("slot keys", slot_keys, our_keys, 1e-5)
    assert_close("slot values", slot_values, our_values, 1e-5)


def test_retnet_agrees_with_the_naive_operator():
    mixer = built("retnet", rotary=False, **FLOAT32)
    x = inputs()
    q, k, v = (heads(layer(x), mixer).transpose(1, 2) for layer in (mixer.q, mixer.k, mixer.v))
    o = naive_retention(q, k, v).transpose(1, 2)
    assert_close("y", mixer.out(mixer.norm(o).flatten(2) * F.silu(mixer.gate(x))), mixer(x)[0], 1e-5)


def test_deltanet_agrees_with_the_naive_operator():
    mixer = built("deltanet", max_beta=2.0, **FLOAT32)
    x = inputs()
    mixed = mixer.conv(mixer.into(x))[0]
    q, k, v = (heads(part, mixer).transpose(1, 2) for part in mixed.split(mixer.sizes, dim=-1))
    beta = 2 * mixer.beta(x).sigmoid().transpose(1, 2)
    o = delta_rule_recurrence(F.normalize(q, dim=-1), F.normalize(k, dim=-1), v, beta)[0].transpose(1, 2)
    assert_close("y", mixer.out(mixer.norm(o).flatten(2)), mixer(x)[0], 1e-4)


def test_gated_deltanet_agrees_with_the_naive_operator():
    mixer = built("gated_deltanet", num_heads=2, **FLOAT32)
    x = inputs()
    mixed = mixer.conv(mixer.into(x))[0]
    q, k, v = (heads(part, mixer) for part in mixed.split(mixer.sizes, dim=-1))
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    o, _ = naive_recurrent_gated_delta_rule(q, k, v, mixer.beta(x).sigmoid(), mixer.log_decay(x))
    expected = mixer.out(mixer.norm(o).flatten(2) * F.silu(mixer.gate(x)))
    assert_close("y", expected, mixer(x)[0], 1e-4)
