"""Real processes, as a person starts them: a home of its own for each service, ended by `orch down`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]


class Shell:
    """A shell in which ORCH_HOME points at a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ORCH_", "RAY_", "MLFLOW_"))}
        self.env = {**kept, "ORCH_HOME": str(home), "OMP_NUM_THREADS": "1", "COLUMNS": "160"}

    def start(self, *words: str) -> subprocess.Popen[str]:
        """`orch WORDS`, running."""
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator.cli.main", *words],
            env=self.env,
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def orch(self, *words: str, code: int = 0, timeout_s: float = 280) -> subprocess.CompletedProcess[str]:
        """`orch WORDS`, ended with this exit code."""
        process = self.start(*words)
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            pytest.fail(f"orch {' '.join(words)} did not end\n{out}\n{err}\n{self.logs()}")
        assert process.returncode == code, f"exit code {process.returncode}\n{out}\n{err}\n{self.logs()}"
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def json(self, *words: str, **options: Any) -> Any:
        """What `orch WORDS --format json` answers."""
        return json.loads(self.orch(*words, "--format", "json", **options).stdout)

    def get(self, path: str) -> Any:
        """What the API answers: for waiting, which with a command's process each time would take a core."""
        headers = {"Authorization": f"Bearer {(self.home / 'token').read_text().strip()}"}
        answer = httpx.get(f"{self.running['coordinator_url']}/api/v1/{path}", headers=headers, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def logs(self) -> str:
        """The ends of the services' logs, for a failing test's message."""
        files = sorted((self.home / "logs").glob("*.log"))
        return "\n".join(f"--- {file.name}\n" + file.read_text(errors="replace")[-3000:] for file in files)

    @property
    def running(self) -> dict[str, Any]:
        """What `orch up` recorded."""
        return json.loads((self.home / "run.json").read_text())


@pytest.fixture(scope="session")
def service(tmp_path_factory) -> Iterator[Shell]:
    """One service that several tests share."""
    shell = Shell(tmp_path_factory.mktemp("home"))
    yield shell
    shell.orch("down")


@pytest.fixture(scope="module")
def own_service(tmp_path_factory) -> Iterator[Shell]:
    """A service that tests may harm; each leaves it one that `orch up` makes whole."""
    shell = Shell(tmp_path_factory.mktemp("own"))
    yield shell
    shell.orch("down")


SWEEP = """\
name: {name}
project: journey
workload:
  task: bytes_lm
  model: {{d_model: 16, n_layers: 1, mixer: gru, feedforward: {{name: dense, hidden: 16}}}}
  training: {{steps: {steps}, batch_size: 4, sequence_length: 32, eval_every: {every}, warmup_steps: 1, figures: false}}
parameters:
  training.lr: [1e-3, 1e-2]
seeds: 2
metric: {{name: val_bpb, goal: minimize}}
"""


@pytest.fixture
def sweep_file(tmp_path):
    """Writes a small sweep file. What ran before is shared: a test that wants training asks for steps of its own."""

    def write(name: str, steps: int = 10, every: int = 5) -> str:
        path = tmp_path / f"{name}.yaml"
        path.write_text(SWEEP.format(name=name, steps=steps, every=every))
        return str(path)

    return write
