"""The layers of ARCHITECTURE.md hold."""

import subprocess
import sys
from pathlib import Path


def test_imports_go_one_way():
    command = [sys.executable, "-m", "importlinter.cli", "lint-imports"]
    program = Path(sys.executable).with_name("lint-imports")
    command = [str(program)] if program.exists() else command
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
