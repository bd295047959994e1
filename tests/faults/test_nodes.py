"""A node of three is lost: what trained there goes on elsewhere, what trained on the others notices nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

from orchestrator.cluster.head import MARK, Head
from orchestrator.lifecycle import TrialState
from tests.faults.conftest import ROOT
from tests.faults.test_trials import undisturbed
from tests.support.ray_cluster import ENVIRONMENT, PATIENCE_S, Lab, tiny_config, wait_for

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
CONFIG = {"steps": 1500, "eval_every": 20}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head without a core to give, and two nodes of one core each."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    for name, value in (ENVIRONMENT | {"PYTHONPATH": paths, MARK: "three nodes", "RAY_AUTH_MODE": "disabled"}).items():
        monkeypatch.setenv(name, value)
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            found.add_node(num_cpus=1)
        found.wait_for_nodes()
        yield found
    finally:
        found.shutdown()


@pytest.mark.parametrize(
    ("by", "attempts"),
    # Ray has its processes block SIGINT, as a Ctrl-C in the shell that started them is not for them
    [(signal.SIGKILL, [1, 2]), (signal.SIGTERM, [1, 2]), (signal.SIGINT, [1, 1])],
    ids=["kill -9", "SIGTERM", "SIGINT"],
)
def test_a_raylet_that_is_killed_takes_no_trial_along(
    cluster: Cluster, tmp_path: Path, by: signal.Signals, attempts: list[int]
) -> None:
    head = Head(pid=os.getpid(), created=0.0, mark="three nodes", gcs_address=cluster.address, dashboard_url="")
    lab = Lab.in_home(head, tmp_path / "home")
    configs = [tiny_config(**CONFIG, lr=lr) for lr in (1e-2, 1e-3)]
    sweep = lab.add(configs, slots=2)
    driver = lab.drive(sweep)
    try:
        wait_for(lambda: all(trial.step >= 20 for trial in lab.trials(sweep)), "both trials", driver)
        node = next(iter(cluster.worker_nodes))
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        raylet.send_signal(by)
        if 2 in attempts:
            wait_for(lambda: any(trial.attempt == 2 for trial in lab.trials(sweep)), "another attempt", driver)
        assert driver.wait(timeout=PATIENCE_S) == 0, lab.driver_log(sweep).read_text()[-3000:]
        for trial, config in zip(lab.trials(sweep), configs, strict=True):
            assert (trial.state, trial.failures) == (TrialState.SUCCEEDED, 0)
            assert lab.store.trials.curve(trial.id, "val_bpb") == undisturbed(config)
        assert sorted(trial.attempt for trial in lab.trials(sweep)) == attempts
    finally:
        driver.kill()
        driver.wait()
        lab.close()
