"""A coordinator takes files for months: it knows the last of them, and not all."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import submit as module
from orchestrator.records import NewTrial
from orchestrator.store import Store, open_store
from orchestrator.submit import MOST_KEPT, MOST_TRIALS_KEPT, submit
from tests.support.builders import NOW
from tests.support.clock import FakeClock
from tests.support.launcher import FakeLauncher

TEXT = """
name: {name}
workload: {{task: {{name: adding}}, model: {{mixer: {{name: gru}}}}}}
parameters: {{training.lr: {{distribution: log_uniform_values, min: 1.0e-5, max: 1.0e-1}}}}
search: {{method: random, max_trials: {trials}}}
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path}/orch.db")
    yield opened
    opened.close()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read, with empty hands to begin with."""
    names: list[str] = []

    def read_document(text: str, file: str) -> object:
        names.append(file)
        return original(text, file)

    original = module.read_document
    monkeypatch.setattr(module, "read_document", read_document)
    monkeypatch.setattr(module, "_kept", module._Kept())
    return names


def send(store: Store, name: str, trials: int = 2) -> None:
    text = TEXT.format(name=name, trials=trials)
    submit(
        text,
        f"{name}.yaml",
        user="ada",
        store=store.sweeps,
        trials=store.trials,
        launcher=FakeLauncher(),
        clock=FakeClock(NOW),
        rerun=True,
    )


def test_a_file_that_comes_again_is_not_read_again(store: Store, read: list[str]) -> None:
    for _ in range(3):
        send(store, "a")
    assert read == ["a.yaml"]
    for number in range(MOST_KEPT):
        send(store, f"b{number}")
    read.clear()
    send(store, f"b{MOST_KEPT - 1}")
    send(store, "a")
    assert read == ["a.yaml"], "of the oldest nothing is known any more"


def test_of_large_files_fewer_are_kept(store: Store, read: list[str]) -> None:
    trials = MOST_TRIALS_KEPT // 4
    before = known_trials()
    for number in range(8):
        send(store, f"large{number}", trials)
    send(store, "huge", MOST_TRIALS_KEPT + 1)
    assert known_trials() - before == MOST_TRIALS_KEPT
    read.clear()
    send(store, "large7", trials)
    assert read == [], "one that is too large takes no other's place"


def known_trials() -> int:
    gc.collect()
    return sum(type(thing) is NewTrial for thing in gc.get_objects())
