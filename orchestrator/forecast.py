"""Use case: what a plan will cost, and what its early stopping would have done to what has run before.

Time comes from earlier trials where they tell it: seconds a step of trials of the same shape, or the FLOPs a second
that other trials reached. Without any it comes from an assumed rate, and says so.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean, median
from typing import Any

from orchestrator.lifecycle import TrialState
from orchestrator.matching import Sizer
from orchestrator.planning import Plan
from orchestrator.ports import BoardStore, SweepStore, TrialStore
from orchestrator.records import NewTrial, Trial
from orchestrator.replay import MEDIAN_OF, Rule, asha, hyperband, median_rule, replay
from orchestrator.report import PlannedSize, PrunerReplay, TimeEstimate
from orchestrator.spec import SweepSpec

MOST_SIZED = 8
"""Models that are sized one by one; of more, the two that their widths put at the ends."""
MOST_EARLIER = 500
MOST_CURVES = 100
CPU_FLOPS = 1e10
GPU_FLOPS = 3e13
"""A second, of one core and one GPU, where nothing has been recorded: what small and middling models come to."""
SHAPE = ("batch_size", "sequence_length", "precision", "compile", "accumulate", "optimizer")


@dataclass(frozen=True, slots=True)
class History:
    """Where what has run is found. project: the only one that is looked at; None for all."""

    sweeps: SweepStore
    trials: TrialStore
    board: BoardStore
    project: str | None = None


@dataclass(frozen=True, slots=True)
class Forecast:
    """sizes: of the smallest and the largest model. The others are None where nothing can be said."""

    sizes: tuple[PlannedSize, ...] = ()
    time: TimeEstimate | None = None
    replayed: PrunerReplay | None = None


def forecast(spec: SweepSpec, plan: Plan, sizer: Sizer, history: History | None = None) -> Forecast:
    """Sizes, time and pruning of a plan.

    Args:
        history: None where no record can be asked.
    """
    sizes = _sizes(plan.trials, sizer)
    return Forecast(
        sizes=(sizes[0], sizes[-1]) if len(sizes) > 1 else tuple(sizes),
        time=_time(spec, plan, sizes, _earlier(spec, history) if history else []),
        replayed=_replayed(spec, plan, history) if history else None,
    )


def _sizes(trials: Sequence[NewTrial], sizer: Sizer) -> list[PlannedSize]:
    """By active parameters, smallest first."""
    models = {_key(trial, "task", "model"): trial for trial in reversed(trials)}
    chosen = sorted(models.values(), key=lambda trial: _width(trial.config["model"]))
    if len(chosen) > MOST_SIZED:
        chosen = [chosen[0], chosen[-1]]
    found = []
    for trial in chosen:
        size = sizer.size(trial.config)
        found.append(
            PlannedSize(
                number=trial.number,
                params_count=int(size["params"]),
                active_params=int(size["active_params"]),
                train_flops_per_token=size["train_flops_per_token"],
                memory_bytes=sizer.memory_bytes(trial.config),
            )
        )
    return sorted(found, key=lambda size: (size.active_params, size.params_count))


def _width(node: Any) -> float:
    """Larger where a model's numbers are: enough to find the ends of an axis without building every model."""
    if isinstance(node, Mapping):
        own = 1.0
        for name in ("d_model", "n_layers", "hidden", "expert_hidden", "num_experts", "k", "expand", "expand_ratio"):
            value = node.get(name)
            own *= float(value) if isinstance(value, int | float) and value > 0 else 1.0
        return own * max((_width(value) for value in node.values()), default=1.0)
    return max((_width(value) for value in node), default=1.0) if isinstance(node, list) else 1.0


def _key(trial: NewTrial | Trial, *parts: str) -> str:
    return json.dumps([trial.config.get(part) for part in parts], sort_keys=True)


def _shape(trial: NewTrial | Trial) -> str:
    """What a step's time hangs on."""
    training = trial.config.get("training", {})
    return _key(trial, "task", "model") + json.dumps([training.get(name) for name in SHAPE])


def _earlier(spec: SweepSpec, history: History) -> list[Trial]:
    """Trials that ran from start to end in one go, on the same kind of resources."""
    found = history.board.board_trials(project=history.project, states=(TrialState.SUCCEEDED,), limit=MOST_EARLIER)
    sweeps = {each.id: each for each in history.sweeps.sweeps(project=history.project, limit=10_000)}
    mine = (spec.resources.workers, spec.resources.gpu > 0)

    def alike(trial: Trial) -> bool:
        resources = sweeps[trial.sweep_id].spec.get("resources", {}) if trial.sweep_id in sweeps else {}
        return (resources.get("workers", 1), resources.get("gpu", 0) > 0) == mine

    return [
        trial
        for trial in found
        if trial.shared_from is None
        and trial.parent_trial_id is None
        and trial.attempt == 1
        and trial.step
        and trial.started_at
        and trial.ended_at
        and alike(trial)
    ]


