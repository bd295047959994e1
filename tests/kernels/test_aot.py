"""Every Triton kernel compiles for every supported chip, within its registers and its shared memory."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")


@pytest.mark.slow
@pytest.mark.timeout(1200)  # some 280 compilations where nothing is cached
def test_every_triton_kernel_compiles_for_every_chip_within_its_limits():
    # its own process: one that runs Triton's interpreter cannot compile
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    told = subprocess.run(
        [sys.executable, "-m", "kernels.bench.aot"], env=env, capture_output=True, text=True, check=False
    )
    print(told.stdout)
    assert told.returncode == 0, told.stdout + told.stderr
