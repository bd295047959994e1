"""What people see in MLflow, asked over its REST API as they would."""

import gc
import json
import socket
import urllib.parse
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from mlflow.store.artifact.artifact_repo import ArtifactRepository

from orchestrator.errors import Unreachable
from orchestrator.lifecycle import Actor, SweepState, TrialState
from orchestrator.ports import Tracker
from orchestrator.records import Facts, Sweep, Topic, Trial
from orchestrator.store import Store
from orchestrator.tracking.connect import connect
from orchestrator.tracking.courier import Courier
from tests.orchestrator.tracking.conftest import MlflowServer
from tests.support.builders import NOW, a_report, a_sweep, a_trial
from tests.support.damaged_mlflow import no_database, table_gone, unreadable_rows

STEPS = 5
Damage = Callable[[Path], AbstractContextManager[None]]


class Rest:
    """MLflow's REST API."""

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def get(self, path: str, **query: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._uri}/api/2.0/mlflow/{path}?{urllib.parse.urlencode(query)}") as answer:
            return dict(json.load(answer))

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self._uri}/api/2.0/mlflow/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            return dict(json.load(answer))

    def run(self, run_id: str | None) -> dict[str, Any]:
        assert run_id is not None
        return dict(self.get("runs/get", run_id=run_id)["run"])

    def history(self, run_id: str | None, metric: str) -> list[tuple[int, float]]:
        assert run_id is not None
        points = self.get("metrics/get-history", run_id=run_id, metric_key=metric).get("metrics", [])
        return sorted((int(point["step"]), float(point["value"])) for point in points)

    def runs(self, project: str) -> list[dict[str, Any]]:
        experiment = self.get("experiments/get-by-name", experiment_name=project)["experiment"]["experiment_id"]
        return list(self.post("runs/search", experiment_ids=[experiment], max_results=1000).get("runs", []))

    def artifact(self, run_id: str | None, name: str) -> bytes:
        assert run_id is not None
        with urllib.request.urlopen(f"{self._uri}/get-artifact?run_id={run_id}&path={name}") as answer:
            return bytes(answer.read())


def as_dict(pairs: list[dict[str, str]]) -> dict[str, str]:
    return {pair["key"]: pair["value"] for pair in pairs}


@pytest.fixture
def rest(mlflow_server: MlflowServer) -> Rest:
    return Rest(mlflow_server.uri)


@pytest.fixture
def project(tmp_path: Path) -> str:
    """An experiment of the test's own."""
    return f"project-{tmp_path.name}"


def courier_for(record: Store, tracker: Tracker) -> Courier:
    return Courier(record.outbox, record.sweeps, record.trials, lambda: tracker)


def a_started_sweep(record: Store, project: str, trials: int = 2) -> tuple[Sweep, list[Trial]]:
    planned = [a_trial(number, params={"model.router.name": "topk", "extra": "x" * 600}) for number in range(trials)]
    sweep = record.sweeps.add_sweep(a_sweep(project=project), planned, now=NOW)
    sweep = record.sweeps.move_sweep(sweep, SweepState.STARTING, actor=Actor.COORDINATOR, reason="", now=NOW)
    return sweep, [record.trials.start_trial(trial.id, now=NOW) for trial in record.trials.trials(sweep.id)]


def train(record: Store, trial: Trial, first: int = 0, last: int = STEPS) -> None:
    record.trials.record(
        [a_report(trial.id, step, val_bpb=8.0 / (step + 1), **{"router/load": step / 3}) for step in range(first, last)]
    )


def drain(courier: Courier, record: Store) -> None:
    while courier.drain_once():
        pass
    assert record.outbox.size() == 0


def same_curves(record: Store, rest: Rest, trial_id: int) -> bool:
    trial = record.trials.trial(trial_id)
    curves = {name: record.trials.curve(trial.id, name) for name in trial.metrics}
    return bool(curves) and all(rest.history(trial.mlflow_run_id, name) == curve for name, curve in curves.items())


