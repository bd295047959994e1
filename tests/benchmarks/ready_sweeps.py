"""Runs the smoke profile of every ready sweep on a service of its own, one after the other: trials, ends and seconds.

    python -m tests.benchmarks.ready_sweeps [NAME ...]

Exit code 1 where a trial did not succeed, or a sweep took longer than two minutes from submission to its end.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOST_S = 120.0


def orch(home: str, *words: str) -> str:
    """What `orch WORDS` prints; its errors go to the terminal."""
    environment = os.environ | {"ORCH_HOME": home, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "orchestrator.cli.main", *words]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False).stdout


def main() -> int:
    """Prints a line a sweep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of files in sweeps/, without .yaml; all when left out")
    files = (ROOT / "sweeps").glob("*.yaml")
    # What starts from the best of another comes last
    later = sorted(("start_from:" in path.read_text(), path.stem) for path in files)
    names = parser.parse_args().names or [name for _, name in later]
    good = True
    with tempfile.TemporaryDirectory() as home:
        try:
            orch(home, "up")
            for name in names:
                began = time.monotonic()
                file = str(ROOT / "sweeps" / f"{name}.yaml")
                told = orch(home, "submit", file, "--profile", "smoke", "--wait", "--format", "json")
                if not told:
                    # Refused, as it has told on the terminal
                    print(f"{name:26} not run", flush=True)
                    good = False
                    continue
                answer = json.loads(told)
                took = time.monotonic() - began
                ends = Counter(trial["state"] for trial in answer["trials"])
                told = ", ".join(f"{count} {state}" for state, count in ends.items())
                print(
                    f"{name:26} {len(answer['trials']):3} trials  {answer['state']:9}  {told:22} {took:5.0f} s",
                    flush=True,
                )
                good &= ends.keys() == {"succeeded"} and took <= MOST_S
        finally:
            orch(home, "down")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
