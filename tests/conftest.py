"""Fixtures for all tests: databases, real ones."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.store import Store, open_store
from tests.support.crew import Crew, gathered_crew
from tests.support.postgres import PostgresServer, private_postgres

# Before Ray is imported: a shell that works on a live cluster must lend it to no test
for name in [name for name in os.environ if name.startswith(("ORCH_", "RAY_", "MLFLOW_"))]:
    if name != "ORCH_BENCHMARK":
        del os.environ[name]
os.environ["ORCH_HOME"] = str(Path(tempfile.gettempdir()) / "orch-home-of-no-test")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--accept`: write the frozen texts of tests/surface anew."""
    parser.addoption("--accept", action="store_true", help="accept changed surfaces (tests/surface)")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server a test run."""
    with private_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> Iterator[str]:
    """Name of a database with the newest schema, to copy: copying takes a tenth of migrating."""
    with postgres_server.database() as url:
        open_store(url).close()
        yield url.rpartition("/")[2]


@pytest.fixture
def postgres_url(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    """A PostgreSQL database of the test's own, with the newest schema and no rows."""
    with postgres_server.database(postgres_template) as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite database of the test's own, not made yet."""
    return f"sqlite:///{tmp_path / 'home' / 'orch.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Runs the test on both databases."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """An empty store, on both databases."""
    opened = open_store(database_url)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def crew() -> Iterator[Crew]:
    """Processes for tests of what happens at once."""
    with gathered_crew() as gathered:
        yield gathered