def _time(spec: SweepSpec, plan: Plan, sizes: Sequence[PlannedSize], earlier: Sequence[Trial]) -> TimeEstimate:
    steps_s: dict[str, list[float]] = {}
    rates = []
    for each in earlier:
        assert each.started_at is not None, "`_earlier` takes ended ones alone"
        assert each.ended_at is not None, "`_earlier` takes ended ones alone"
        seconds = max((each.ended_at - each.started_at).total_seconds(), 1e-3)
        steps_s.setdefault(_shape(each), []).append(seconds / each.step)
        if each.flops_per_token:
            rates.append(each.flops_per_token * _tokens(each) / seconds)
    flops = fmean(size.train_flops_per_token for size in sizes)
    resources = spec.resources
    assumed = resources.workers * (resources.gpu * GPU_FLOPS if resources.gpu else resources.cpu * CPU_FLOPS)
    rate = median(rates) if rates else assumed
    seconds, basis = 0.0, Counter[str]()
    for trial in plan.trials:
        known = steps_s.get(_shape(trial))
        if known:
            seconds += median(known) * trial.config["training"]["steps"]
        else:
            seconds += flops * _tokens(trial) / rate
        basis["recorded" if known else "roofline"] += 1
    seconds *= 1 + plan.proposed / len(plan.trials)
    hours = seconds * resources.workers / 3600
    return TimeEstimate(
        cpu_hours=hours * resources.cpu,
        gpu_hours=hours * resources.gpu,
        recorded=basis["recorded"],
        roofline=basis["roofline"],
        flops_per_s=rate,
        basis=_basis(basis, rate, plan.proposed, measured=bool(rates)),
    )


def _tokens(trial: NewTrial | Trial) -> int:
    training = trial.config["training"]
    return int(training["steps"]) * int(training["batch_size"]) * int(training["sequence_length"])


def _basis(counts: Mapping[str, int], rate: float, proposed: int, *, measured: bool) -> str:
    parts = []
    if counts["recorded"]:
        parts.append(f"{counts['recorded']} trials from the recorded seconds a step of earlier ones of the same shape")
    if counts["roofline"]:
        source = "the median that earlier trials reached" if measured else "an assumption: nothing is recorded yet"
        parts.append(f"{counts['roofline']} from their FLOPs at {rate / 1e9:.3g} GFLOP/s, {source}")
    if proposed:
        parts.append(f"{proposed} that may follow as the mean of these")
    return "; ".join(parts)


def _replayed(spec: SweepSpec, plan: Plan, history: History) -> PrunerReplay | None:
    """The file's own rule over the project's curves that are there in full."""
    rule, metric = spec.early_terminate, spec.metric
    if rule is None or rule.type == "none" or metric is None:
        return None
    found = history.board.board_trials(project=spec.project, states=(TrialState.SUCCEEDED,), limit=MOST_EARLIER)
    whole = [trial for trial in found if metric.name in trial.metrics and trial.shared_from is None][:MOST_CURVES]
    sign = 1.0 if metric.goal == "minimize" else -1.0
    curves = [[(step, sign * value) for step, value in history.trials.curve(trial.id, metric.name)] for trial in whole]
    longest = Counter(curve[-1][0] for curve in curves).most_common(1)
    curves = [curve for curve in curves if curve[-1][0] == longest[0][0]] if longest else []
    most = longest[0][0] if longest else 1
    make: partial[Rule]
    match rule.type:
        case "asha":
            make, words = partial(asha, rule.grace_steps, rule.reduction_factor, most), "asha with eta = {eta:g}"
        case "hyperband":
            make = partial(hyperband, rule.grace_steps, int(rule.reduction_factor), most, spec.name)
            words = "hyperband with eta = {eta:g}"
        case _:
            least = rule.options.get("min_samples_required", MEDIAN_OF)
            make, words = partial(median_rule, rule.grace_steps, least), "the median rule"
    outcome = replay(curves, make)
    if outcome is None:
        return None
    named = words.format(eta=rule.reduction_factor)
    return PrunerReplay(
        rule=rule.type,
        curves=outcome.curves,
        replays=outcome.replays,
        kept_winner=outcome.kept,
        saved=outcome.saved,
        text=f"{named} would have kept the winner in {outcome.kept} of {outcome.replays} replays of "
        f"{outcome.curves} finished trials of {spec.project}, and saved {outcome.saved:.0%} of their steps",
    )
