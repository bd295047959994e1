"""The documents that orch answers with, in JSON: stable names, published by `orch schema --outputs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, RootModel

from orchestrator import health
from orchestrator.access import Role
from orchestrator.lifecycle import SWEEP_ENDS, TRIAL_ENDS, SweepState, TrialState
from orchestrator.pareto import front
from orchestrator.records import Event, Place, Sweep, Token, Trial
from orchestrator.sealing import SEALED, seal_of
from orchestrator.spec.operations import Seeds

RAYS_OWN = "ray.io/"
"""Labels that Ray gives every node."""


class Answer(BaseModel):
    """Base of all documents."""

    model_config = ConfigDict(extra="forbid")


class PerturbationDocument(Answer):
    """A trial of a population went on from another's checkpoint, with changed parameters."""

    step: int = Field(description="Its own last step before.")
    parent_trial_id: int
    parent_step: int = Field(description="Step of the checkpoint from which it went on.")
    changed: dict[str, list[Any]] = Field(description="Parameters by name: value before, value after.")


class TrialDocument(Answer):
    """One trial."""

    trial_id: int
    sweep_id: int
    number: int = Field(description="Place in the sweep, from 0.")
    state: TrialState
    seed: int
    params: dict[str, Any] = Field(description="Swept names and their values.")
    metrics: dict[str, float] = Field(description="Last value of every reported metric.")
    alarms: dict[str, int] = Field(description="Health alarms that its last report holds: layers by kind.")
    score: float | None = Field(description="The sweep's metric, as `metric.aggregate` says; what ranks the trial.")
    best: float | None = Field(description="Best value of the sweep's metric.")
    step: int = Field(description="Last reported step.")
    steps: int = Field(description="Steps that the trial was to run.")
    mlflow_run_id: str | None
    checkpoint_path: str | None
    attempts: int
    reason: str = Field(description="Why it is in this state, in one sentence.")
    params_count: int | None
    active_params: int | None
    flops_per_token: float | None
    started_at: str | None
    ended_at: str | None
    identity: str | None = Field(description="Hash of configuration, code, data and seed; null before it is known.")
    shared_from: int | None = Field(description="The trial of another sweep whose result this is.")
    parent_trial_id: int | None = Field(description="The trial from whose checkpoint it started.")
    parent_step: int | None = Field(description="Step of that checkpoint.")
    children: list[int] = Field(
        default_factory=list, description="Trials that start from its checkpoints; in `show TRIAL` alone."
    )
    perturbations: list[PerturbationDocument] = Field(description="What a population changed in it, in order.")
    pareto: bool | None = Field(
        description="No configuration of its sweep is better in every metric; null where one metric counts, and for a "
        "trial by itself."
    )


class SweepSummary(Answer):
    """One line of `orch list`."""

    sweep_id: int
    name: str
    project: str
    user: str
    state: SweepState
    reason: str
    priority: int
    metric: str
    goal: str
    trial_states: dict[str, int]
    created_at: str
    ended_at: str | None


class HypothesisDocument(Answer):
    """What was claimed before anything had run."""

    claim: str
    metric: str | None
    comparison: str | None
    alpha: float
    sealed_at: str
    sha256: str = Field(description="Over the sweep's name, its whole spec, and the time.")
    intact: bool = Field(description="Name and spec still have that hash.")


class RacerDocument(Answer):
    """One configuration of a race. by, p: what was shown to be better, and the p-value of that over all pairs."""

    params: dict[str, Any]
    seeds: int = Field(description="Seeds that it has a result of.")
    mean: float
    by: dict[str, Any] | None = None
    p: float | None = None


class RaceDocument(Answer):
    """Where a seed race stands."""

    alpha: float = Field(description="Chance of telling any two configurations apart that are not different.")
    seeds: int = Field(description="Seeds that a configuration gets at most.")
    open: bool = Field(description="Further seeds may still be given.")
    tie: bool = Field(description="The leaders are several: no test could tell them apart.")
    leaders: list[RacerDocument] = Field(description="Best mean first.")
    beaten: list[RacerDocument]


