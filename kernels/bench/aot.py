"""Compile every Triton kernel for the chips that orch supports, with no device, and report what they take.

    python -m kernels.bench.aot [--only NAME] [--sample] > kernels/AOT_REPORT.txt

Fails on a compile error, on more spilled registers than :data:`MAX_SPILL_BYTES`, and on more shared memory than the
chip has. The first line names compiler, limit and sources: a report under the line of today is as good as a run, for
the same compiler makes the same code of the same text. Must not run under ``TRITON_INTERPRET=1``, where there is
nothing to compile.
"""

import argparse
import functools
import hashlib
import importlib
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource, CompiledKernel

from kernels.aot import AotSpec

KERNEL_MODULES: tuple[str, ...] = (
    "kernels.linear_scan.triton_impl",
    "kernels.fused_rnn.triton_impl",
    "kernels.chunk_gla.triton_impl",
    "kernels.gated_delta_rule.triton_impl",
    "kernels.moe_route.triton_impl",
    "kernels.moe_dispatch.triton_impl",
    "kernels.grouped_mm.triton_impl",
    "kernels.fused_glu_mlp.triton_impl",
)
"""The modules whose ``AOT_SPECS`` are compiled; a new Triton file is listed here."""

MAX_SPILL_BYTES = 32
"""Registers spilled to memory, in bytes a thread, beyond which a kernel is refused."""


@dataclass(frozen=True)
class Chip:
    """A compilation target and its limit of shared memory, in bytes a block."""

    name: str
    target: GPUTarget
    shared_bytes: int


CHIPS: tuple[Chip, ...] = (
    Chip("sm_80", GPUTarget("cuda", 80, 32), 163 * 1024),
    Chip("sm_90", GPUTarget("cuda", 90, 32), 227 * 1024),
    Chip("gfx942", GPUTarget("hip", "gfx942", 64), 64 * 1024),
)


@dataclass(frozen=True)
class Report:
    """What one kernel takes on one chip; ``error`` is empty where it compiled."""

    kernel: str
    chip: str
    registers: int = 0
    spill_bytes: int = 0
    shared_bytes: int = 0
    error: str = ""

    def problem(self, chip: Chip) -> str:
        """Why this kernel may not ship for ``chip``; empty if it may."""
        if self.error:
            return self.error
        if self.spill_bytes > MAX_SPILL_BYTES:
            return f"spills {self.spill_bytes} bytes a thread, allowed are {MAX_SPILL_BYTES}"
        if self.shared_bytes > chip.shared_bytes:
            return f"needs {self.shared_bytes} bytes of shared memory, {chip.name} has {chip.shared_bytes}"
        return ""


def _source(spec: AotSpec) -> ASTSource:
    names = spec.kernel.arg_names
    unknown = (set(spec.types) | set(spec.constexprs)) ^ set(names)
    if unknown:
        raise ValueError(f"{spec.name}: types and constexprs must name each argument once; check {sorted(unknown)}")
    types = {name: "constexpr" if name in spec.constexprs else spec.types[name] for name in names}
    signature = {name: kind.removesuffix(":16") for name, kind in types.items()}
    # torch aligns its allocations, and the launcher tells the compiler so; without this the code is another one
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(types.values()) if re.match(r"\*|.*:16$", kind)}
    return ASTSource(
        fn=spec.kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in spec.constexprs.items()},
        attrs=aligned,
    )


def _nvidia_registers(compiled: CompiledKernel, chip: Chip) -> tuple[int, int]:
    """(registers a thread, bytes spilled a thread) as ptxas tells them."""
    with tempfile.TemporaryDirectory() as folder:
        ptx = Path(folder) / "kernel.ptx"
        ptx.write_text(compiled.asm["ptx"])
        arch = re.search(r"^\.target (\S+?),?\s*$", compiled.asm["ptx"], re.MULTILINE)
        command = [get_ptxas(chip.target.arch).path, "-v", f"--gpu-name={arch[1] if arch else chip.name}", str(ptx)]
        told = subprocess.run([*command, "-o", str(ptx.with_suffix(".o"))], capture_output=True, text=True, check=True)
    text = told.stderr + told.stdout
    spills = [int(n) for n in re.findall(r"(\d+) bytes spill (?:stores|loads)", text)]
    registers = re.search(r"Used (\d+) registers", text)
    return (int(registers[1]) if registers else 0), max(spills, default=0)


