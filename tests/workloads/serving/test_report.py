"""`python -m workloads.serving CHECKPOINT`: the tools around a trained mixture, on the checkpoint of a real trial."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from workloads import train
from workloads.serving.__main__ import main
from workloads.serving.report import report
from workloads.trained import Trained, trained

E = 4


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text("".join(f"{n} times {n % 7} is {n * (n % 7)}; " for n in range(90)))
    return path


def a_trial(corpus: Path, directory: Path, steps: int = 4, layers: int = 1, **router: object) -> Trained:
    feedforward = {"name": "moe", "num_experts": E, "expert_hidden": 8, "router": {"name": "topk", **router}}
    config = {
        "task": {"name": "bytes_lm", "corpus": str(corpus)},
        "model": {"d_model": 16, "n_layers": layers, "mixer": "mingru", "feedforward": feedforward},
        "training": {"steps": steps, "batch_size": 4, "sequence_length": 16, "eval_every": steps, "extrapolate": [],
                     "figures": False, "ema_decay": 0.5},
    }  # fmt: skip
    rows = list(train(config, checkpoint_dir=directory))
    subject = trained(directory)
    assert subject.step == steps
    assert report(subject).value == pytest.approx(rows[-1]["val_bpb"], rel=1e-6), "averaged weights and all"
    return subject


@pytest.fixture(scope="module")
def subject(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return a_trial(corpus, tmp_path_factory.mktemp("checkpoints"), k=1)


def test_buffers_hit_at_most_as_often_as_the_best_and_all_policies_agree_where_all_fit(subject):
    (layer,) = report(subject, slots=[2, E]).layers
    small, all_fit = layer.buffered
    assert small.hit_rate <= small.best
    assert small.bytes_a_pass > all_fit.bytes_a_pass
    assert small.hit_rate < all_fit.hit_rate == pytest.approx(all_fit.best) == pytest.approx(all_fit.lru)


def test_a_gate_below_fills_the_buffer_before_the_turn_of_the_layer_above(corpus, tmp_path):
    subject = a_trial(corpus, tmp_path, layers=2, name="pre_gated", k=1)
    token_by_token = replace(subject.trial, training=replace(subject.trial.training, batch_size=1, sequence_length=1))
    found = report(replace(subject, trial=token_by_token), slots=[1])
    (first,), (second,) = (layer.buffered for layer in found.layers)
    assert first.ahead == 0 < second.ahead
    assert first.hit_rate < 1 == second.hit_rate


def test_loads_and_shares_add_up(subject):
    (layer,) = report(subject, devices=[2, 3, E]).layers
    assert sum(layer.loads) == pytest.approx(E)
    assert layer.waste >= 1
    assert [each.devices for each in layer.placed] == [2, E], "3 does not divide 4"
    two, one_each = layer.placed
    assert 0.5 <= min(two.in_order, two.greedy, two.anticorrelated) <= 1
    assert one_each.in_order == pytest.approx(one_each.greedy)


def test_pruning_nothing_costs_nothing_and_pruning_all_but_one_costs_something(subject):
    whole, one = (report(subject, keep=count) for count in (E, 1))
    assert {(each.by, each.mode) for each in whole.prunings} == {
        (by, mode) for by in ("norm", "load") for mode in ("skip", "reroute")
    }
    for each in whole.prunings:
        assert each.metric == pytest.approx(whole.value, rel=1e-6)
        assert each.rare == pytest.approx(whole.rare, rel=1e-6)
    assert all(each.metric != pytest.approx(one.value, rel=1e-6) for each in one.prunings)


@pytest.mark.parametrize("router", ["sparsemixer", "hypermoe", "token_fusion"])
def test_what_a_router_does_to_the_output_outlives_pruning(router, corpus, tmp_path):
    found = report(a_trial(corpus, tmp_path, name=router), keep=E)
    assert [each.mode for each in found.prunings] == ([] if router == "token_fusion" else ["skip", "skip"])
    for each in found.prunings:
        assert each.metric == pytest.approx(found.value, rel=1e-6)


def test_the_command_measures_against_the_model_before_fine_tuning(subject, corpus, tmp_path, capsys):
    later = a_trial(corpus, tmp_path, steps=8, k=1)
    assert main([str(tmp_path), "--before", str(subject.path), "--slots", "2", "--batch-size", "2"]) == 0
    text = capsys.readouterr().out
    assert str(later.path) in text
    assert "buffer of 2" in text
    assert "hit rate" in text
    assert "to 3 by norm change, reroute: val_bpb" in text


def test_a_dense_model_and_a_missing_checkpoint_are_told(corpus, tmp_path, capsys):
    config = {
        "task": {"name": "bytes_lm", "corpus": str(corpus)},
        "model": {"d_model": 8, "n_layers": 1, "mixer": "mingru"},
        "training": {"steps": 1, "batch_size": 2, "sequence_length": 16, "extrapolate": [], "figures": False},
    }
    list(train(config, checkpoint_dir=tmp_path / "dense"))
    assert main([str(tmp_path / "dense")]) == 2
    assert "holds no mixture of experts" in capsys.readouterr().err
    assert main([str(tmp_path / "missing")]) == 2
    assert "is missing" in capsys.readouterr().err