class SweepDocument(SweepSummary):
    """One sweep with its trials."""

    goals: dict[str, str] = Field(description="Goal by metric: of all that count, the one that ranks trials first.")
    slots: int = Field(description="Trials that it may run at once.")
    attempt: int
    mlflow_run_id: str | None
    ray_job_id: str | None
    tracking_backlog: int = Field(description="Facts that the tracker has yet to be told.")
    depends_on: list[int] = Field(description="Sweeps that must have succeeded before it starts.")
    hypothesis: HypothesisDocument | None
    race: RaceDocument | None
    trials: list[TrialDocument]

    @property
    def is_over(self) -> bool:
        """It has reached an end."""
        return self.state in SWEEP_ENDS


class SweepList(Answer):
    """Answer of `orch list`."""

    sweeps: list[SweepSummary]


class StatusDocument(Answer):
    """Answer of `orch status`."""

    coordinator_url: str
    mlflow_url: str | None
    ray_dashboard_url: str | None
    version: str
    sweeps: dict[str, int] = Field(description="Number of sweeps by state.")
    capacity: dict[str, float] | None = Field(
        description="CPUs and GPUs of the cluster; null while it does not answer."
    )
    tracking_backlog: int


class CodeDocument(Answer):
    """A code package that has come."""

    package: str = Field(description="The hash of its content.")
    files: int


class NodeDocument(Answer):
    """One node of the cluster."""

    node_id: str
    name: str
    address: str
    cpus: float
    gpus: float
    accelerators: list[str] = Field(description="Kinds of GPU, as Ray names them.")
    labels: dict[str, str]
    drained: bool = Field(description="Nothing is to run there.")


class NodeList(RootModel[list[NodeDocument]]):
    """Answer of `orch nodes`."""


class MetricEstimate(Answer):
    """A metric over the seeds of one configuration. low, high: 95% t-interval of the mean; null with a single seed."""

    mean: float
    low: float | None
    high: float | None
    n: int


class LeaderboardRow(Answer):
    """One configuration."""

    rank: int
    tied: bool = Field(False, description="The sweep's race could not tell it from the others of its rank.")
    params: dict[str, Any]
    metrics: dict[str, MetricEstimate]
    trial_ids: list[int]
    sweeps: list[str]
    data_checksum: str | None = Field(description="What it was trained on: ranks compare where it is equal.")
    pareto: bool | None = Field(
        description="No row with the same data is better in every metric; null where one metric counts."
    )


class Leaderboard(Answer):
    """Answer of `orch leaderboard`."""

    project: str | None
    metric: str | None
    goal: str | None
    goals: dict[str, str] = Field(description="Goal by metric: of all that count.")
    rows: list[LeaderboardRow]
    next_cursor: str | None


class PlannedTrial(Answer):
    """One trial of a plan."""

    number: int
    params: dict[str, Any]
    seed: int


class PlannedSize(Answer):
    """What one model of a plan costs. number: a trial that has it."""

    number: int
    params_count: int
    active_params: int
    train_flops_per_token: float
    memory_bytes: int = Field(description="Parameters, gradients, moments and activations of one worker.")


class TimeEstimate(Answer):
    """Hours of a whole plan, had no trial been stopped early, and where they come from."""

    cpu_hours: float
    gpu_hours: float
    recorded: int = Field(description="Trials whose time is that of earlier ones of the same shape.")
    roofline: int = Field(description="Trials whose time is their FLOPs over a rate.")
    flops_per_s: float = Field(description="That rate.")
    basis: str = Field(description="The same in a sentence.")


class PrunerReplay(Answer):
    """What early stopping would have done to finished trials of the project."""

    rule: str
    curves: int
    replays: int
    kept_winner: int = Field(description="Replays in which the best curve ran to its end.")
    saved: float = Field(description="Share of the steps that it would have saved, a mean over replays.")
    text: str


