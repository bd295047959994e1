"""What the tags say about the code that ran."""

import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from orchestrator.tracking import provenance as module
from orchestrator.tracking.provenance import provenance


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with the package in it, one commit, taken for the installed one."""
    package = tmp_path / "orchestrator"
    package.mkdir()
    (package / "__init__.py").write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=ada", "-c", "user.email=ada@example.org", "commit", "-q", "-m", "first")
    monkeypatch.setattr(module.orchestrator, "__file__", str(package / "__init__.py"))
    return tmp_path


def git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(directory), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_checkout_tells_its_commit_and_whether_it_is_changed(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    clean = provenance()
    assert clean["orch.git.commit"] == clean["mlflow.source.git.commit"] == commit
    assert clean["orch.git.dirty"] == "false"
    (checkout / "orchestrator" / "__init__.py").write_text("changed = True\n")
    assert provenance()["orch.git.dirty"] == "true"


def test_a_package_inside_somebody_elses_repository_tells_no_commit(checkout: Path) -> None:
    git(checkout, "rm", "-q", "--cached", "orchestrator/__init__.py")
    assert not [name for name in provenance() if "git" in name]


def test_versions_are_those_installed() -> None:
    assert provenance()["orch.version.ray"] == metadata.version("ray")
