"""What a driver is started with."""

from __future__ import annotations

import stat

import pytest

from orchestrator.cluster.head import MARK, _environment
from orchestrator.cluster.launcher import RayLauncher
from orchestrator.errors import BadInput
from orchestrator.settings import Settings

URL = "postgresql+psycopg://orch:a-password@db.lab/orch"


def test_a_jobs_environment_holds_no_password_and_leads_to_the_same_database(tmp_path):
    settings = Settings.from_env({"ORCH_HOME": str(tmp_path), "ORCH_DATABASE_URL": URL})
    shown = RayLauncher("http://127.0.0.1:1", settings)._environment({})
    assert "a-password" not in str(shown)
    there = Settings.from_env({"ORCH_DATABASE_URL": "sqlite:////elsewhere/old.db", **shown})
    assert (there.database_url, there.instance, there.storage) == (URL, settings.instance, settings.storage)
    assert stat.S_IMODE(settings.database_url_file.stat().st_mode) == 0o600
    settings.database_url_file.unlink()
    with pytest.raises(BadInput, match="cannot be read"):
        Settings.from_env(shown)


def test_a_sweep_finds_its_own_code_before_what_is_installed_and_its_variables(tmp_path):
    settings = Settings.from_env({"ORCH_HOME": str(tmp_path)})
    spec = {"code": {"package": "a" * 64, "imports": ["mine", "more"]}, "environment": {"MINE": "1"}}
    found = RayLauncher("http://127.0.0.1:1", settings)._environment(spec)
    assert found["PYTHONPATH"] == f"{settings.storage}/code/{'a' * 64}:${{PYTHONPATH}}"
    assert (found["MINE"], found["ORCH_SWEEP_IMPORTS"]) == ("1", "mine,more")
    other = RayLauncher("http://127.0.0.1:1", settings)._environment({**spec, "environment": {"MINE": "2"}})
    assert other["ORCH_SWEEP_OWN"] != found["ORCH_SWEEP_OWN"]
    assert "ORCH_SWEEP_OWN" not in RayLauncher("http://127.0.0.1:1", settings)._environment({"environment": {}})


def test_trials_inherit_no_secret_of_the_service():
    env = {"ORCH_TOKEN": "s", "ORCH_DATABASE_URL": URL, "ORCH_WEBHOOK": "https://x", "RAY_ADDRESS": "a", "HOME": "/h"}
    kept = _environment(env, "mark")
    assert not {"ORCH_TOKEN", "ORCH_DATABASE_URL", "ORCH_WEBHOOK", "RAY_ADDRESS"} & set(kept)
    assert (kept["HOME"], kept[MARK]) == ("/h", "mark")
