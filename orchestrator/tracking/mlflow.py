"""How sweeps and trials look in MLflow.

One experiment a project, one parent run a sweep, one nested run a trial. A run is found again by its tag `orch.key`, so
that a courier that died between telling and remembering makes no second one.
"""

from __future__ import annotations

import json
import logging
import math
import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, RunStatus, RunTag, ViewType
from mlflow.exceptions import MlflowException, RestException
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service import utils as mlflow_tracking
from requests import HTTPError, RequestException

from orchestrator import health
from orchestrator.errors import Unreachable
from orchestrator.lifecycle import SweepState, TrialState
from orchestrator.records import Links, OutboxItem, Sweep, Topic, Trial
from orchestrator.spec.notify import redacted
from orchestrator.tracking.figure import learning_curve
from orchestrator.tracking.provenance import provenance

log = logging.getLogger(__name__)

METRICS_A_REQUEST = 1000
PARAMS_A_REQUEST = 100
LONGEST_KEY = 250
LONGEST_PARAM = 500
LONGEST_TAG = 5000
FIGURES = "figures"
"""Folder in a trial's checkpoint directory, and of the artifacts of its run."""

# Answers by which MLflow says that it will never take this: asking again is in vain.
REFUSALS = frozenset({400, 409, 413, 422})
AWAY = frozenset({401, 403, 408, 429, 502, 503, 504})
NOT_FOUND = 404

# MLflow answers 400, too, when its database is in trouble, with SQLAlchemy's words in full, which end with a link that
# tells the kind of error. Only of these two kinds are errors that come from what was to be stored.
OF_ITS_DATABASE = re.compile(r"sqlalche\.me/e/\d+/(?!gkpj|9h9h)")  # neither IntegrityError nor DataError

STATUS = {
    SweepState.SUCCEEDED: RunStatus.FINISHED,
    SweepState.FAILED: RunStatus.FAILED,
    SweepState.CANCELLED: RunStatus.KILLED,
    TrialState.SUCCEEDED: RunStatus.FINISHED,
    TrialState.STOPPED: RunStatus.FINISHED,
    TrialState.FAILED: RunStatus.FAILED,
    TrialState.CANCELLED: RunStatus.KILLED,
}

Curves = Mapping[int, Sequence[tuple[int, float]]]


class MlflowTracker:
    """`ports.Tracker` on an MLflow server, local or remote.

    instance: tells this orch's runs from those of another that uses the same server.
    """

    def __init__(self, uri: str, instance: str) -> None:
        self._client = MlflowClient(tracking_uri=uri)
        self._uri = uri
        self._instance = instance
        self._provenance = provenance()
        self._experiments: dict[str, str] = {}

    def tell(
        self, items: Sequence[OutboxItem], sweeps: Mapping[int, Sweep], trials: Mapping[int, Trial], curves: Curves
    ) -> Links:
        """Show these items; what MLflow refuses is logged and left out. Raises Unreachable when it does not answer."""
        with self._translated():
            return _Telling(self, sweeps, trials, curves).tell(items)

    @property
    def client(self) -> MlflowClient:
        """The connection."""
        return self._client

    def experiment(self, project: str) -> str:
        """Id of the project's experiment, made or brought back from the bin where needed."""
        if project not in self._experiments:
            found = self._client.get_experiment_by_name(project)
            if found is None:
                self._experiments[project] = self._client.create_experiment(project)
            else:
                if found.lifecycle_stage == "deleted":
                    self._client.restore_experiment(found.experiment_id)
                self._experiments[project] = found.experiment_id
        return self._experiments[project]

    def find_or_create(self, key: str, *, project: str, name: str, started: int, tags: Mapping[str, str]) -> str:
        """Run id of the run with this key. started: milliseconds since 1970, for a new one."""
        key = f"{self._instance}/{key}"
        experiment = self.experiment(project)
        found = self._client.search_runs(
            [experiment], f"tags.`orch.key` = '{key}'", run_view_type=ViewType.ALL, max_results=1
        )
        if found:
            return str(found[0].info.run_id)
        tags = {**self._provenance, "orch.key": key, "mlflow.source.name": "orch", "mlflow.source.type": "JOB", **tags}
        return str(self._client.create_run(experiment, started, tags, name).info.run_id)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (MlflowException, RequestException) as error:
            self._experiments.clear()  # it may come back with another database
            raise Unreachable(f"MLflow at {self._uri} does not answer: {error}") from error


