"""Every Triton kernel compiles for every supported chip, within its registers and its shared memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

REPORT = Path(__file__).parents[2] / "kernels" / "AOT_REPORT.txt"
# Processes of their own: one that runs Triton's interpreter cannot compile
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
TABLE = """
from kernels.bench import aot
print(aot.headline())
for i, j in aot.jobs():
    print(aot.all_specs()[i].name, aot.CHIPS[j].name, sep="|")
"""


def run(*arguments: str) -> str:
    told = subprocess.run([sys.executable, *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    return told.stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)  # some 280 compilations where the report is of another compiler
def test_every_triton_kernel_compiles_for_every_chip_within_its_limits():
    headline, *configurations = run("-c", TABLE).splitlines()
    kept_headline, _, *rows = REPORT.read_text().splitlines()
    compiler = headline.partition(";")[0]
    if compiler != kept_headline.partition(";")[0]:
        print(run("-m", "kernels.bench.aot"))
        return
    assert kept_headline == headline, f"{REPORT.name} is of other kernels: python -m kernels.bench.aot > {REPORT}"
    assert not [row for row in rows if "FAILED" in row]
    assert [f"{row[:44].strip()}|{row.split()[-4]}" for row in rows] == configurations
    # The kept report tells what this compiler makes of these very sources. One configuration of each kernel is compiled
    # once more, on each chip a third of them, and must come out as the report says
    _, _, *again = run("-m", "kernels.bench.aot", "--sample").splitlines()
    assert again
    assert set(again) <= set(rows)
