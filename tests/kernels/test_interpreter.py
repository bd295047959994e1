"""Runs the tests of ``on_triton`` in Triton's interpreter, where there is no GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")
FOLDER = Path(__file__).parent
FILES = sorted((FOLDER / "on_triton").glob("test_*.py"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(torch.cuda.is_available(), reason="the files of on_triton run on the GPU in this process")
@pytest.mark.parametrize("half", [0, 1])  # two processes for two cores: each pays for its imports
def test_kernels_agree_with_their_reference_in_the_interpreter(half):
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    options = ["-q", "-x", "-p", "no:cacheprovider", f"--confcutdir={FOLDER}"]
    command = [sys.executable, "-m", "pytest", *options, *map(str, FILES[half::2])]
    told = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout[-6000:] + told.stderr[-2000:]
