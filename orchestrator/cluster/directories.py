"""Where the checkpoints of a trial lie, and those that it starts from.

A trial that went on from another's checkpoint does so in a directory of its own: what it had trained before must not
be taken up again.
"""

from __future__ import annotations

from pathlib import Path

from orchestrator.cluster.messages import Parent
from orchestrator.ports import TrialStore
from orchestrator.records import Perturbation, Trial
from orchestrator.settings import Settings
from workloads import checkpoint_files
from workloads.errors import CheckpointError


class Directories:
    """Of the trials of one installation."""

    def __init__(self, settings: Settings, rows: TrialStore) -> None:
        self._settings, self._rows = settings, rows

    def of(self, trial: Trial) -> Path:
        """Everything of a trial."""
        return self._settings.trial_directory(trial.sweep_id, trial.id)

    def checkpoints(self, trial: Trial) -> Path:
        """Where it writes its checkpoints now."""
        if not trial.perturbations:
            return self.of(trial) / "checkpoints"
        return self.of(trial) / f"checkpoints-{trial.perturbations[-1].attempt}"

    def parent(self, trial: Trial) -> Parent | None:
        """What the trial starts from while it has no checkpoint there."""
        if trial.perturbations:
            last = trial.perturbations[-1]
            return Parent(
                trial_id=last.parent_trial_id, step=last.parent_step, checkpoints=str(self._lent(trial, last))
            )
        if trial.parent_trial_id is None or trial.parent_step is None:
            return None
        parent = self._rows.trial(trial.parent_trial_id)
        own = parent.checkpoint_path or str(self.checkpoints(parent))
        return Parent(trial_id=parent.id, step=trial.parent_step, checkpoints=own)

    def keep(self, trial: Trial, step: int) -> Path | None:
        """Its checkpoint of that step, under a name that stays; None where it has none."""
        try:
            return checkpoint_files.keep(self.checkpoints(trial), step)
        except CheckpointError:
            return None

    def kept(self, trial: Trial, step: int) -> Path | None:
        """What `keep` kept of that step, if it did."""
        return next(iter(self.checkpoints(trial).glob(f"kept-{step:09d}-*.ckpt")), None)

    def lend(self, path: Path, trial: Trial, perturbation: Perturbation) -> None:
        """Put a checkpoint where `trial` finds it after this perturbation, whatever becomes of its owner."""
        checkpoint_files.lend(path, self._lent(trial, perturbation))

    def _lent(self, trial: Trial, perturbation: Perturbation) -> Path:
        return self.of(trial) / f"start-{perturbation.attempt}"