def test_who_reads_mlflow_is_not_told_where_webhooks_listen(
    record: Store, tracker: Tracker, rest: Rest, project: str
) -> None:
    text = "name: routing\nnotify: https://hooks.slack.com/services/T0/B0/secret\n"
    added = record.sweeps.add_sweep(a_sweep(project=project, source=text), [a_trial()], now=NOW)
    started = record.sweeps.move_sweep(added, SweepState.STARTING, actor=Actor.COORDINATOR, reason="", now=NOW)
    record.sweeps.move_sweep(started, SweepState.RUNNING, actor=Actor.COORDINATOR, reason="", now=NOW)
    drain(courier_for(record, tracker), record)
    sweep = record.sweeps.sweep(added.id)
    assert sweep.source == text
    assert "notify: https://hooks.slack.com/..." in rest.artifact(sweep.mlflow_run_id, "sweep.yaml").decode()


def test_a_sweep_with_two_trials_arrives_whole(record: Store, tracker: Tracker, rest: Rest, project: str) -> None:
    sweep, trials = a_started_sweep(record, project)
    for trial in trials:
        train(record, trial)
    size = Facts(params_count=10, active_params=5, flops_per_token=30.5)
    record.trials.record([], facts={trials[0].id: size})
    record.trials.end_trial(trials[0].id, TrialState.STOPPED, reason="pruned", now=NOW, checkpoint_path="/c/1")
    sweep = record.sweeps.sweep(sweep.id)
    record.sweeps.move_sweep(sweep, SweepState.FAILED, actor=Actor.COORDINATOR, reason="driver died", now=NOW)

    drain(courier_for(record, tracker), record)

    parent = rest.run(record.sweeps.sweep(sweep.id).mlflow_run_id)
    assert (parent["info"]["run_name"], parent["info"]["status"]) == ("routing", "FAILED")
    assert rest.artifact(parent["info"]["run_id"], "sweep.yaml").decode() == sweep.source
    for trial, status, reason in zip(trials, ["FINISHED", "FAILED"], ["pruned", "driver died"], strict=True):
        stored = record.trials.trial(trial.id)
        run = rest.run(stored.mlflow_run_id)
        assert (run["info"]["status"], run["info"]["end_time"]) == (status, round(NOW.timestamp() * 1000))
        assert same_curves(record, rest, trial.id)
        assert as_dict(run["data"]["metrics"]) == stored.metrics
        tags = as_dict(run["data"]["tags"])
        assert tags["mlflow.parentRunId"] == parent["info"]["run_id"]
        assert (tags["orch.sweep_id"], tags["orch.trial_id"]) == (str(sweep.id), str(trial.id))
        assert (tags["orch.seed"], tags["orch.attempt"], tags["orch.reason"]) == (str(trial.seed), "1", reason)
        assert tags["orch.host"] == socket.gethostname()
        assert {"orch.version.ray", "orch.version.torch", "orch.version.mlflow"} <= tags.keys()
        params = as_dict(run["data"]["params"])
        assert params == {
            "model.d_model": "64",
            "model.router.name": "topk",
            "training.lr": "0.003",
            "seed": str(trial.seed),
            "extra": "x" * 500,
        }
        assert json.loads(rest.artifact(stored.mlflow_run_id, "config.json")) == {**trial.config, "seed": trial.seed}
        assert rest.artifact(stored.mlflow_run_id, "learning_curve.png").startswith(b"\x89PNG")
    sized = as_dict(rest.run(record.trials.trial(trials[0].id).mlflow_run_id)["data"]["tags"])
    assert (sized["orch.params_count"], sized["orch.active_params"]) == ("10", "5")
    assert (sized["orch.flops_per_token"], sized["orch.checkpoint_path"]) == ("30.5", "/c/1")
    assert len(rest.runs(project)) == 3


