"""The model around the slots: readouts, patterns, carried state, shared weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from workloads import ConfigError, build_model, seeding
from workloads.config import ModelConfig
from workloads.shell import SequenceModel, count_parameters
from workloads.slots import LayerContext
from workloads.tasks.base import Readout, Signature

B, T, D = 2, 12, 16


def a_model(signature: Signature | None = None, **model: Any) -> SequenceModel:
    seeding.seed_everything(0)
    signature = signature or Signature(vocab_size=11, outputs=7, sequence_length=T)
    return SequenceModel(ModelConfig(d_model=D, **model), signature)


def tokens() -> torch.Tensor:
    return torch.randint(11, (B, T), generator=seeding.torch_generator(0))


@pytest.mark.parametrize(("readout", "shape"), [("position", (B, T, 3)), ("last", (B, 3)), ("mean", (B, 3))])
def test_outputs_have_the_shape_of_the_readout(readout: Readout, shape: tuple[int, ...]):
    model = a_model(Signature(input_width=5, outputs=3, sequence_length=T, readout=readout))
    assert model(torch.randn(B, T, 5)).logits.shape == shape


def test_patterns_of_mixers_and_feedforwards_repeat_over_the_depth():
    model = a_model(n_layers=4, mixer=["gru", "rg_lru", "attention"], feedforward=["dense", "moe"])
    assert [type(block.mixer).__name__ for block in model.blocks] == ["GRU", "RGLRU", "Attention", "GRU"]
    assert [type(block.feedforward).__name__ for block in model.blocks] == ["Dense", "MoE", "Dense", "MoE"]


def test_a_sequence_in_two_halves_gives_what_it_gives_whole():
    model, ids = a_model(n_layers=3, mixer=["gru", "rg_lru", "attention"]).eval(), tokens()
    whole = model(ids)
    first = model(ids[:, :5])
    second = model(ids[:, 5:], first.state)
    # float32; the recurrences start their sums anew in the second half
    torch.testing.assert_close(torch.cat([first.logits, second.logits], 1), whole.logits, rtol=1e-4, atol=1e-5)


def test_a_position_does_not_see_later_ones():
    model, ids = a_model(mixer=["gru", "attention"]).eval(), tokens()
    changed = ids.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % 11
    assert torch.equal(model(ids).logits[:, :6], model(changed).logits[:, :6])
    assert not torch.equal(model(ids).logits[:, 6:], model(changed).logits[:, 6:])


def test_tied_embeddings_are_one_matrix():
    signature = Signature(vocab_size=11, outputs=11, sequence_length=T)
    tied, apart = (a_model(signature, tie_embeddings=tie) for tie in (True, False))
    assert tied.head.weight is tied.embed.weight
    assert count_parameters(apart) - count_parameters(tied) == 11 * D


@pytest.mark.parametrize("signature", [
    Signature(vocab_size=11, outputs=7, sequence_length=T), Signature(input_width=5, outputs=5, sequence_length=T)
], ids=["other classes", "real inputs"])  # fmt: skip
def test_embeddings_that_cannot_be_tied_are_refused(signature: Signature):
    with pytest.raises(ConfigError, match=r"model\.tie_embeddings"):
        a_model(signature, tie_embeddings=True)


def test_auxiliary_losses_and_statistics_come_out_by_layer():
    model = a_model(n_layers=2, feedforward="moe")
    context = LayerContext(health=True)
    output = model(tokens(), context=context)
    assert set(output.losses) == {"0/balance", "1/balance"}
    assert {"0/cv", "1/cv"} <= output.stats.keys()
    assert set(context.routings) == {0, 1}
    assert model(tokens()).stats.keys().isdisjoint({"0/cv", "1/cv"}), "an unwatched pass works out no health columns"


def test_a_scalar_input_reaches_the_mixer_with_its_size():
    model = a_model(Signature(input_width=1, outputs=1, sequence_length=T, readout="last")).eval()
    outputs = [model(torch.full((1, T, 1), value)).logits.item() for value in (0.2, 0.4, 0.8)]
    assert len(set(outputs)) == 3


def test_a_model_is_built_from_a_plain_configuration():
    model = build_model({"model": {"d_model": D, "n_layers": 1}, "training": {"sequence_length": T}})
    assert model(torch.randint(256, (1, T))).logits.shape == (1, T, 256)