def _amd_registers(compiled: CompiledKernel) -> tuple[int, int]:
    """(vector registers a thread, bytes spilled a thread) from the assembly's kernel descriptor."""

    def field(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", compiled.asm["amdgcn"])
        return int(found[1]) if found else 0

    return field("vgpr_count"), 4 * field("vgpr_spill_count")


def compile_one(spec: AotSpec, chip: Chip) -> Report:
    """Compile ``spec`` for ``chip``; a refusal of the compiler is told in the report, not raised."""
    try:
        compiled = triton.compile(
            _source(spec), target=chip.target, options={"num_warps": spec.num_warps, "num_stages": spec.num_stages}
        )
        nvidia = chip.target.backend == "cuda"
        registers, spill_bytes = _nvidia_registers(compiled, chip) if nvidia else _amd_registers(compiled)
    except Exception as error:  # the compiler raises many types, and each means the same here
        return Report(spec.name, chip.name, error=f"{type(error).__name__}: {error}".strip()[-300:])
    return Report(spec.name, chip.name, registers, spill_bytes, compiled.metadata.shared)


def headline() -> str:
    """What a report rests on: Triton's version, the limit of spills, and the text of the kernels."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted([root / "aot.py", *root.glob("*/triton_impl.py")]):
        digest.update(path.read_bytes())
    sources = digest.hexdigest()[:16]
    return f"triton {triton.__version__}; spills allowed: {MAX_SPILL_BYTES} bytes a thread; sources {sources}"


@functools.cache
def all_specs() -> list[AotSpec]:
    """Every kernel of :data:`KERNEL_MODULES`, in their order."""
    return [spec for module in KERNEL_MODULES for spec in importlib.import_module(module).AOT_SPECS]


def _compile_numbered(job: tuple[int, int]) -> Report:
    # numbers, because a kernel cannot be pickled
    return compile_one(all_specs()[job[0]], CHIPS[job[1]])


def jobs(*, only: str = "", sample: bool = False) -> list[tuple[int, int]]:
    """What is to be compiled, by number: (spec, chip).

    Args:
        only: those whose name contains it. sample: of each kernel one, the chips in turn.
    """
    found = [
        (i, j)
        for i, spec in enumerate(all_specs())
        for j, chip in enumerate(CHIPS)
        if only in spec.name and spec.backend in ("", chip.target.backend)
    ]
    if not sample:
        return found
    kernels: dict[int, list[tuple[int, int]]] = {}
    for i, j in found:
        kernels.setdefault(id(all_specs()[i].kernel), []).append((i, j))
    in_turn = [n % len(CHIPS) for n in range(len(kernels))]
    return [
        next((job for job in of_one if job[1] == j), of_one[0])
        for of_one, j in zip(kernels.values(), in_turn, strict=True)
    ]


def main(argv: list[str] | None = None) -> int:
    """Print the table; 0 if every kernel may ship for every chip, else 1."""
    parser = argparse.ArgumentParser(prog="python -m kernels.bench.aot", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="kernels whose name contains TEXT")
    parser.add_argument("--sample", action="store_true", help="one configuration of each kernel, the chips in turn")
    options = parser.parse_args(argv)
    print(headline())
    print(f"{'kernel':<44}{'chip':<9}{'registers':>9}{'spills B':>10}{'shared B':>10}")
    numbers = jobs(only=options.only, sample=options.sample)
    failures = 0
    with ProcessPoolExecutor() as pool:
        for (_, j), report in zip(numbers, pool.map(_compile_numbered, numbers), strict=True):
            problem = report.problem(CHIPS[j])
            failures += bool(problem)
            row = f"{report.kernel:<44}{report.chip:<9}"
            row += f"{report.registers:>9}{report.spill_bytes:>10}{report.shared_bytes:>10}"
            print(row + (f"  FAILED: {problem}" if problem else ""), flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