def test_figures_of_a_trial_are_artifacts_of_its_run_late_ones_with_the_sweeps_end(
    record: Store, tracker: Tracker, rest: Rest, project: str, tmp_path: Path
) -> None:
    sweep, trials = a_started_sweep(record, project)
    ready, late = (tmp_path / name for name in ("ready", "late"))
    for trial, home, state in zip(trials, (ready, late), (TrialState.SUCCEEDED, TrialState.STOPPED), strict=True):
        (home / "figures").mkdir(parents=True)
        record.trials.record([a_report(trial.id, 1, **{"val_bpb": 1.0, "health/expert_dead": 1.0})])
        record.trials.end_trial(trial.id, state, reason="", now=NOW, checkpoint_path=str(home))
    (ready / "figures/load_heat_map.png").write_bytes(b"of the finished one")
    courier = courier_for(record, tracker)
    drain(courier, record)
    (late / "figures/load_heat_map.png").write_bytes(b"of the stopped one")
    record.sweeps.move_sweep(
        record.sweeps.sweep(sweep.id), SweepState.FAILED, actor=Actor.COORDINATOR, reason="", now=NOW
    )
    drain(courier, record)
    for trial, text in zip(trials, (b"of the finished one", b"of the stopped one"), strict=True):
        run_id = record.trials.trial(trial.id).mlflow_run_id
        assert rest.artifact(run_id, "figures/load_heat_map.png") == text
        assert as_dict(rest.run(run_id)["data"]["tags"])["orch.alarms"] == "expert_dead"


def test_of_runs_that_ended_nothing_is_kept(record: Store, tracker: Tracker, rest: Rest, project: str) -> None:
    sweep, trials = a_started_sweep(record, project)
    courier = courier_for(record, tracker)
    drain(courier, record)
    during = clients_of_artifact_stores()
    for trial in trials:
        train(record, trial)
        record.trials.end_trial(trial.id, TrialState.SUCCEEDED, reason="", now=NOW)
    drain(courier, record)
    record.sweeps.move_sweep(
        record.sweeps.sweep(sweep.id), SweepState.SUCCEEDED, actor=Actor.COORDINATOR, reason="", now=NOW
    )
    drain(courier, record)
    assert rest.artifact(record.trials.trial(trials[0].id).mlflow_run_id, "learning_curve.png")
    assert clients_of_artifact_stores() == during - 1 - len(trials)


def clients_of_artifact_stores() -> int:
    gc.collect()
    return sum(isinstance(thing, ArtifactRepository) for thing in gc.get_objects())


def test_telling_again_shows_nothing_twice(record: Store, tracker: Tracker, rest: Rest, project: str) -> None:
    """A courier that died after telling and before remembering: nothing is linked, nothing forgotten."""
    sweep, [trial, _] = a_started_sweep(record, project)
    train(record, trial)
    record.trials.end_trial(trial.id, TrialState.SUCCEEDED, reason="", now=NOW)
    items = record.outbox.pending()
    sweeps = {sweep.id: record.sweeps.sweep(sweep.id)}
    trials = {each.id: each for each in record.trials.trials(sweep.id)}
    curves = {trial.id: record.trials.curve(trial.id, "val_bpb")}

    first = tracker.tell(items, sweeps, trials, curves)
    assert tracker.tell(items, sweeps, trials, curves) == first

    assert len(rest.runs(project)) == 3
    assert rest.history(first.trials[trial.id], "val_bpb") == curves[trial.id]
    assert rest.run(first.trials[trial.id])["info"]["status"] == "FINISHED"


def test_another_attempt_continues_the_same_run(record: Store, tracker: Tracker, rest: Rest, project: str) -> None:
    _, [trial, _] = a_started_sweep(record, project)
    courier = courier_for(record, tracker)
    train(record, trial, 0, 3)
    drain(courier, record)
    record.trials.end_trial(trial.id, TrialState.PENDING, reason="its node was lost", now=NOW)
    record.trials.start_trial(trial.id, now=NOW)
    record.trials.record([a_report(trial.id, step, attempt=2, val_bpb=1.0 / step) for step in (3, 4)])
    drain(courier, record)
    assert len(rest.runs(project)) == 3
    assert same_curves(record, rest, trial.id)
    run = rest.run(record.trials.trial(trial.id).mlflow_run_id)
    assert as_dict(run["data"]["tags"])["orch.attempt"] == "2"
    assert run["info"]["status"] == "RUNNING"


def test_a_killed_server_loses_and_doubles_nothing(
    record: Store, tracker: Tracker, rest: Rest, project: str, mlflow_server: MlflowServer
) -> None:
    _, [trial, other] = a_started_sweep(record, project)
    courier = courier_for(record, tracker)
    train(record, trial, 0, 2)
    drain(courier, record)

    mlflow_server.kill()
    train(record, trial, 2, STEPS)
    train(record, other)
    record.trials.end_trial(trial.id, TrialState.SUCCEEDED, reason="", now=NOW)
    waiting = record.outbox.pending()
    with pytest.raises(Unreachable, match="does not answer"):
        courier.drain_once()
    assert record.outbox.pending() == waiting

    mlflow_server.start()
    mlflow_server.wait_until_up()
    drain(courier, record)
    assert same_curves(record, rest, trial.id)
    assert same_curves(record, rest, other.id)
    assert len(rest.runs(project)) == 3


