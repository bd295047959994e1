"""No test, and no part of orch but a sweep's driver, joins a Ray cluster; and no test sees the shell's own services."""

import ast
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIVE = {
    "RAY_ADDRESS": "http://live:8265",
    "ORCH_URL": "http://live:7070",
    "ORCH_TOKEN": "secret",
    "ORCH_DATABASE_URL": "postgresql+psycopg://live/orch",
    "MLFLOW_TRACKING_URI": "http://live:5050",
}
LOOK = """
import tests.conftest
from orchestrator.settings import Settings
found = Settings.from_env()
print(found.ray_address, found.url, found.token, found.mlflow_uri, "live" in found.database_url, found.home.exists())
"""


def test_tests_do_not_see_a_live_service_that_the_shell_names() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOK], cwd=ROOT, env=os.environ | LIVE, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["None"] * 4 + ["False"] * 2


def test_ray_is_joined_at_one_place_and_never_started_by_the_way() -> None:
    found = []
    for path in sorted(
        each for folder in ("orchestrator", "workloads", "kernels") for each in (ROOT / folder).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "ray.init":
                address = [ast.unparse(word.value) for word in node.keywords if word.arg == "address"]
                found.append((path.relative_to(ROOT).as_posix(), address))
    # "auto" is the cluster of the job, or an error: without an address Ray would start one of its own
    assert found == [("orchestrator/cluster/driver.py", ["'auto'"])]
