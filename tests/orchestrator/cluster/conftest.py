"""One Ray head for all cluster tests; a home for each."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cluster.head import Head
from tests.support.ray_cluster import Lab, private_ray


@pytest.fixture(scope="session")
def ray_head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """A real cluster with two cores to give."""
    with private_ray(tmp_path_factory.mktemp("ray"), cpus=2) as head:
        yield head


@pytest.fixture
def lab(ray_head: Head, tmp_path: Path) -> Iterator[Lab]:
    """A home of the test's own."""
    opened = Lab.in_home(ray_head, tmp_path / "home")
    yield opened
    opened.close()
