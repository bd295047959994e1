"""Use cases: train ended trials further (extend), and start children from one checkpoint (fork).

Both make a sweep of their own. Its trials name the trial and the step that they start from, and what was recorded
before stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from orchestrator.errors import BadInput
from orchestrator.lifecycle import SWEEP_ENDS, TRIAL_ENDS, TrialState
from orchestrator.matching import Sizer
from orchestrator.planning import config_hash
from orchestrator.ports import Clock, SweepStore, TrialStore
from orchestrator.records import NewSweep, NewTrial, Sweep, Trial
from orchestrator.spec import SweepSpec
from orchestrator.spec.document import parse_document
from orchestrator.spec.model import Search
from orchestrator.spec.operations import Budget, Seeds
from orchestrator.spec.resolve import Resolver
from orchestrator.submit import check, with_identities
from workloads.checkpoint_files import keep, steps_in
from workloads.errors import CheckpointError, nearest

LONGEST_NAME = 100


@dataclass(frozen=True, slots=True)
class Means:
    """What these use cases ask of the world. sizer: None where sharing finished trials is not wanted."""

    sweeps: SweepStore
    trials: TrialStore
    clock: Clock
    sizer: Sizer | None = None


def extend(reference: str, steps: int, *, user: str, means: Means) -> Sweep:
    """Train the trials of a sweep (`12`, `routing`), or one trial (`t17`), until `steps` steps in all.

    Of a sweep those that succeeded go on, and those that are yet to, once it has ended; one that was stopped early
    goes on where it is asked for by itself.

    Raises:
        NotFound: no such sweep or trial.
        BadInput: nothing to extend, a trial that is that long already, or a checkpoint that is gone.
    """
    trial_id = trial_number(reference)
    if trial_id is not None:
        chosen = [means.trials.trial(trial_id)]
        sweep = means.sweeps.sweep(chosen[0].sweep_id)
        good = {TrialState.SUCCEEDED, TrialState.STOPPED}
    else:
        sweep = means.sweeps.find_sweep(reference)
        chosen = means.trials.trials(sweep.id)
        good = {TrialState.SUCCEEDED}
    ended = [trial for trial in chosen if trial.state in good]
    waiting = [trial for trial in chosen if trial.state not in TRIAL_ENDS]
    if not ended and not waiting:
        told = ", ".join(sorted({str(trial.state) for trial in chosen})) or "none"
        raise BadInput(f"{reference} has no trial to extend: its trials are {told}. Trials that succeeded go on.")
    planned = [_longer(number, trial, steps) for number, trial in enumerate([*ended, *waiting])]
    for trial, new in zip(ended, planned, strict=False):
        _keep(trial, new.parent_step or 0)
    spec = _spec_of(sweep)
    workload = {**spec.workload, "training": {**(spec.workload.get("training") or {}), "steps": steps}}
    spec = spec.model_copy(
        update={
            "name": _named(sweep.name, f"to-{steps}"),
            "workload": workload,
            "search": Search(method="grid"),
            "depends_on": [str(sweep.id)] if waiting and sweep.state not in SWEEP_ENDS else [],
        }
    )
    source = f"# orch extend {reference} --steps {steps}: of this file\n{sweep.source}"
    return _add(spec, source, planned, sweep, user, means)


def fork(trial_id: int, step: int | None, assignments: Sequence[str], seeds: int, *, user: str, means: Means) -> Sweep:
    """Start children from a trial's checkpoint: model, optimiser, generators and step are the parent's.

    Args:
        step: of the checkpoint; the newest when None.
        assignments: `key=value` by which the children differ; a list of values makes a child of each.
        seeds: children of each configuration: the parent's own seed, whose data go on in the parent's order, and the
            numbers after it.

    Raises:
        NotFound: no such trial.
        BadInput: no checkpoint of that step, or an assignment that the trial's configuration cannot take.
    """
    parent = means.trials.trial(trial_id)
    sweep = means.sweeps.sweep(parent.sweep_id)
    if step is None:
        there = steps_in(parent.checkpoint_path) if parent.checkpoint_path else []
        step = there[-1] if there else 0
    _keep(parent, step)
    spec = _spec_of(sweep).model_dump(mode="json", exclude_defaults=True)
    spec |= {
        "name": _named(sweep.name, f"fork-t{trial_id}-{step}"),
        "workload": dict(parent.config),
        "parameters": dict(_assignment(text, parent.config) for text in assignments),
        "seeds": {"values": [parent.seed + i for i in range(seeds)]},
        "search": {"method": "grid"},
    }
    for word in ("zip", "constraints", "match"):
        spec.pop(word, None)
    # On one line: what came after a line break would be read as words of the file
    words = "".join(f" --set {' '.join(text.split())}" for text in assignments)
    command = f"# orch fork t{trial_id}@{step}{words} --seeds {seeds}\n"
    source = command + yaml.safe_dump(spec, sort_keys=False, allow_unicode=True)
    accepted = check(parse_document(source, "the fork"), None, means.sizer)
    origin = _origin(parent)
    planned = [
        replace(trial, params={**parent.params, **trial.params}, parent_trial_id=origin, parent_step=step)
        for trial in accepted.plan.trials
    ]
    _expect_longer(planned, step)
    return _add(accepted.spec, source, planned, sweep, user, means)


def trial_number(reference: str) -> int | None:
    """The number in `t17`; None for anything else."""
    digits = reference.removeprefix("t")
    return int(digits) if reference.startswith("t") and digits.isdecimal() and len(digits) < 19 else None


def _longer(number: int, trial: Trial, steps: int) -> NewTrial:
    has = int(trial.config["training"]["steps"])
    if trial.state is TrialState.STOPPED:
        has = max(steps_in(trial.checkpoint_path) if trial.checkpoint_path else [], default=0)
    if has >= steps:
        raise BadInput(f"trial {trial.id} has {has} steps already; extend it to more than that, got --steps {steps}.")
    config = {**trial.config, "training": {**trial.config["training"], "steps": steps}}
    return NewTrial(
        number=number,
        config=config,
        config_hash=config_hash(config),
        seed=trial.seed,
        params={**trial.params, "training.steps": steps},
        parent_trial_id=_origin(trial),
        parent_step=has,
    )


def _origin(trial: Trial) -> int:
    """The trial that ran: a shared one has no checkpoints of its own."""
    return trial.shared_from if trial.shared_from is not None else trial.id


def _keep(trial: Trial, step: int) -> None:
    """What others start from outlives retention."""
    if trial.checkpoint_path is None:
        raise BadInput(f"trial {trial.id} ({trial.state}) has no checkpoint yet; `orch show t{trial.id}` shows it.")
    try:
        keep(trial.checkpoint_path, step)
    except (CheckpointError, OSError) as error:
        raise BadInput(f"trial {trial.id}: {error}") from None


def _spec_of(sweep: Sweep) -> SweepSpec:
    """The sweep's own words, without those that decide what it tries and when it ends early."""
    spec = SweepSpec.model_validate(dict(sweep.spec))
    plain: dict[str, Any] = {
        "early_terminate": None,
        "budget": Budget(),
        "start_from": None,
        "hypothesis": None,
        "depends_on": [],
        "seeds": Seeds(values=spec.seeds.numbers),
    }
    return spec.model_copy(update=plain)


