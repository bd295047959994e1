"""C sources of the CPU forms: built once with the system's compiler, kept by content, loaded through ctypes.

Where there is no compiler the caller takes its PyTorch form. ``ORCH_NATIVE=0`` asks for that too.
The libraries lie in ``$ORCH_KERNEL_CACHE``, else in ``orch/kernels`` under the user's cache folder.
"""

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import torch

_FLAGS = ("-O3", "-std=gnu11", "-shared", "-fPIC", "-fno-math-errno", "-ffp-contract=fast")
_BUILD_TIMEOUT_S = 120
_log = logging.getLogger(__name__)


def _cache_folder() -> Path:
    chosen = os.environ.get("ORCH_KERNEL_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "orch/kernels"


def _compiler() -> str | None:
    names = (os.environ.get("CC", ""), "cc", "gcc", "clang")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def _build(source: Path) -> Path | None:
    compiler = _compiler()
    if compiler is None:
        _log.info("no C compiler found; %s runs in its PyTorch form", source.name)
        return None
    text = source.read_bytes()
    key = hashlib.sha256(b"\0".join([text, compiler.encode(), " ".join(_FLAGS).encode(), platform.machine().encode()]))
    library = _cache_folder() / f"{source.stem}-{key.hexdigest()[:16]}.so"
    if library.exists():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    # several workers may build at once: each writes its own file, and the rename is atomic
    handle, built = tempfile.mkstemp(suffix=".so", dir=library.parent)
    os.close(handle)
    command = [compiler, *_FLAGS, "-o", built, str(source), "-lm"]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_BUILD_TIMEOUT_S)
    if told.returncode != 0:
        Path(built).unlink()
        _log.warning("%s could not build %s, which runs in its PyTorch form: %s", compiler, source.name, told.stderr)
        return None
    return Path(built).replace(library)


@functools.cache
def load(source: Path) -> ctypes.CDLL | None:
    """The library built from ``source``, or None where it cannot be built here (told once in the log)."""
    if os.environ.get("ORCH_NATIVE") == "0":
        return None
    try:
        library = _build(source)
        return ctypes.CDLL(str(library)) if library else None
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.warning("%s could not be built or loaded and runs in its PyTorch form: %s", source.name, error)
        return None


def parallel(work: Callable[[int, int], None], items: int, grain: int) -> None:
    """Call ``work(first, end)`` on disjoint parts of ``range(items)``, on as many threads as PyTorch may use.

    ctypes lets go of the interpreter's lock during a call, so the parts run at the same time. The threads end with
    the call: a pool that outlives it would hang in a forked data loader. ``grain`` is the least number of items that
    is worth a thread.
    """
    parts = max(1, min(torch.get_num_threads(), items // max(grain, 1)))
    bounds = [items * i // parts for i in range(parts + 1)]
    threads = [threading.Thread(target=work, args=(bounds[i], bounds[i + 1])) for i in range(1, parts)]
    for thread in threads:
        thread.start()
    work(bounds[0], bounds[1])
    for thread in threads:
        thread.join()