class PlanDocument(Answer):
    """Answer of `orch validate` and `orch plan`."""

    name: str
    project: str
    metric: str
    goal: str
    trials: int
    proposed: int = Field(
        description="Further trials at most: those that the search proposes from results, or a race's further seeds."
    )
    configurations: int
    shared: int = Field(description="Trials that have a result already, from earlier sweeps, and will not run.")
    seeds: list[int]
    axes: dict[str, str] = Field(description="Each parameter with its values or its range.")
    first: list[PlannedTrial] = Field(description="The first trials, as they will run.")
    sizes: list[PlannedSize] = Field(description="Of the smallest and the largest model; empty for `validate`.")
    estimate: TimeEstimate | None = Field(description="Null for `validate`.")
    replay: PrunerReplay | None = Field(description="Null without early stopping, or finished trials to judge it by.")
    warnings: list[str]


class EventDocument(Answer):
    """One line of the audit log."""

    event_id: int
    sweep_id: int | None = Field(description="null where it was done with a token or a node.")
    trial_id: int | None
    actor: str
    what: str
    reason: str
    at: str


class EventList(RootModel[list[EventDocument]]):
    """Answer of `orch events`, oldest first."""


class WaitDocument(Answer):
    """Hours until the first trial started, over the sweeps of one size."""

    sweeps: int
    p50_h: float
    p95_h: float
    longest_h: float


class PolicyDocument(Answer):
    """How one policy served a trace."""

    policy: str
    hours: float = Field(description="Until all sweeps had ended.")
    packing: float = Field(description="Shortest time that any policy could take, divided by the time taken.")
    utilisation: float = Field(description="Share of the pool in use while some sweep waited.")
    waits: dict[str, WaitDocument] = Field(description="By GPUs of a trial.")
    fairness: float = Field(description="Jain's index over projects of what each had of its even share.")
    preemptions: int
    lost: float = Field(description="Share of the work that was done twice for preemptions.")
    decisions: int
    decision_ms: tuple[float, float, float] = Field(description="CPU time of a decision: p50, p95, longest.")
    longest_queue: int


class RepairDocument(Answer):
    """One thing that `orch repair` found. mended: it is right now."""

    sweep_id: int
    trial_id: int
    what: str
    mended: bool


class RepairList(RootModel[list[RepairDocument]]):
    """Answer of `orch repair`, in order of sweep and trial."""


class SimulationDocument(Answer):
    """Answer of `orch simulate`."""

    trace: str
    sweeps: int
    gpus: int
    policies: list[PolicyDocument]


class ErrorDocument(Answer):
    """Every refusal."""

    error: str = Field(description="What went wrong and how to mend it.")
    complaints: list[str] = Field(description="All that is wrong, one by one, with file, line and column.")


class HealthDocument(Answer):
    """Answer of `/healthz`."""

    status: str
    version: str
    instance: str = Field(description="Tells this orch from others.")


class TokenDocument(Answer):
    """One bearer token, without its secret."""

    token_id: int
    name: str
    role: Role
    project: str | None = Field(description="The only project that it reaches; null for all.")
    created_by: str
    created_at: str
    revoked_at: str | None


class NewTokenDocument(TokenDocument):
    """Answer of `orch token create` and `orch token rotate`."""

    token: str = Field(description="The secret, told this once.")


class TokenList(Answer):
    """Answer of `orch token list`."""

    tokens: list[TokenDocument]


class LogPage(Answer):
    """A piece of a trial's log. next_offset: where to go on. over: the trial has ended and nothing follows."""

    trial_id: int
    text: str
    next_offset: int
    over: bool


