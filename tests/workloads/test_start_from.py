"""A trial that starts from another's checkpoint goes on as that one would have, and differs where it is told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.workloads.test_train_resume import MOE, TIMING, bytes_trial, same
from workloads import train
from workloads.checkpoint import load
from workloads.checkpoint_files import at_step, keep, steps_in
from workloads.errors import CheckpointError, ConfigError

NOISY = {"mixer": "rg_lru", "feedforward": MOE | {"router": {"name": "noisy_topk", "k": 2}}}
CONSTANT = {"schedule": "constant", "warmup_steps": 1, "sequence_length": 32, "keep_checkpoints": 9}


def a_trial(steps: int, *, seed: int = 5, model: dict[str, Any] = NOISY, **training: Any) -> dict[str, Any]:
    return bytes_trial(model, **{**CONSTANT, "steps": steps, **training}) | {"seed": seed}


def rows(config: dict[str, Any], directory: Path, start_from: Path | None = None) -> list[dict[str, Any]]:
    return list(train(config, checkpoint_dir=directory, start_from=start_from))


def last(directory: Path) -> dict[str, Any]:
    return load(at_step(directory, steps_in(directory)[-1]))


@pytest.fixture(scope="module")
def short(tmp_path_factory) -> Path:
    """Checkpoints of a trial of six steps."""
    directory = tmp_path_factory.mktemp("short")
    rows(a_trial(6), directory)
    return directory


def test_at_a_constant_rate_more_steps_later_are_the_longer_run_bit_for_bit(short, tmp_path):
    more = rows(a_trial(12), tmp_path / "more", at_step(short, 6))
    whole = rows(a_trial(12), tmp_path / "whole")
    assert [row["step"] for row in more] == [9, 12]
    assert same(
        [{k: v for k, v in row.items() if k not in TIMING} for row in more],
        [{k: v for k, v in row.items() if k not in TIMING} for row in whole[2:]],
    )
    for part in ("model", "optimizer", "probe", "rng", "interval", "best"):
        assert same(last(tmp_path / "more")[part], last(tmp_path / "whole")[part]), part


def test_with_a_cosine_the_rates_to_come_are_those_of_the_longer_schedule(short, tmp_path):
    more = rows(a_trial(12, schedule="cosine"), tmp_path / "more", at_step(short, 6))
    whole = rows(a_trial(12, schedule="cosine"), tmp_path / "whole")
    assert [row["lr"] for row in more] == [row["lr"] for row in whole[2:]]
    assert [row["train_loss"] for row in more] != [row["train_loss"] for row in whole[2:]]


def test_children_of_one_checkpoint_share_weights_and_moments_and_differ_in_what_they_are_told(short, tmp_path):
    changed = {**NOISY, "feedforward": MOE | {"router": {"name": "noisy_topk", "k": 2, "load_weight": 0.5}}}
    children = {
        "same": a_trial(6),
        "seed": a_trial(6, seed=6),
        "option": a_trial(6, model=changed),
        "decay": a_trial(6, weight_decay=0.5),
        "averaged": a_trial(6, ema_decay=0.9),
    }
    found = {name: rows(config, tmp_path / name, at_step(short, 3))[-1] for name, config in children.items()}
    undisturbed = load(at_step(short, 6))
    assert same(last(tmp_path / "same")["model"], undisturbed["model"])
    for name in ("seed", "option", "decay"):
        assert not same(last(tmp_path / name)["model"], undisturbed["model"]), name
    assert same(last(tmp_path / "averaged")["model"], undisturbed["model"])
    assert found["averaged"]["val_bpb"] != found["same"]["val_bpb"]
    options = [group["weight_decay"] for group in last(tmp_path / "decay")["optimizer"]["param_groups"]]
    assert max(options) == 0.5


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (a_trial(6), "is of step 6, and this trial has 6 steps"),
        (a_trial(12, model={"mixer": "gru", "feedforward": MOE}), "other sizes or parts"),
        (a_trial(12, optimizer="grams"), "is of the optimiser adamw"),
        (a_trial(12) | {"task": {"name": "bytes_lm"}}, "was trained on data"),
    ],
)
def test_what_cannot_go_on_is_refused_at_the_call(short, config, says):
    with pytest.raises(CheckpointError, match=says):
        train(config, start_from=at_step(short, 6))


UPDATES = ["*.mixer.maps.*.down", "*.mixer.maps.*.up"]


def test_attention_becomes_liger_and_only_the_low_rank_updates_are_tuned_also_over_a_kill(tmp_path):
    dense = {"name": "dense", "hidden": 16}
    list(train(a_trial(6, model={"mixer": "attention", "feedforward": dense}), checkpoint_dir=tmp_path / "attention"))
    liger = {"mixer": {"name": "liger", "rank": 2, "window": 4}, "feedforward": dense}
    config = a_trial(12, model=liger, trainable=UPDATES)
    attention = at_step(tmp_path / "attention", 6)
    tuned = rows(config, tmp_path / "liger", attention)
    assert [row["step"] for row in tuned] == [9, 12]
    before, after = load(attention)["model"], last(tmp_path / "liger")["model"]
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())
    assert all(after[name].any() for name in after.keys() - before.keys())
    assert tuned[-1]["params"] == sum(after[name].numel() for name in after.keys() - before.keys())
    at_step(tmp_path / "liger", 12).unlink()
    again = list(train(config, checkpoint_dir=tmp_path / "liger", resume_from=tmp_path / "liger"))
    assert [row["step"] for row in again] == [12]
    assert same(last(tmp_path / "liger")["model"], after)


def test_a_pattern_that_no_parameter_fits_is_refused():
    with pytest.raises(ConfigError, match=r"training\.trainable\.0: no parameter of the model fits '\*\.lora'"):
        train(a_trial(6, trainable=["*.lora"]))


def test_a_kept_checkpoint_outlives_retention_and_a_missing_one_is_told_with_those_that_are_there(tmp_path):
    trial = a_trial(12, keep_checkpoints=1, eval_every=3)
    for row in train(trial, checkpoint_dir=tmp_path):
        if row["step"] == 3:
            kept = keep(tmp_path, 3)
            assert keep(tmp_path, 3) == kept
    assert at_step(tmp_path, 3) == kept
    assert load(kept)["step"] == 3
    with pytest.raises(CheckpointError, match=r"no whole checkpoint of step 7 .* steps 3, .*12"):
        at_step(tmp_path, 7)
    with pytest.raises(CheckpointError, match="those of steps none"):
        at_step(tmp_path / "nowhere", 1)