class _Telling:
    """One call of `tell`: which run belongs to whom, and the metrics that wait to be sent together."""

    def __init__(
        self, tracker: MlflowTracker, sweeps: Mapping[int, Sweep], trials: Mapping[int, Trial], curves: Curves
    ) -> None:
        self._tracker = tracker
        self._client = tracker.client
        self._sweeps = sweeps
        self._trials = trials
        self._curves = curves
        self._sweep_runs = {id_: sweep.mlflow_run_id for id_, sweep in sweeps.items() if sweep.mlflow_run_id}
        self._trial_runs = {id_: trial.mlflow_run_id for id_, trial in trials.items() if trial.mlflow_run_id}
        self._metrics: dict[int, list[Metric]] = defaultdict(list)

    def tell(self, items: Sequence[OutboxItem]) -> Links:
        """Show the items in order, but the reports of each trial in few requests."""
        show = {
            Topic.SWEEP_STARTED: self._sweep_started,
            Topic.TRIAL_STARTED: self._trial_started,
            Topic.REPORT: self._report,
            Topic.TRIAL_ENDED: self._trial_ended,
            Topic.SWEEP_ENDED: self._sweep_ended,
        }
        for item in items:
            show[item.topic](item)
        for trial_id in list(self._metrics):
            self._send_metrics(trial_id)
        return Links(sweeps=self._sweep_runs, trials=self._trial_runs)

    def _sweep_started(self, item: OutboxItem) -> None:
        sweep = self._sweeps[item.sweep_id]

        def show(run_id: str) -> None:
            self._client.update_run(run_id, RunStatus.to_string(RunStatus.RUNNING))

        self._on_sweep(sweep, show)

    def _trial_started(self, item: OutboxItem) -> None:
        trial = self._trial(item)

        def show(run_id: str) -> None:
            self._client.update_run(run_id, RunStatus.to_string(RunStatus.RUNNING))
            self._client.set_tag(run_id, "orch.attempt", str(item.payload["attempt"]))

        self._on_trial(trial, show)

    def _report(self, item: OutboxItem) -> None:
        timestamp, step = _milliseconds(item.payload["at"]), int(item.payload["step"])
        self._metrics[self._trial(item).id] += [
            Metric(_key(name), float(value), timestamp, step)
            for name, value in item.payload["metrics"].items()
            if math.isfinite(value)
        ]

    def _trial_ended(self, item: OutboxItem) -> None:
        trial = self._trial(item)
        self._send_metrics(trial.id)
        tags = {"orch.state": item.payload["state"], "orch.reason": item.payload["reason"]}
        tags |= {
            f"orch.{name}": str(value)
            for name, value in (
                ("params_count", trial.params_count),
                ("active_params", trial.active_params),
                ("flops_per_token", trial.flops_per_token),
                ("checkpoint_path", trial.checkpoint_path),
                ("alarms", ", ".join(health.alarms(trial.metrics)) or None),
                ("data_checksum", trial.data_checksum),
            )
            if value is not None
        }

        def show(run_id: str) -> None:
            self._client.log_batch(run_id, tags=_tags(tags))
            self._attach_curve(run_id, trial)
            self._attach_figures(run_id, trial)
            self._end(run_id, TrialState(item.payload["state"]), item)

        self._on_trial(trial, show)

    def _attach_curve(self, run_id: str, trial: Trial) -> None:
        curve = self._curves.get(trial.id)
        if curve:
            sweep = self._sweeps[trial.sweep_id]
            title = f"{sweep.name}, trial {trial.number}, seed {trial.seed}"
            figure = learning_curve(curve, metric=sweep.metric, goal=sweep.goal, title=title)
            self._attach(lambda: self._client.log_figure(run_id, figure, "learning_curve.png"))

    def _attach_figures(self, run_id: str, trial: Trial) -> None:
        folder = Path(trial.checkpoint_path, FIGURES) if trial.checkpoint_path else None
        if folder and folder.is_dir():
            self._attach(lambda: self._client.log_artifacts(run_id, str(folder), FIGURES))

    def _attach_late_figures(self, run_id: str, trial: Trial) -> None:
        self._attach_figures(run_id, trial)
        _let_go(run_id)

    def _sweep_ended(self, item: OutboxItem) -> None:
        # A trial's end is written when it is decided to stop it, and its figures are drawn after that
        for trial in self._trials.values():
            if trial.sweep_id == item.sweep_id and trial.state is not TrialState.SUCCEEDED and trial.checkpoint_path:
                self._on_trial(trial, partial(self._attach_late_figures, trial=trial))

        def show(run_id: str) -> None:
            state = item.payload["state"]
            self._client.log_batch(run_id, tags=_tags({"orch.state": state, "orch.reason": item.payload["reason"]}))
            self._end(run_id, SweepState(state), item)

        self._on_sweep(self._sweeps[item.sweep_id], show)

    def _end(self, run_id: str, state: SweepState | TrialState, item: OutboxItem) -> None:
        self._client.set_terminated(run_id, RunStatus.to_string(STATUS[state]), _milliseconds(item.payload["at"]))
        _let_go(run_id)

    def _send_metrics(self, trial_id: int) -> None:
        for batch in _slices(self._metrics.pop(trial_id, []), METRICS_A_REQUEST):
            self._on_trial(self._trials[trial_id], partial(self._client.log_batch, metrics=batch))

    def _trial(self, item: OutboxItem) -> Trial:
        assert item.trial_id is not None, f"outbox item {item.id} ({item.topic}) names no trial"
        return self._trials[item.trial_id]

    def _on_sweep(self, sweep: Sweep, show: Callable[[str], None]) -> None:
        self._on(self._sweep_runs, sweep.id, lambda: self._new_sweep_run(sweep), show, f"sweep {sweep.id}")

    def _on_trial(self, trial: Trial, show: Callable[[str], None]) -> None:
        self._on(self._trial_runs, trial.id, lambda: self._new_trial_run(trial), show, f"trial {trial.id}")

    def _on(
        self, runs: dict[int, str], id_: int, make: Callable[[], str], show: Callable[[str], None], what: str
    ) -> None:
        """Do `show` to the run, making it where there is none."""
        try:
            if id_ not in runs:
                runs[id_] = make()
            try:
                show(runs[id_])
            except MlflowException as error:
                if error.get_http_status_code() != NOT_FOUND:
                    raise
                # MLflow lost the run that we knew, with its database perhaps: what comes now goes to a new one
                runs[id_] = make()
                show(runs[id_])
        except MlflowException as error:
            if not _is_refusal(error):
                raise
            log.warning("MLflow does not take a report on %s, which is left out: %s", what, error)

    def _new_sweep_run(self, sweep: Sweep) -> str:
        run_id = self._tracker.find_or_create(
            _sweep_key(sweep),
            project=sweep.project,
            name=sweep.name,
            started=_milliseconds(sweep.started_at or sweep.created_at),
            tags={"orch.sweep_id": str(sweep.id), "mlflow.user": sweep.user},
        )
        # Who reads MLflow need not be allowed to write to the sweep's webhooks
        self._attach(lambda: self._client.log_text(run_id, redacted(sweep.source), "sweep.yaml"))
        return run_id

    def _new_trial_run(self, trial: Trial) -> str:
        sweep = self._sweeps[trial.sweep_id]
        if sweep.id not in self._sweep_runs:
            self._sweep_runs[sweep.id] = self._new_sweep_run(sweep)
        run_id = self._tracker.find_or_create(
            f"{_sweep_key(sweep)}/{trial.id}",
            project=sweep.project,
            name=f"{sweep.name}-{trial.number}",
            started=_milliseconds(trial.started_at or sweep.created_at),
            tags={
                "mlflow.parentRunId": self._sweep_runs[sweep.id],
                "mlflow.user": sweep.user,
                "orch.sweep_id": str(sweep.id),
                "orch.trial_id": str(trial.id),
                "orch.attempt": str(trial.attempt),
                "orch.seed": str(trial.seed),
                "orch.config_hash": trial.config_hash,
            },
        )
        config = {**trial.config, "seed": trial.seed}
        named = [*flatten({**trial.params, **config}).items()]
        for batch in _slices([Param(_key(name), value[:LONGEST_PARAM]) for name, value in named], PARAMS_A_REQUEST):
            self._client.log_batch(run_id, params=batch)
        self._attach(lambda: self._client.log_text(run_id, json.dumps(config, indent=2), "config.json"))
        return run_id

    def _attach(self, upload: Callable[[], None]) -> None:
        """Upload an artifact. One that cannot be stored must not keep back the curves that wait behind it."""
        try:
            upload()
        except Exception as error:  # each kind of artifact store raises its own
            if _is_away(error):
                raise
            log.warning("MLflow does not take an artifact, which is left out: %s", error)