def _named(name: str, suffix: str) -> str:
    return f"{name[: LONGEST_NAME - len(suffix) - 1]}-{suffix}"


def _assignment(text: str, config: Any) -> tuple[str, Any]:
    """Full name and words of a parameter, from `router.z_weight=1e-3`."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise BadInput(f"--set {text}: an assignment has the form key=value, as in router.z_weight=1e-3.")
    known = Resolver(config).structure({}).known
    name = key.strip()
    full = [each for each in known if each == name or each.endswith(f".{name}")]
    if len(full) != 1:
        ends = sorted({each.split(".", each.count(".") - name.count("."))[-1] for each in known if "." in each})
        hint = f"it could be {' or '.join(full)}; write more of it" if full else nearest(name, ends)
        raise BadInput(f"--set {text}: the trial's configuration has no single {name!r}. {hint}")
    parsed = parse_document(f"value: {value}", f"--set {text}").data["value"]
    return full[0], {"values": parsed} if isinstance(parsed, list) else {"value": parsed}


def _expect_longer(planned: Sequence[NewTrial], step: int) -> None:
    for trial in planned:
        steps = trial.config["training"]["steps"]
        if steps <= step:
            raise BadInput(
                f"a child would have {steps} steps in all, and starts at step {step}: "
                f"give it more with --set training.steps={2 * steps}, or fork at an earlier step."
            )


def _add(spec: SweepSpec, source: str, planned: Sequence[NewTrial], parent: Sweep, user: str, means: Means) -> Sweep:
    new = NewSweep(
        name=spec.name,
        project=parent.project,
        spec=spec.model_dump(mode="json", exclude_unset=False),
        source=source,
        priority=spec.priority,
        metric=parent.metric,
        goal=parent.goal,
        user=user,
    )
    trials, _ = with_identities(planned, means.trials, means.sizer, parent.project)
    return means.sweeps.add_sweep(new, trials, now=means.clock.now())
