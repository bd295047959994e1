"""SQL of what a population changed in its trials."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from orchestrator.records import Perturbation
from orchestrator.store import schema as t
from orchestrator.store.database import AnyRow


def insert_perturbation(connection: sa.Connection, trial_id: int, perturbation: Perturbation) -> None:
    """Append to the trial's."""
    row = {
        "trial_id": trial_id,
        "attempt": perturbation.attempt,
        "step": perturbation.step,
        "parent_trial_id": perturbation.parent_trial_id,
        "parent_step": perturbation.parent_step,
        "changed": {name: list(pair) for name, pair in perturbation.changed.items()},
    }
    connection.execute(sa.insert(t.perturbation), row)


def perturbations_of(ids: sa.Select[tuple[int]]) -> sa.Select[Any]:
    """Those of the trials that a subquery selects."""
    c = t.perturbation.c
    return sa.select(t.perturbation).where(c.trial_id.in_(ids)).order_by(c.trial_id, c.attempt)


def by_trial(rows: Iterable[AnyRow]) -> Mapping[int, tuple[Perturbation, ...]]:
    """In order; trials without any are left out."""
    found: dict[int, list[Perturbation]] = defaultdict(list)
    for row in rows:
        perturbation = Perturbation(
            attempt=row.attempt,
            step=row.step,
            parent_trial_id=row.parent_trial_id,
            parent_step=row.parent_step,
            changed={name: (before, after) for name, (before, after) in row.changed.items()},
        )
        found[row.trial_id].append(perturbation)
    return {trial_id: tuple(each) for trial_id, each in found.items()}
