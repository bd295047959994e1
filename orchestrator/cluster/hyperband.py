"""Hyperband (Li et al. 2018, arXiv:1603.06560): Optuna's, as a scheduler.

Optuna's form is asynchronous: each bracket decides on a trial as its report comes in. Ray Tune's own HyperBandScheduler
holds trials at a rung until their bracket is full, so warm groups would stand idle and every trial of a bracket would
have to be started at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.pruners import HyperbandPruner
from ray.tune.schedulers import FIFOScheduler

from orchestrator.cluster.messages import STEP
from orchestrator.spec.model import EarlyTerminate
from orchestrator.spec.options import stopping_options


class Brackets(HyperbandPruner):
    """Optuna's pruner; a trial's bracket hangs on its place among the sweep's configurations.

    A resumed driver's study numbers its trials differently, and they must stay in their brackets.
    """

    def __init__(self, rule: EarlyTerminate, *, max_steps: int, place: Callable[[int], int]) -> None:
        """place: of a trial of the study, by its number there."""
        super().__init__(
            min_resource=rule.grace_steps,
            max_resource=max_steps,
            reduction_factor=int(rule.reduction_factor),
            **stopping_options("hyperband", rule.options),
        )
        self.place = place

    def bracket(self, study: optuna.Study, number: int) -> int:
        """Bracket of a trial; those of bracket b meet their first rung at grace_steps * reduction_factor ** b."""
        return int(self._get_bracket_id(study, SimpleNamespace(number=number)))

    def _get_bracket_id(self, study: Any, trial: Any) -> int:
        return int(super()._get_bracket_id(study, SimpleNamespace(number=self.place(trial.number))))


class Hyperband(FIFOScheduler):
    """Asks Optuna's pruner on every report. Trials are those of a study, which a sampler may share."""

    def __init__(
        self,
        study: optuna.Study,
        pruner: Brackets,
        *,
        metric: str,
        known: Mapping[str, optuna.Trial] | None = None,
    ) -> None:
        """known: the study's trials by name, where somebody else asks for them; left out, each is asked for here."""
        super().__init__()
        self._study, self.pruner, self._metric = study, pruner, metric
        self._shared, self._own = known, dict[str, optuna.Trial]()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Its bracket is settled now."""
        if self._shared is None and trial.trial_id not in self._own:
            self._own[trial.trial_id] = self._study.ask()

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """STOP where the pruner says so."""
        told = (self._own if self._shared is None else self._shared).get(trial.trial_id)
        if told is None:
            return str(self.CONTINUE)
        told.report(result[self._metric], result[STEP])
        return str(self.STOP if told.should_prune() else self.CONTINUE)

    def explain(self, trial_id: str, step: int, value: float) -> str:
        """Names the bracket."""
        told = (self._own if self._shared is None else self._shared)[trial_id]
        bracket = self.pruner.bracket(self._study, told.number)
        return (
            f"stopped by Hyperband at step {step}: {self._metric} {value:.4g} is not in the best "
            f"1/{self.pruner._reduction_factor} at a rung of bracket {bracket}"
        )


def hyperband(rule: EarlyTerminate, *, name: str, metric: str, goal: str, max_steps: int) -> Hyperband:
    """The scheduler by itself. name: of the sweep; brackets are drawn with it."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = Brackets(rule, max_steps=max_steps, place=lambda number: number)
    return Hyperband(optuna.create_study(study_name=name, direction=goal, pruner=pruner), pruner, metric=metric)
