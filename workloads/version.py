"""Which code trains: a hash of the sources that determine a trial's numbers. Torch-free."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("workloads", "kernels")


def code_version(packages: Sequence[str] = PACKAGES) -> str:
    """sha256 over path and content of every Python file of `packages`, as they are on disk now; nothing is imported.

    Raises:
        ModuleNotFoundError: a package is not installed.
    """
    found = hashlib.sha256()
    for package in packages:
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError(f"no package {package!r} to take a hash of", name=package)
        for root in map(Path, spec.submodule_search_locations):
            for path in sorted(root.rglob("*.py")):
                content = path.read_bytes()
                found.update(f"{package}/{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
                found.update(content)
    return found.hexdigest()
