"""C sources of the CPU forms: built once with the system's compiler, kept by content, called through ctypes.

Where there is no compiler the caller takes its PyTorch form. ``ORCH_NATIVE=0`` asks for that too.
The libraries lie in ``$ORCH_KERNEL_CACHE``, else in ``orch/kernels`` under the user's cache folder.
"""

import ctypes
import functools
import hashlib
import logging
import mmap
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

REAL = {torch.float32: "float", torch.float64: "double", torch.complex64: "float", torch.complex128: "double"}
"""The C type that a source is built for, as its macro REAL."""

# vectors are read as their halves in the sources, hence -fno-strict-aliasing
_FLAGS = (
    *("-O3", "-std=gnu11", "-march=native", "-shared", "-fPIC"),
    *("-fno-math-errno", "-ffp-contract=fast", "-fno-strict-aliasing"),
)
_HEADER = Path(__file__).with_name("vectors.h")
_BUILD_TIMEOUT_S = 120
_HUGE_BYTES = 4 << 20  # two huge pages: a smaller tensor need not hold a whole one
_log = logging.getLogger(__name__)


def _cache_folder() -> Path:
    chosen = os.environ.get("ORCH_KERNEL_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "orch/kernels"


def _compiler() -> str | None:
    names = (os.environ.get("CC", ""), "cc", "gcc", "clang")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def _processor() -> str:
    """What -march=native stands for: a cache on a shared disk serves machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _build(source: Path, real: str) -> Path | None:
    compiler = _compiler()
    if compiler is None:
        _log.info("no C compiler found; %s runs in its PyTorch form", source)
        return None
    options = [*_FLAGS, f"-DREAL={real}", f"-I{_HEADER.parent}"]
    key = hashlib.sha256(source.read_bytes() + _HEADER.read_bytes())
    key.update("\0".join([compiler, *options, platform.machine(), _processor()]).encode())
    library = _cache_folder() / f"{source.parent.name}-{source.stem}-{real}-{key.hexdigest()[:16]}.so"
    if library.exists():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    # several workers may build at once: each writes its own file, and the rename is atomic
    handle, built = tempfile.mkstemp(suffix=".so", dir=library.parent)
    os.close(handle)
    command = [compiler, *options, "-o", built, str(source), "-lm"]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_BUILD_TIMEOUT_S)
    if told.returncode != 0:
        Path(built).unlink()
        _log.warning("%s could not build %s, which runs in its PyTorch form: %s", compiler, source, told.stderr)
        return None
    return Path(built).replace(library)


@functools.cache
def load(source: Path, real: str) -> ctypes.CDLL | None:
    """``source`` built with the macro REAL as ``real``, or None where it cannot be built (told once in the log)."""
    if os.environ.get("ORCH_NATIVE") == "0":
        return None
    try:
        library = _build(source, real)
        return ctypes.CDLL(str(library)) if library else None
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.warning("%s could not be built or loaded and runs in its PyTorch form: %s", source, error)
        return None


def can_run(source: Path, x: Tensor) -> bool:
    """Whether ``source`` can serve ``x``: on the CPU, of a dtype that it knows, and built here."""
    return x.device.type == "cpu" and x.dtype in REAL and load(source, REAL[x.dtype]) is not None


def call(source: Path, name: str, dtype: torch.dtype, *arguments: object) -> None:
    """Call the function ``name``, which returns 0; tensors pass as their addresses.

    Raises:
        MemoryError: the function found no memory for its workspace.
    """
    library = load(source, REAL[dtype])
    assert library is not None, "asked for a C form that can_run denied"
    passed = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else a for a in arguments]
    if library[name](*passed) != 0:
        raise MemoryError(f"{source.parent.name}.{name}: no memory for the workspace of one thread")


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """``torch.empty`` on the CPU; where it is large and the system has them, on huge pages.

    Fresh memory is mapped as it is first written, and 4 KiB at a time that takes longer than a recurrence over it.
    """
    x = torch.empty(shape, dtype=dtype)
    if x.nbytes >= _HUGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        start = -(-x.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        length = x.data_ptr() + x.nbytes - start
        # advice alone: where it is refused the pages are small
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), mmap.MADV_HUGEPAGE)
    return x


def rows(x: Tensor) -> Tensor:
    """``x``, copied only if its last axis is not contiguous or its conjugate is still to be taken."""
    x = x.resolve_conj().resolve_neg()
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def integers(*values: int) -> ctypes.Array[ctypes.c_int64]:
    """The values as ``int64_t[]``."""
    return (ctypes.c_int64 * len(values))(*values)


def strides(x: Tensor) -> ctypes.Array[ctypes.c_int64]:
    """The strides of all axes but the last, in elements, as ``int64_t[]``."""
    return integers(*x.stride()[:-1])


def parallel(work: Callable[[int, int], None], items: int, grain: int) -> None:
    """Call ``work(first, end)`` on disjoint parts of ``range(items)``, on as many threads as PyTorch may use.

    ctypes lets go of the interpreter's lock during a call, so the parts run at the same time. The threads end with
    the call: a pool that outlives it would hang in a forked data loader. ``grain`` is the least number of items that
    is worth a thread.

    Raises:
        BaseException: the first that a part raised.
    """
    parts = max(1, min(torch.get_num_threads(), items // max(grain, 1)))
    bounds = [items * i // parts for i in range(parts + 1)]
    errors: list[BaseException] = []

    def part(i: int) -> None:
        try:
            work(bounds[i], bounds[i + 1])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=part, args=(i,)) for i in range(1, parts)]
    for thread in threads:
        thread.start()
    part(0)
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
