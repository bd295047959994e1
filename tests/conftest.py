"""Fixtures for all tests: databases, real ones; and which tests share a process."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from orchestrator.store import Store, open_store
from tests.support.crew import Crew, gathered_crew
from tests.support.postgres import PostgresServer, private_postgres


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--accept`: write the frozen texts of tests/surface anew."""
    parser.addoption("--accept", action="store_true", help="accept changed surfaces (tests/surface)")


class SideBySide(LoadScopeScheduling):
    """Each test to the next process that is free (`pytest -n`), but what shares one slow start to one process."""

    SHARED = ("tests/journey/", "tests/orchestrator/cluster/", "tests/orchestrator/tracking/")

    def _split_scope(self, nodeid: str) -> str:
        return "services" if nodeid.startswith(self.SHARED) else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> SideBySide:
    """Called by pytest-xdist. Its own groups (`--dist loadgroup`) have no effect under pytest 9.2."""
    return SideBySide(config, log)


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
