"""SQL of what a population changed in its trials."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import sqlalchemy as sa

from orchestrator.records import Perturbation
from orchestrator.store import schema as t


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


def load_perturbations(connection: sa.Connection, ids: sa.Select[tuple[int]]) -> Mapping[int, tuple[Perturbation, ...]]:
    """By trial that the subquery selects, in order; trials without any are left out."""
    c = t.perturbation.c
    query = sa.select(t.perturbation).where(c.trial_id.in_(ids)).order_by(c.trial_id, c.attempt)
    found: dict[int, list[Perturbation]] = defaultdict(list)
    for row in connection.execute(query):
        perturbation = Perturbation(
            attempt=row.attempt,
            step=row.step,
            parent_trial_id=row.parent_trial_id,
            parent_step=row.parent_step,
            changed={name: (before, after) for name, (before, after) in row.changed.items()},
        )
        found[row.trial_id].append(perturbation)
    return {trial_id: tuple(each) for trial_id, each in found.items()}
