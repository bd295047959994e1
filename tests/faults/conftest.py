"""A Ray head of its own, whose processes know where faults are laid, or a whole service; ended with what it started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cluster import head as ray_head
from orchestrator.cluster.head import Head
from tests.journey.conftest import Shell
from tests.support.ray_cluster import ENVIRONMENT, Lab
from workloads import faults

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def fault_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="session")
def faulty_head(tmp_path_factory: pytest.TempPathFactory, fault_directory: Path) -> Iterator[Head]:
    home = tmp_path_factory.mktemp("ray")
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # Acts of tests/faults/acts.py are called in the cluster's processes
    env = os.environ | ENVIRONMENT | {faults.VARIABLE: str(fault_directory), "PYTHONPATH": paths}
    head = ray_head.start(home, home / "logs" / "ray.log", cpus=2, env=env)
    try:
        yield head
    finally:
        ray_head.stop(head)


@pytest.fixture
def lab(faulty_head: Head, fault_directory: Path, tmp_path: Path) -> Iterator[Lab]:
    """A home of the test's own. Its drivers meet no faults themselves unless they are given the directory."""
    for path in fault_directory.glob(f"*{faults.ARMED}"):
        path.unlink()
    opened = Lab.in_home(faulty_head, tmp_path / "home")
    yield opened
    opened.close()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A service of the test's own, as `orch up` starts it."""
    found = Shell(tmp_path / "home")
    found.orch("up")
    yield found
    found.orch("down")
