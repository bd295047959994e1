"""`start_from: best of SWEEP`: the checkpoint that every trial of a sweep starts from."""

from __future__ import annotations

import logging
from statistics import fmean

from orchestrator.lifecycle import TrialState
from orchestrator.ports import SweepStore, TrialStore
from orchestrator.records import Sweep, Trial
from orchestrator.spec.operations import best_of
from workloads.checkpoint_files import keep, steps_in
from workloads.errors import CheckpointError

LOG = logging.getLogger(__name__)


class Origin:
    """Writes down with each trial what it starts from.

    Raises:
        CheckpointError: when it is made, if there is nothing to start from.
    """

    def __init__(self, sweep: Sweep, sweeps: SweepStore, rows: TrialStore) -> None:
        self._rows = rows
        reference = sweep.spec.get("start_from")
        self._found = _best_of(sweeps.sweep(int(best_of(reference))), rows) if reference else None

    def adopt(self, trial: Trial) -> Trial:
        """The trial with its parent; as it is where it has one already, or the sweep starts from nothing."""
        if self._found is None or trial.parent_trial_id is not None:
            return trial
        parent, step = self._found
        return self._rows.adopt_trial(trial.id, parent_trial_id=parent.id, parent_step=step)


def _best_of(other: Sweep, rows: TrialStore) -> tuple[Trial, int]:
    """The best trial of the best configuration, so that no lucky seed is taken for a good configuration."""
    groups: dict[str, list[Trial]] = {}
    for trial in rows.trials(other.id):
        if trial.state in (TrialState.SUCCEEDED, TrialState.STOPPED) and trial.score is not None:
            groups.setdefault(trial.config_hash, []).append(trial)
    if not groups:
        raise CheckpointError(f"sweep {other.id} ({other.name}) has no trial with a result to start from.")
    sign = -1.0 if other.goal == "maximize" else 1.0
    group = min(groups.values(), key=lambda group: sign * fmean(trial.score or 0.0 for trial in group))
    best = min(group, key=lambda trial: sign * (trial.score or 0.0))
    there = steps_in(best.checkpoint_path) if best.checkpoint_path else []
    if not there:
        raise CheckpointError(f"trial {best.id}, the best of sweep {other.id} ({other.name}), has no checkpoint.")
    wants_best = (other.spec.get("metric") or {}).get("aggregate") == "best"
    step = best.best_step if wants_best and best.best_step in there else there[-1]
    assert step is not None, "a step that is there"
    keep(best.checkpoint_path or "", step)
    LOG.info("trials start from trial %d at step %d, the best of sweep %d", best.id, step, other.id)
    return best, step
