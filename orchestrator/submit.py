"""Use case: accept a sweep file."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.errors import BadInput, Complaint, Unreachable
from orchestrator.planning import Plan, make_plan
from orchestrator.ports import Clock, Launcher, SweepStore
from orchestrator.records import Capacity, NewSweep, Sweep
from orchestrator.report import CheckDocument
from orchestrator.spec import SweepSpec, load_spec
from orchestrator.spec.document import parse_document


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a sweep file says, checked: nothing is queued yet."""

    spec: SweepSpec
    plan: Plan


def check(text: str | bytes, file: str, capacity: Capacity | None) -> Accepted:
    """All that can be wrong with a sweep file.

    Args:
        capacity: of the cluster; None where it is not known, and resources are then not checked against it.

    Raises:
        BadInput: with every complaint.
    """
    spec = load_spec(text, file)
    try:
        plan = make_plan(spec)
    except BadInput as error:
        raise BadInput(
            [Complaint(c.message, c.file or file, c.line, c.column, c.source, c.hint) for c in error.complaints]
        ) from None
    if capacity is not None:
        _check_resources(spec, capacity, text, file)
    return Accepted(spec, plan)


def check_document(accepted: Accepted) -> CheckDocument:
    """What a checked file would do."""
    spec, plan = accepted.spec, accepted.plan
    assert spec.metric is not None, "load_spec fills in the metric"
    return CheckDocument(
        name=spec.name,
        project=spec.project,
        metric=spec.metric.name,
        goal=spec.metric.goal,
        trials=len(plan.trials),
        configurations=plan.configurations,
        seeds=spec.seeds,
        warnings=plan.warnings,
    )


def submit(text: str | bytes, file: str, *, user: str, store: SweepStore, launcher: Launcher, clock: Clock) -> Sweep:
    """Check a sweep file and queue it.

    Raises:
        BadInput: the file is wrong; nothing was queued.
    """
    try:
        capacity = launcher.capacity()
    except Unreachable:
        # A cluster that is away must not keep people from queueing; the policy checks again before it starts.
        capacity = None
    accepted = check(text, file, capacity)
    spec = accepted.spec
    assert spec.metric is not None, "load_spec fills in the metric"
    new = NewSweep(
        name=spec.name,
        project=spec.project,
        spec=spec.model_dump(mode="json", exclude_unset=False),
        source=text if isinstance(text, str) else text.decode("utf-8"),
        priority=spec.priority,
        metric=spec.metric.name,
        goal=spec.metric.goal,
        user=user,
    )
    return store.add_sweep(new, accepted.plan.trials, now=clock.now())


def _check_resources(spec: SweepSpec, capacity: Capacity, text: str | bytes, file: str) -> None:
    document = parse_document(text, file)
    complaints = []
    for unit, asked, have in (
        ("gpu", spec.resources.gpu * spec.resources.workers, capacity.gpus),
        ("cpu", spec.resources.cpu * spec.resources.workers, capacity.cpus),
    ):
        if asked > have:
            message = (
                f"a trial asks for {asked:g} {unit.upper()}s ({spec.resources.workers} workers of "
                f"{getattr(spec.resources, unit):g}), but the whole cluster has {have:g}."
            )
            complaints.append(
                document.complaint(("resources", unit), message, f"Lower `resources.{unit}` or `workers`.")
            )
    if complaints:
        raise BadInput(complaints)
