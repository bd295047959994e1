"""Inside a sweep's Ray job: one Tune run over the sweep's open trials, on a pool of warm worker groups."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

import ray
from ray import tune

from orchestrator.aggregate import Aggregate
from orchestrator.clock import SystemClock
from orchestrator.cluster import groups, guards, logpolicies, origin, propose, race, recorder, search
from orchestrator.cluster.directories import Directories
from orchestrator.cluster.messages import Command
from orchestrator.cluster.patience import patient
from orchestrator.cluster.people import People
from orchestrator.cluster.population import Population
from orchestrator.cluster.resources import LEAST, ON_HEAD, TrialResources
from orchestrator.cluster.seeds import SeedGroups
from orchestrator.cluster.trainable import SweepTrial
from orchestrator.cluster.watch import Bounds
from orchestrator.lifecycle import SWEEP_ENDS, TRIAL_ENDS, TrialState
from orchestrator.matching import Sizer
from orchestrator.ports import NodeStore, SweepStore, TrialStore
from orchestrator.records import Sweep, Trial
from orchestrator.settings import Settings
from orchestrator.spec.model import POPULATION, SweepSpec
from orchestrator.spec.words import seconds_of
from workloads.errors import CheckpointError

LOG = logging.getLogger(__name__)
ASKED = "the driver was asked to stop"
SUPERSEDED = "the sweep has ended, or has another driver"
ENDED_ALL, ENDED_NOT_ALL, ASKED_TO_STOP = 0, 1, 128 + signal.SIGTERM

RAY_DEFAULTS = {
    # Train's controller looks at its workers every 2 s by default, which is how long a lost one would go unseen
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",
    # One more process a slot, which looks for nodes about to go; when they are gone the group restarts all the same
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Reports and checkpoints go through orch, not through the files of Tune's loggers and snapshots
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "100000000",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def drive(
    sweep_id: int,
    settings: Settings,
    sweeps: SweepStore,
    rows: TrialStore,
    nodes: NodeStore,
    sizer: Sizer | None = None,
) -> int:
    """Run the sweep's open trials to their ends.

    Args:
        sizer: what proposals of a sweep with `match` are matched by.

    Returns:
        An exit code: 0 when every trial has ended, 1 otherwise. Where it has to end before its trials did, it does
        not return: the process ends, with 143 when asked to stop (SIGTERM).
    """
    for name, value in RAY_DEFAULTS.items():
        os.environ.setdefault(name, value)
    sweeps, rows, nodes = patient(sweeps), patient(rows), patient(nodes)
    sweep, clock = sweeps.sweep(sweep_id), SystemClock()
    trials = rows.requeue_trials(sweep_id, reason="a new driver took over", now=clock.now())
    learner = propose.learner_of(sweep, rows, clock, sizer)
    proposals = learner or race.race_of(sweep, rows, clock)
    limits = guards.Limits(sweep, rows, clock)
    limits.close()
    if limits.exhausted() or (not trials and not (proposals and proposals.left)):
        return ENDED_ALL
    try:
        source = origin.Origin(sweep, sweeps, rows)
    except CheckpointError as error:
        for trial in trials:
            rows.end_trial(trial.id, TrialState.FAILED, reason=str(error), now=clock.now())
        return ENDED_ALL
    resources = TrialResources.of(sweep.spec)
    ray.init(address="auto", namespace=f"orch-{settings.instance}", log_to_driver=False, logging_level=logging.WARNING)
    # Tune would list the files of its loggers that it does not find
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    halt = _Halt()
    # After ray.init, whose own handler would take its place
    signal.signal(signal.SIGTERM, lambda *_: halt.call(ASKED))
    try:
        _run(sweep, trials, proposals, settings, sweeps, rows, resources, source, limits, nodes, halt, sizer)
    except _Halted:
        LOG.warning("halted: %s", halt.why)
        _exit(_close(sweep_id, rows, halt.why))
    finally:
        with suppress(Exception):
            ray.shutdown()
    return _close(sweep_id, rows, halt.why)


def _exit(code: int) -> NoReturn:
    """Threads of Train are at work yet: to shut Ray down under them would end the process with a code of Ray's own."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)


