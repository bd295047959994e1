"""Sweeps that wait for others, and hypotheses that are sealed: from submission to the coordinator's decision."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from orchestrator import report
from orchestrator.control import retry
from orchestrator.coordinator import Coordinator
from orchestrator.errors import BadInput
from orchestrator.lifecycle import Actor, SweepState
from orchestrator.sealing import seal_of
from orchestrator.store import open_store
from orchestrator.submit import submit
from tests.support.clock import FakeClock
from tests.support.launcher import FakeLauncher

S = SweepState


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path}/orch.db")
    yield opened
    opened.close()


@pytest.fixture
def coordinator(store, clock):
    return Coordinator(store.sweeps, store.ledger, FakeLauncher(cpus=8), clock)


@pytest.fixture
def queue(store, clock):
    def add(name: str, words: str = ""):
        text = f"name: {name}\n{words}\n"
        return submit(
            text, "f.yaml", user="u", store=store.sweeps, trials=store.trials, launcher=FakeLauncher(), clock=clock
        ).sweep

    return add


def end(store, sweep, *states: SweepState) -> None:
    for state in states:
        sweep = store.sweeps.move_sweep(
            store.sweeps.sweep(sweep.id), state, actor=Actor.COORDINATOR, reason="", now=FakeClock().now()
        )


def tick(coordinator, times: int = 1) -> None:
    for _ in range(times):
        coordinator.clock.advance(seconds=10)
        coordinator.tick()


def test_a_sweep_waits_until_those_it_depends_on_have_succeeded(coordinator, store, queue):
    first, second = queue("first"), queue("second")
    third = queue("third", f"depends_on: [first, {second.id}]")
    assert third.depends_on == (first.id, second.id)
    tick(coordinator, 2)
    waiting = store.sweeps.sweep(third.id)
    assert waiting.state is S.QUEUED
    assert waiting.reason == f"waits for sweep {first.id} (first), which is starting, {second.id} (second), " + (
        "which is starting"
    )
    end(store, first, S.RUNNING, S.SUCCEEDED)
    tick(coordinator, 1)
    assert store.sweeps.sweep(third.id).reason.startswith(f"waits for sweep {second.id} (second)")
    end(store, second, S.SUCCEEDED)
    tick(coordinator, 1)
    assert store.sweeps.sweep(third.id).state is S.STARTING


@pytest.mark.parametrize("how", [S.FAILED, S.CANCELLED])
def test_a_sweep_fails_with_what_it_depends_on_and_may_be_retried_after_it(coordinator, store, queue, how, clock):
    first = queue("first")
    second = queue("second", "depends_on: first")
    tick(coordinator)
    end(store, first, how)
    tick(coordinator)
    failed = store.sweeps.sweep(second.id)
    assert (failed.state, failed.reason) == (S.FAILED, f"sweep {first.id} (first), on which it depends, is {how}")
    retry("first", user="u", store=store.sweeps, clock=clock)
    retry("second", user="u", store=store.sweeps, clock=clock)
    tick(coordinator)
    assert (store.sweeps.sweep(first.id).state, store.sweeps.sweep(second.id).state) == (S.STARTING, S.QUEUED)


def test_only_sweeps_that_are_there_and_may_succeed_can_be_named(store, queue):
    first = queue("first")
    with pytest.raises(BadInput) as caught:
        queue("second", "depends_on: [firts, second]")
    near, itself = caught.value.complaints
    assert (near.line, near.column, itself.column) == (2, 14, 21)
    assert "'firts'" in near.message
    assert "first" in near.hint
    end(store, first, S.CANCELLED)
    with pytest.raises(BadInput, match=r"is cancelled[\s\S]*orch retry"):
        queue("third", "start_from: best of first")


def test_the_sweep_to_start_from_is_one_to_wait_for(store, queue):
    first = queue("first")
    second = queue("second", "start_from: best of first")
    assert (second.depends_on, second.spec["start_from"]) == ((first.id,), f"best of {first.id}")


HYPOTHESIS = "hypothesis: {claim: a larger rate is better, comparison: 0.1 < 0.01, alpha: 0.01}"


def test_a_hypothesis_is_sealed_at_submission(store, queue, clock):
    at = clock.now()
    sweep = queue("claim", HYPOTHESIS)
    clock.advance(hours=1)
    document = report.sweep_document(sweep, [], 0, store.sweeps.events(sweep_id=sweep.id, limit=1)).hypothesis
    assert document is not None
    assert (document.claim, document.metric, document.alpha) == ("a larger rate is better", "val_bpb", 0.01)
    assert (document.sealed_at, document.sha256) == (at.isoformat(), seal_of(sweep.spec, "claim", at))
    assert document.intact


def test_a_claim_that_was_changed_afterwards_shows(store, queue):
    sweep = queue("claim", HYPOTHESIS)
    events = store.sweeps.events(sweep_id=sweep.id, limit=1)
    claim = sweep.spec["hypothesis"] | {"claim": "a smaller rate is better"}
    changed = dataclasses.replace(sweep, spec=sweep.spec | {"hypothesis": claim})
    assert not report.sweep_document(changed, [], 0, events).hypothesis.intact
    later = [dataclasses.replace(events[0], at=events[0].at - timedelta(days=1))]
    assert not report.sweep_document(sweep, [], 0, later).hypothesis.intact


def test_without_a_claim_nothing_is_sealed(store, queue):
    sweep = queue("plain")
    assert report.sweep_document(sweep, [], 0, store.sweeps.events(sweep_id=sweep.id, limit=1)).hypothesis is None
