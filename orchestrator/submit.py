"""Use case: accept a sweep file."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from orchestrator.errors import BadInput, Unreachable
from orchestrator.forecast import Forecast
from orchestrator.identity import identity_of
from orchestrator.matching import Sizer
from orchestrator.places import lacking, pools_of
from orchestrator.planning import Plan, as_scalar, make_plan
from orchestrator.ports import Clock, Pool, SweepStore, TrialStore
from orchestrator.records import Capacity, NewSweep, NewTrial, Once, Recorded
from orchestrator.report import PlanDocument, PlannedTrial
from orchestrator.requisites import by_number
from orchestrator.spec import SweepSpec
from orchestrator.spec.document import Document
from orchestrator.spec.load import check_document, read_document
from orchestrator.spec.model import Parameter
from orchestrator.spec.operations import has_its_own
from workloads.version import code_version

SHOWN_TRIALS = 12


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a sweep file says, checked: nothing is queued yet."""

    spec: SweepSpec
    plan: Plan


MOST_KEPT = 32
MOST_TRIALS_KEPT = 1000
"""In all kept files together."""
MOST_CHARACTERS_KEPT = 1_000_000
"""Likewise: a file's words and their places take 50 bytes a character."""


class _Kept:
    """Files that were checked lately, by their words: a file is often sent again, and by many at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[tuple[str, str], tuple[Document, Accepted]] = OrderedDict()
        self._turns: dict[tuple[str, str], threading.Lock] = {}

    def read(self, text: str, file: str, sizer: Sizer | None) -> tuple[Document, Accepted]:
        """A file, checked against everything but the cluster. Raises BadInput."""
        key = text, file
        with self._lock:
            if key in self._files:
                self._files.move_to_end(key)
                return self._files[key]
            turn = self._turns.setdefault(key, threading.Lock())
        try:
            with turn:
                # Of those who bring it at the same time, the first one checks it
                return self._files.get(key) or self._check(key, sizer)
        finally:
            with self._lock:
                self._turns.pop(key, None)

    def _check(self, key: tuple[str, str], sizer: Sizer | None) -> tuple[Document, Accepted]:
        document = read_document(*key)
        accepted = check(document, None, sizer)
        if len(accepted.plan.trials) <= MOST_TRIALS_KEPT and len(key[0]) <= MOST_CHARACTERS_KEPT:
            with self._lock:
                self._files[key] = document, accepted
                while self._too_much():
                    self._files.popitem(last=False)
        return document, accepted

    def _too_much(self) -> bool:
        trials = sum(len(accepted.plan.trials) for _, accepted in self._files.values())
        characters = sum(len(text) for text, _ in self._files)
        return len(self._files) > MOST_KEPT or trials > MOST_TRIALS_KEPT or characters > MOST_CHARACTERS_KEPT


_kept = _Kept()


def check(document: Document, capacity: Capacity | None, sizer: Sizer | None) -> Accepted:
    """All that can be wrong with a sweep file.

    Args:
        document: the file's text with positions, its bases merged in.
        sizer: works out sizes, for `match`; a file that has it cannot be checked without.
        capacity: of the cluster; None where it is not known, and resources are then not checked against it.

    Raises:
        BadInput: with every complaint.
    """
    spec = check_document(document)
    try:
        plan = make_plan(spec, sizer)
    except BadInput as error:
        raise BadInput([replace(complaint, file=document.file) for complaint in error.complaints]) from None
    if capacity is not None:
        _check_resources(spec, capacity, document)
    return Accepted(spec, plan)


def with_identities(
    trials: Sequence[NewTrial], store: TrialStore, sizer: Sizer | None, project: str
) -> tuple[list[NewTrial], int]:
    """The trials, those that may have a result in the project already with their identity; and how many have one.

    What a trial's data are takes a process with torch to tell, which is asked only where a configuration has run.
    """
    hashes = sorted({trial.config_hash for trial in trials})
    known = store.results(hashes, project=project) if sizer is not None else {}
    if not known or sizer is None:
        return list(trials), 0
    code = code_version()
    found = []
    for trial in trials:
        try:
            checksum = sizer.data_checksum(trial.config)
        except BadInput:
            found.append(trial)
            continue
        parent = None
        if trial.parent_trial_id is not None and trial.parent_step is not None:
            origin = store.trial(trial.parent_trial_id).identity
            if origin is None:
                found.append(trial)
                continue
            parent = (origin, trial.parent_step)
        identity = identity_of(trial.config_hash, trial.seed, code=code, data_checksum=checksum, parent=parent)
        found.append(replace(trial, identity=identity))
    return found, sum(each.identity in known for each in found)


def plan_document(accepted: Accepted, shared: int = 0, forecast: Forecast | None = None) -> PlanDocument:
    """What a checked file would do. shared: trials of it that have a result already."""
    told = forecast or Forecast()
    spec, plan = accepted.spec, accepted.plan
    assert spec.metric is not None, "load_spec fills in the metric"
    return PlanDocument(
        name=spec.name,
        project=spec.project,
        metric=spec.metric.name,
        goal=spec.metric.goal,
        trials=len(plan.trials),
        proposed=plan.proposed,
        configurations=plan.configurations,
        shared=shared,
        seeds=spec.seeds.numbers,
        axes={name: _axis(parameter) for name, parameter in spec.parameters.items()},
        first=[
            PlannedTrial(number=trial.number, params=dict(trial.params), seed=trial.seed)
            for trial in plan.trials[:SHOWN_TRIALS]
        ],
        sizes=list(told.sizes),
        estimate=told.time,
        replay=told.replayed,
        warnings=plan.warnings,
    )


def submit(
    text: str | bytes,
    file: str,
    *,
    user: str,
    store: SweepStore,
    trials: TrialStore,
    launcher: Pool,
    clock: Clock,
    sizer: Sizer | None = None,
    rerun: bool = False,
    once: Once | None = None,
    allow: Callable[[str], object] = str,
    project: str | None = None,
    has_package: Callable[[str], bool] = lambda name: False,
) -> Recorded:
    """Check a sweep file and queue it. Trials that have a result already get it, unless `rerun` says otherwise.

    Args:
        once: submitting again under its key gives the sweep that is there.
        project: to which the submitter is bound, and whose sweeps alone the file may name; None for any.
        has_package: whether the code package of this name has come.
        allow: asked with the file's project; raises Forbidden where the submitter may not.

    Raises:
        BadInput: the file is wrong; nothing was queued.
        Conflict: the key of `once` came with another file before.
    """
    try:
        capacity = launcher.capacity()
    except Unreachable:
        # A cluster that is away must not keep people from queueing; the policy checks again before it starts.
        capacity = None
    text = text if isinstance(text, str) else text.decode("utf-8")
    document, accepted = _kept.read(text, file, sizer)
    spec = accepted.spec
    if capacity is not None:
        _check_resources(spec, capacity, document)
    if spec.code is not None and not has_package(spec.code.package or ""):
        message = "the sweep's code has not come here: `orch submit` brings it along with the file."
        raise BadInput([document.complaint(("code",), message)])
    allow(spec.project)
    assert spec.metric is not None, "load_spec fills in the metric"
    words = spec.model_dump(mode="json", exclude_unset=False) | by_number(spec, document, store, project=project)
    if spec.hypothesis is not None:
        words["hypothesis"]["metric"] = spec.hypothesis.metric or spec.metric.name
    new = NewSweep(
        name=spec.name,
        project=spec.project,
        spec=words,
        source=text,
        priority=spec.priority,
        metric=spec.metric.name,
        goal=spec.metric.goal,
        user=user,
    )
    # What starts from another's checkpoint is not what started from nothing; nor is what other code trains
    anew = rerun or spec.start_from is not None or has_its_own(words)
    planned: Sequence[NewTrial] = accepted.plan.trials
    if not anew:
        planned = with_identities(planned, trials, sizer, spec.project)[0]
    return store.record(new, planned, now=clock.now(), once=once)


def _check_resources(spec: SweepSpec, capacity: Capacity, document: Document) -> None:
    complaints = []
    told: set[tuple[str, ...]] = set()
    name = spec.resources.pool or ""
    pool = pools_of(capacity).get(name, capacity)
    where = f"pool {name}" if name else "the whole cluster" if pool is capacity else "the default pool"
    for unit, asked, have in (
        ("gpu", spec.resources.gpu * spec.resources.workers, pool.gpus),
        ("cpu", spec.resources.cpu * spec.resources.workers, pool.cpus),
    ):
        if asked > have:
            told.add((unit,))
            message = (
                f"a trial asks for {asked:g} {unit.upper()}s ({spec.resources.workers} workers of "
                f"{getattr(spec.resources, unit):g}), but {where} has {have:g}."
            )
            complaints.append(
                document.complaint(("resources", unit), message, f"Lower `resources.{unit}` or `workers`.")
            )
    for key, message, hint in lacking(spec.resources, capacity.places):
        if key not in told:
            complaints.append(document.complaint(("resources", *key), message, hint))
    if complaints:
        raise BadInput(complaints)


def _axis(parameter: Parameter) -> str:
    if parameter.expr is not None:
        text = f"= {parameter.expr}"
    elif parameter.choices is not None:
        text = ", ".join(str(as_scalar(value)) for value in parameter.choices)
    elif parameter.mu is not None:
        text = f"{parameter.kind}(mu={parameter.mu:g}, sigma={parameter.sigma:g})"
    else:
        text = f"{parameter.kind}({parameter.min:g} to {parameter.max:g})"
    return f"{text}  when {parameter.when}" if parameter.when else text