@pytest.mark.parametrize("damage", [unreadable_rows, table_gone, no_database], ids=["500", "503", "400"])
def test_what_its_database_is_to_blame_for_is_no_refusal(
    record: Store, mlflow_server: MlflowServer, tracker: Tracker, rest: Rest, project: str, damage: Damage
) -> None:
    _, [trial, _] = a_started_sweep(record, project)
    courier = courier_for(record, tracker)
    train(record, trial, 0, 2)
    drain(courier, record)
    with damage(mlflow_server.settings.home / "mlflow.db"):
        train(record, trial, 2, STEPS)
        waiting = record.outbox.pending()
        with pytest.raises(Unreachable, match="does not answer"):
            courier.drain_once()
        assert record.outbox.pending() == waiting
    drain(courier, record)
    assert same_curves(record, rest, trial.id)


def test_what_mlflow_refuses_is_left_out_and_the_rest_arrives(
    record: Store, tracker: Tracker, rest: Rest, project: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, [removed, kept] = a_started_sweep(record, project)
    courier = courier_for(record, tracker)
    drain(courier, record)
    rest.post("runs/delete", run_id=record.trials.trial(removed.id).mlflow_run_id)
    for trial in (removed, kept):
        train(record, trial)
    drain(courier, record)
    assert same_curves(record, rest, kept.id)
    assert f"MLflow does not take a report on trial {removed.id}" in caplog.text


def test_names_that_mlflow_does_not_know_are_made_fit(
    record: Store, tracker: Tracker, rest: Rest, project: str
) -> None:
    _, [trial, _] = a_started_sweep(record, project)
    names = {
        "loss@valid": "loss_valid",
        "/abs": "_abs",
        "a//b": "a__b",
        "../up": "_up",
        "π": "π",
        "x" * 300: "x" * 250,
    }
    record.trials.record([a_report(trial.id, 1, **{name: 1.0}) for name in names])
    for step, name in enumerate(names, start=2):
        record.trials.record([a_report(trial.id, step, **{name: 1.0})])
    drain(courier_for(record, tracker), record)
    run = rest.run(record.trials.trial(trial.id).mlflow_run_id)
    assert set(as_dict(run["data"]["metrics"])) == set(names.values())


def test_more_metrics_than_one_request_takes(record: Store, tracker: Tracker, rest: Rest, project: str) -> None:
    _, [trial, _] = a_started_sweep(record, project)
    record.trials.record([a_report(trial.id, step, **{f"m{n}": float(step) for n in range(7)}) for step in range(400)])
    drain(courier_for(record, tracker), record)
    stored = record.trials.trial(trial.id)
    assert [len(record.trials.curve(trial.id, name)) for name in stored.metrics] == [400] * 7
    assert as_dict(rest.run(stored.mlflow_run_id)["data"]["metrics"]) == stored.metrics


def test_two_instances_on_one_server_do_not_meet(
    record: Store, mlflow_server: MlflowServer, rest: Rest, project: str
) -> None:
    sweep, _ = a_started_sweep(record, project)
    told = record.outbox.pending()
    sweeps, trials = {sweep.id: sweep}, {trial.id: trial for trial in record.trials.trials(sweep.id)}
    links = [connect(mlflow_server.uri, name).tell(told, sweeps, trials, {}) for name in ("one", "two")]
    assert links[0].trials.keys() == links[1].trials.keys()
    assert not set(links[0].trials.values()) & set(links[1].trials.values())


def test_a_server_that_hangs_is_given_up_in_time(record: Store, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    a_started_sweep(record, project)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        courier = courier_for(record, connect(f"http://127.0.0.1:{silent.getsockname()[1]}", "test"))
        with pytest.raises(Unreachable, match="timeout"):
            courier.drain_once()
    assert [item.topic for item in record.outbox.pending()] == [Topic.SWEEP_STARTED, *[Topic.TRIAL_STARTED] * 2]