def _run(
    sweep: Sweep,
    trials: Sequence[Trial],
    proposals: propose.Learner | race.Race | None,
    settings: Settings,
    sweeps: SweepStore,
    rows: TrialStore,
    resources: TrialResources,
    source: origin.Origin,
    limits: guards.Limits,
    nodes: NodeStore,
    halt: _Halt,
    sizer: Sizer | None,
) -> None:
    title = f"{re.sub(r'[^A-Za-z0-9_.-]', '-', sweep.name)}-{sweep.id}"
    mailbox_name = f"{title} mailbox, attempt {sweep.attempt}"
    mailbox = groups.open_mailbox(mailbox_name)

    directories = Directories(settings, rows)

    def config_of(trial: Trial) -> dict[str, Any]:
        command = Command(
            trial_id=trial.id,
            config={**guards.keeping_healthy(sweep.spec, trial.config), "seed": trial.seed},
            directory=str(directories.of(trial)),
            checkpoints=str(directories.checkpoints(trial)),
            parent=directories.parent(source.adopt(trial)),
        )
        return {"mailbox": mailbox_name, "command": command}

    def wanted() -> int:
        now = sweeps.sweep(sweep.id)
        if now.attempt != sweep.attempt or now.state in SWEEP_ENDS:
            halt.call(SUPERSEDED)
        pool.stay_off(nodes.drained())
        return min(now.slots, queue.unfinished)

    rule = _rule(sweep, proposals, rows, directories, sizer)
    people = People(sweep.id, rows, drained=lambda: pool.drained)
    queue = search.SqlTrials(
        # A population's members take turns: those behind come first
        sorted(trials, key=lambda trial: trial.step) if isinstance(rule, Population) else trials,
        room=lambda: pool.size,
        halted=halt.stop_all,
        config_of=config_of,
        proposals=proposals,
        added=lambda trial: rule.add(trial),
        exhausted=limits.exhausted,
        waiting=people.waiting,
        take_up=lambda trial_id: scheduler.take_up(trial_id),
    )
    storage = settings.storage / "sweeps" / str(sweep.id)
    pool = groups.Pool(
        groups.PoolConfig(name=title, resources=resources, bounds=_bounds(sweep), storage=storage / "ray"),
        mailbox,
        wanted=wanted,
        give_up=halt.call,
    )
    for node in logpolicies.nodes_left(sweep, sweeps):
        pool.leave(node)

    def leave(node: str) -> bool:
        others = {each["NodeID"] for each in ray.nodes() if each["Alive"]} - pool.left - {node}
        if others:
            pool.leave(node)
        return bool(others)

    policies = logpolicies.LogPolicies(sweep, lambda trial: settings.trial_directory(sweep.id, trial.id))
    scheduler = recorder.RecordingScheduler(
        rule,
        recorder.Recorder(rows, sweep, trials, SystemClock(), limits, policies, leave),
        sweep,
        free_slot=lambda trial_id: mailbox.stop.remote(trial_id),
        again=queue.put_back,
        stop_if=guards.StopIf(sweep, rows, directories.checkpoints),
        limits=limits,
        people=people,
    )
    with pool:
        tune.run(
            SweepTrial,
            name=f"{title}-tune",
            search_alg=queue,
            scheduler=scheduler,
            stop=halt,
            resources_per_trial=_leads(),
            reuse_actors=True,
            storage_path=str(storage / "ray"),
            verbose=0,
            raise_on_failed_trial=False,
        )
        if halt.why:
            raise _Halted
    limits.close()


def _leads() -> tune.PlacementGroupFactory:
    """What a trial's process in Tune takes. It only waits: a core of its own would be one less for the groups.

    But it must take something, and that on the driver's node: on another one, it would be lost with that node, and with
    it a trial that trains elsewhere.
    """
    here = ray.get_runtime_context().get_node_id()
    offered = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == here)
    return tune.PlacementGroupFactory([{"memory": 1, **({ON_HEAD: LEAST} if ON_HEAD in offered else {})}])


def _bounds(sweep: Sweep) -> Bounds:
    """A sweep that an earlier orch accepted has the default."""
    heartbeat = sweep.spec.get("heartbeat_timeout") or SweepSpec.model_fields["heartbeat_timeout"].default
    return Bounds(heartbeat_s=seconds_of(heartbeat), memory_bytes=TrialResources.of(sweep.spec).memory)


def _rule(
    sweep: Sweep,
    proposals: propose.Learner | race.Race | None,
    rows: TrialStore,
    directories: Directories,
    sizer: Sizer | None,
) -> SeedGroups | Population:
    """What decides on reports, as it would stand had it been there from the start."""
    trials = rows.trials(sweep.id)
    if sweep.spec["search"]["method"] in POPULATION:
        population = Population(sweep, trials, rows, directories, sizer)
        LOG.info("%s decides on a population of %d", population.name, len(trials))
        return population
    learner = proposals if isinstance(proposals, propose.Learner) else None
    stopping = (learner.stopping if learner else None) or search.early_stopping(sweep, trials)
    LOG.info("early stopping: %s", search.decider(stopping))
    groups_of_seeds = SeedGroups(stopping, sweep.metric)
    worth = Aggregate.of(sweep.spec, sweep.goal)
    groups_of_seeds.replay([(trial, worth.running(rows.curve(trial.id, sweep.metric))) for trial in trials])
    return groups_of_seeds


class _Halted(Exception):
    """The Tune run ended before its trials did."""


class _Halt(tune.Stopper):
    """Ends the Tune run soon after it is called; trials keep their last checkpoints."""

    def __init__(self) -> None:
        self.why = ""

    def call(self, why: str) -> None:
        """The first call's reason stands."""
        self.why = self.why or why

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Tune asks about ten times a second."""
        return bool(self.why)


def _close(sweep_id: int, rows: TrialStore, why: str) -> int:
    # What still runs is put back by the coordinator, which does the same for a driver that had no time for last words
    if why == ASKED:
        return ASKED_TO_STOP
    kept = TRIAL_ENDS | {TrialState.PAUSED}
    left = [trial for trial in rows.trials(sweep_id) if trial.state not in kept]
    if left:
        LOG.error("%s: trials without an end: %s", why or "unexpected", ", ".join(str(trial.id) for trial in left))
    return ENDED_NOT_ALL if left else ENDED_ALL
