"""A trial's configuration: complete, frozen, and wrong in words that help."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from workloads import ConfigError, TrialConfig


def problems(document: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        TrialConfig.parse(document)
    return str(caught.value).splitlines()


def test_everything_has_a_default_and_is_written_out():
    document = TrialConfig.parse({}).document()
    assert document["task"]["name"] == "bytes_lm"
    assert document["training"]["lr"] == 3e-3
    assert TrialConfig.parse(document) == TrialConfig.parse({})


def test_a_document_survives_json():
    trial = TrialConfig.parse({"model": {"mixer": ["gru", {"name": "rg_lru", "c": 4.0}], "feedforward": "moe"}})
    assert TrialConfig.parse(json.loads(json.dumps(trial.document()))) == trial


def test_a_configuration_is_frozen():
    with pytest.raises(FrozenInstanceError):
        TrialConfig.parse({}).seed = 3  # type: ignore[misc]


def test_all_problems_are_told_at_once_each_with_its_path_and_the_nearest_name():
    said = problems(
        {
            "task": "bytes_lm",
            "model": {"mixer": "grru", "feedforward": {"name": "moe", "router": {"name": "topk", "kk": 2}}},
            "training": {"lr": -1, "stepps": 10},
        }
    )
    assert len(said) == 4
    text = "\n".join(said)
    assert "model.mixer.name" in text
    assert "'gru'" in text
    assert "model.feedforward.router.kk" in text
    assert "training.lr" in text
    assert "Did you mean 'steps'?" in text


def test_options_of_a_pattern_are_reached_by_their_place():
    (said,) = problems({"model": {"mixer": ["gru", {"name": "rg_lru", "c": -1}]}})
    assert said.startswith("model.mixer.1.c")


def test_more_experts_a_token_than_there_are_is_refused_with_both_numbers():
    (said,) = problems(
        {"model": {"feedforward": {"name": "moe", "num_experts": 2, "router": {"name": "topk", "k": 3}}}}
    )
    assert "3" in said
    assert "2" in said