def _let_go(run_id: str) -> None:
    """MLflow keeps a client of the artifact store for each of the last 1024 runs, with a pool of threads of its own."""
    mlflow_tracking._artifact_repos_cache.pop(run_id, None)


def _is_refusal(error: MlflowException) -> bool:
    """Whether MLflow will never take this."""
    return error.get_http_status_code() in REFUSALS and not _is_of_its_database(error)


def _is_of_its_database(error: Exception) -> bool:
    return OF_ITS_DATABASE.search(str(error)) is not None


def _is_away(error: Exception) -> bool:
    """Whether an upload failed because the server could not be asked, and not because it or its disk said no."""
    if isinstance(error, HTTPError) and error.response is not None:
        return error.response.status_code in AWAY
    if isinstance(error, RestException):
        return error.get_http_status_code() in AWAY or _is_of_its_database(error)
    return isinstance(error, RequestException | MlflowException)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested mappings as dotted names with text values: strings as they are, anything else as JSON."""
    flat: dict[str, str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _sweep_key(sweep: Sweep) -> str:
    # The time as well: numbers start again when somebody removes the database and keeps MLflow's.
    return f"{sweep.id}@{_milliseconds(sweep.created_at)}"


def _key(name: str) -> str:
    """The name as MLflow takes it: letters, digits and _ - . : / and blanks; slashes as in a clean relative path."""
    clean = re.sub(r"[^\w.\- :/]", "_", name)
    if clean.startswith(("/", "..")) or clean == "." or posixpath.normpath(clean) != clean:
        clean = clean.replace("/", "_").lstrip(".") or "_"
    return clean[:LONGEST_KEY]


def _tags(tags: Mapping[str, Any]) -> list[RunTag]:
    return [RunTag(name, str(value)[:LONGEST_TAG]) for name, value in tags.items()]


def _milliseconds(at: str | datetime) -> int:
    moment = datetime.fromisoformat(at) if isinstance(at, str) else at
    return round(moment.timestamp() * 1000)


def _slices(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]