def trial_document(trial: Trial, pareto: bool | None = None) -> TrialDocument:
    """A trial as others see it. pareto: whether it is of its sweep's Pareto set, where that has several metrics."""
    return TrialDocument(
        trial_id=trial.id,
        sweep_id=trial.sweep_id,
        number=trial.number,
        state=trial.state,
        seed=trial.seed,
        params=dict(trial.params),
        metrics=dict(trial.metrics),
        alarms=health.alarms(trial.metrics),
        score=trial.score,
        best=trial.best,
        step=trial.step,
        steps=int(trial.config.get("training", {}).get("steps", 0)),
        mlflow_run_id=trial.mlflow_run_id,
        checkpoint_path=trial.checkpoint_path,
        attempts=trial.attempt,
        reason=trial.reason,
        params_count=trial.params_count,
        active_params=trial.active_params,
        flops_per_token=trial.flops_per_token,
        started_at=_iso(trial.started_at),
        ended_at=_iso(trial.ended_at),
        identity=trial.identity,
        shared_from=trial.shared_from,
        parent_trial_id=trial.parent_trial_id,
        parent_step=trial.parent_step,
        perturbations=[
            PerturbationDocument(
                step=each.step,
                parent_trial_id=each.parent_trial_id,
                parent_step=each.parent_step,
                changed={name: list(pair) for name, pair in each.changed.items()},
            )
            for each in trial.perturbations
        ],
        pareto=pareto,
    )


def sweep_summary(sweep: Sweep, counts: Mapping[TrialState, int]) -> SweepSummary:
    """A sweep in one line."""
    return SweepSummary(**_summary(sweep, counts))


def sweep_document(
    sweep: Sweep, trials: Sequence[Trial], tracking_backlog: int, first_events: Sequence[Event] = ()
) -> SweepDocument:
    """A sweep with its trials."""
    counts: dict[TrialState, int] = {}
    for trial in trials:
        counts[trial.state] = counts.get(trial.state, 0) + 1
    return SweepDocument(
        **_summary(sweep, counts),
        slots=sweep.slots,
        attempt=sweep.attempt,
        mlflow_run_id=sweep.mlflow_run_id,
        ray_job_id=sweep.ray_job_id,
        tracking_backlog=tracking_backlog,
        depends_on=list(sweep.depends_on),
        hypothesis=_hypothesis(sweep, first_events),
        race=_race(sweep, trials),
        goals=sweep.goals,
        trials=[trial_document(trial, flag) for trial, flag in zip(trials, _pareto(sweep, trials), strict=True)],
    )


def _race(sweep: Sweep, trials: Sequence[Trial]) -> RaceDocument | None:
    words = sweep.spec.get("seeds")
    if not isinstance(words, dict) or words.get("policy") != "race":
        return None
    # numpy takes a tenth of a second to import, and commands read these documents without it
    from orchestrator import racing

    seeds, maximize = Seeds.model_validate(words), sweep.goal == "maximize"
    now = racing.standing_of(seeds, trials, maximize=maximize)
    results = racing.results_of(seeds, trials)
    params = {trial.config_hash: dict(trial.params) for trial in trials}

    def racer(name: str) -> RacerDocument:
        values = list(results[name].values())
        by = now.beaten.get(name)
        told = {"by": params[by.by], "p": by.p} if by else {}
        return RacerDocument(params=params[name], seeds=len(values), mean=sum(values) / len(values), **told)

    is_open = sweep.state not in SWEEP_ENDS and racing.next_rung(seeds, trials, maximize=maximize) is not None
    return RaceDocument(
        alpha=seeds.alpha,
        seeds=len(seeds.numbers),
        open=is_open,
        tie=len(now.leaders) > 1,
        leaders=[racer(name) for name in now.leaders],
        beaten=[racer(name) for name in now.beaten],
    )


def _pareto(sweep: Sweep, trials: Sequence[Trial]) -> list[bool | None]:
    """Of each trial, whether its configuration is on the front: over the means of its seeds that have a result."""
    if len(sweep.goals) < 2:
        return [None] * len(trials)
    ended = [each for each in trials if each.state in (TrialState.SUCCEEDED, TrialState.STOPPED)]
    groups: dict[str, list[Mapping[str, float]]] = {}
    for trial in ended:
        if sweep.goals.keys() <= trial.metrics.keys() and trial.score is not None:
            groups.setdefault(trial.config_hash, []).append({**trial.metrics, sweep.metric: trial.score})
    points = {key: [fmean(each[name] for each in group) for name in sweep.goals] for key, group in groups.items()}
    best = front(points, list(sweep.goals.values()))
    return [trial in ended and trial.config_hash in best for trial in trials]


