"""Use case: hold the record against itself and against the trials' checkpoints, and put right what can be.

A checkpoint carries the rows of its trial up to its step, so a record that lost some (a backup was put back) gets them
again; and what is derived from the curves (summaries, scores, and with them the leaderboard) is worked out anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.lifecycle import TrialState
from orchestrator.ports import Clock, RepairStore, SweepStore, TrialStore
from orchestrator.records import Report, Trial

Row = Mapping[str, float]
History = Callable[[Path], Sequence[Row]]
"""The rows in the newest whole checkpoint of a directory, each with its `step`; none where there is no such file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that was wrong. mended: it is right now."""

    sweep_id: int
    trial_id: int
    what: str
    mended: bool = False


class Repair:
    """directory: where a trial writes its checkpoints now. check: only look."""

    def __init__(
        self,
        sweeps: SweepStore,
        trials: TrialStore,
        derived: RepairStore,
        *,
        history: History,
        directory: Callable[[Trial], Path],
        clock: Clock,
        user: str,
        check: bool,
    ) -> None:
        self._sweeps, self._trials, self._derived = sweeps, trials, derived
        self._history, self._directory, self._clock = history, directory, clock
        self._user, self._check = user, check

    def sweep(self, sweep_id: int) -> Iterator[Finding]:
        """All that is found in one sweep, trial by trial."""
        for trial in self._trials.trials(sweep_id):
            # One that runs has written its checkpoint before it reports the row
            if trial.shared_from is None and trial.state is not TrialState.RUNNING:
                yield from self._against_checkpoints(trial)
            yield from self._against_points(trial)
        left_open = [trial_id for sweep, trial_id in self._derived.left_open() if sweep == sweep_id]
        if left_open and not self._check:
            self._derived.close(sweep_id, now=self._clock.now())
        for trial_id in left_open:
            yield self._found(sweep_id, trial_id, "it has no end, though its sweep has one")

    def _against_checkpoints(self, trial: Trial) -> Iterator[Finding]:
        directory = self._directory(trial)
        rows = self._history(directory)
        # One that was perturbed gave up the directory before, which the record names until its next checkpoint
        named = trial.checkpoint_path is not None and Path(trial.checkpoint_path).name == directory.name
        if rows and not named:
            if not self._check:
                self._trials.record([], facts={trial.id: {"checkpoint_path": str(directory)}})
            what = f"it has checkpoints in {directory}, and the record {trial.checkpoint_path or 'none'}"
            yield self._found(trial.sweep_id, trial.id, what)
        if not rows and named:
            what = f"there is no whole checkpoint in {trial.checkpoint_path}"
            yield replace(self._found(trial.sweep_id, trial.id, what), mended=False)
        yield from self._against_rows(trial, rows)

    def _against_rows(self, trial: Trial, rows: Sequence[Row]) -> Iterator[Finding]:
        since, start = _began(trial)
        curves = self._derived.curves(trial.id, since=since)
        lost: list[Report] = []
        for row in rows:
            step, lacking = int(row["step"]), {}
            if step <= start:
                continue
            for name, value in row.items():
                if name == "step" or not math.isfinite(value):
                    continue
                known = curves.get(name, {}).get(step)
                if known is None:
                    lacking[name] = float(value)
                elif known != value:
                    what = f"{name} at step {step} is {known!r}, and {value!r} in its checkpoint"
                    yield replace(self._found(trial.sweep_id, trial.id, what), mended=False)
            if lacking:
                attempt = max(trial.attempt, since, 1)
                lost.append(
                    Report(trial_id=trial.id, attempt=attempt, step=step, metrics=lacking, at=self._clock.now())
                )
        if lost:
            if not self._check:
                self._trials.record(lost)
            steps = ", ".join(str(report.step) for report in lost)
            yield self._found(trial.sweep_id, trial.id, f"rows of its checkpoint are not in the record: steps {steps}")

    def _against_points(self, trial: Trial) -> Iterator[Finding]:
        said = self._derived.wrong(trial.id)
        if said and not self._check:
            self._derived.recount(trial.id, user=self._user, now=self._clock.now())
        for what in said:
            yield self._found(trial.sweep_id, trial.id, what)

    def _found(self, sweep_id: int, trial_id: int, what: str) -> Finding:
        return Finding(sweep_id=sweep_id, trial_id=trial_id, what=what, mended=not self._check)


def _began(trial: Trial) -> tuple[int, int]:
    """(attempt, step) from which what its checkpoints tell is its own: they carry the rows of what it started from."""
    if trial.perturbations:
        last = trial.perturbations[-1]
        return last.attempt, last.parent_step
    return 0, trial.parent_step or 0
