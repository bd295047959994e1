"""A seed race as proposals: further seeds for the configurations that a paired test cannot tell from the best."""

from __future__ import annotations

import logging

from orchestrator.ports import Clock, TrialStore
from orchestrator.racing import next_rung
from orchestrator.records import NewTrial, Sweep, Trial
from orchestrator.spec.operations import Seeds

LOG = logging.getLogger(__name__)


class Race:
    """Looks at SQL whenever it is asked: a new driver goes on where the last one was."""

    def __init__(self, sweep: Sweep, rows: TrialStore, clock: Clock) -> None:
        self._sweep, self._rows, self._clock = sweep, rows, clock
        self._seeds = Seeds.model_validate(sweep.spec["seeds"])
        self._next = self._look()

    @property
    def left(self) -> int:
        """Trials that may yet be proposed at the next rung; at least one while the race is open."""
        return 0 if self._next is None else max(1, len(self._next[1]))

    def propose(self) -> list[Trial]:
        """The next seed for each that is still in the race; none while a rung is being run."""
        if self._next is None or not self._next[1]:
            return []
        rung, names = self._next
        known = self._rows.trials(self._sweep.id)
        first = max(trial.number for trial in known) + 1
        made = self._rows.add_trials(
            self._sweep.id,
            [_again(known, name, self._seeds.numbers[rung], first + index) for index, name in enumerate(names)],
            now=self._clock.now(),
        )
        LOG.info("race: seed %d for %d configurations", self._seeds.numbers[rung], len(made))
        self._next = self._look()
        return made

    def finished(self, trial: Trial) -> None:
        """A trial has ended."""
        self._next = self._look()

    def _look(self) -> tuple[int, tuple[str, ...]] | None:
        trials = self._rows.trials(self._sweep.id)
        return next_rung(self._seeds, trials, maximize=self._sweep.goal == "maximize")


def race_of(sweep: Sweep, rows: TrialStore, clock: Clock) -> Race | None:
    """The race of a sweep whose seeds are rungs; None for others."""
    seeds = sweep.spec.get("seeds")
    if not isinstance(seeds, dict) or seeds.get("policy") != "race":
        return None
    return Race(sweep, rows, clock)


def _again(known: list[Trial], config_hash: str, seed: int, number: int) -> NewTrial:
    """Another trial of a configuration."""
    like = next(trial for trial in known if trial.config_hash == config_hash)
    return NewTrial(number=number, config=like.config, config_hash=config_hash, seed=seed, params=like.params)