def _hypothesis(sweep: Sweep, first_events: Sequence[Event]) -> HypothesisDocument | None:
    seal = next((event for event in first_events if event.what == SEALED), None)
    if seal is None:
        return None
    return HypothesisDocument(
        **sweep.spec["hypothesis"],
        sealed_at=seal.at.isoformat(),
        sha256=seal.reason,
        intact=seal_of(sweep.spec, sweep.name, seal.at) == seal.reason,
    )


def node_document(place: Place, *, drained: bool) -> NodeDocument:
    """A node."""
    return NodeDocument(
        node_id=place.node_id,
        name=place.name,
        address=place.address,
        cpus=place.cpus,
        gpus=place.gpus,
        accelerators=sorted(place.accelerators),
        labels={name: value for name, value in sorted(place.labels.items()) if not name.startswith(RAYS_OWN)},
        drained=drained,
    )


def event_document(event: Event) -> EventDocument:
    """A line of the audit log."""
    return EventDocument(
        event_id=event.id,
        sweep_id=event.sweep_id,
        trial_id=event.trial_id,
        actor=event.actor,
        what=event.what,
        reason=event.reason,
        at=event.at.isoformat(),
    )


def token_document(token: Token) -> TokenDocument:
    """A token as others see it."""
    return TokenDocument(**_token(token))


def new_token_document(token: Token, secret: str) -> NewTokenDocument:
    """A token with its secret."""
    return NewTokenDocument(**_token(token), token=secret)


def sweep_progress(
    sweep: Sweep, counts: Mapping[TrialState, int], changed: Sequence[Trial], tracking_backlog: int
) -> SweepDocument:
    """A sweep with those of its trials alone that have changed."""
    document = sweep_document(sweep, changed, tracking_backlog)
    return document.model_copy(update={"trial_states": {str(state): count for state, count in counts.items()}})


def is_over(trial: Trial) -> bool:
    """The trial has reached an end."""
    return trial.state in TRIAL_ENDS


def _summary(sweep: Sweep, counts: Mapping[TrialState, int]) -> dict[str, Any]:
    return {
        "sweep_id": sweep.id,
        "name": sweep.name,
        "project": sweep.project,
        "user": sweep.user,
        "state": sweep.state,
        "reason": sweep.reason,
        "priority": sweep.priority,
        "metric": sweep.metric,
        "goal": sweep.goal,
        "trial_states": {str(state): count for state, count in counts.items()},
        "created_at": sweep.created_at.isoformat(),
        "ended_at": _iso(sweep.ended_at),
    }


def _token(token: Token) -> dict[str, Any]:
    return {
        "token_id": token.id,
        "name": token.name,
        "role": token.role,
        "project": token.project,
        "created_by": token.created_by,
        "created_at": token.created_at.isoformat(),
        "revoked_at": _iso(token.revoked_at),
    }


def _iso(moment: Any) -> str | None:
    return moment.isoformat() if moment else None


def output_schemas() -> dict[str, Any]:
    """JSON Schema of the document that each command answers with."""
    documents: dict[str, type[BaseModel]] = {
        "submit": SweepDocument,
        "show SWEEP": SweepDocument,
        **dict.fromkeys(("extend", "fork"), SweepDocument),
        "show TRIAL": TrialDocument,
        "list": SweepList,
        **dict.fromkeys(("cancel", "pause", "resume", "retry", "set-priority", "scale"), SweepSummary),
        **dict.fromkeys(("cancel TRIAL", "pause TRIAL", "resume TRIAL", "retry TRIAL"), TrialDocument),
        "events": EventList,
        "simulate": SimulationDocument,
        "repair": RepairList,
        "status": StatusDocument,
        "status SWEEP": SweepDocument,
        "nodes": NodeList,
        "drain": NodeDocument,
        "token create": NewTokenDocument,
        "token rotate": NewTokenDocument,
        "token revoke": TokenDocument,
        "token list": TokenList,
        "leaderboard": Leaderboard,
        "validate": PlanDocument,
        "plan": PlanDocument,
    }
    return {command: document.model_json_schema(mode="serialization") for command, document in documents.items()}
