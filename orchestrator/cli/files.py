"""Sweep files on their way to the coordinator: read, merged with their bases, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from orchestrator.cli.connect import read_file
from orchestrator.forecast import forecast
from orchestrator.matching import Sizer
from orchestrator.packages import Package, pack
from orchestrator.report import PlanDocument
from orchestrator.spec.compose import compose
from orchestrator.spec.document import Document
from orchestrator.spec.operations import code_of
from orchestrator.submit import Accepted, check, plan_document


@dataclass(frozen=True, slots=True)
class SweepFile:
    """A checked sweep file. text: what the coordinator gets: the file itself, or what it was merged to.

    package: of the code that it brings; None where it brings none.
    """

    document: Document
    text: str
    accepted: Accepted
    package: Package | None = None

    def plan(self, sizer: Sizer | None) -> PlanDocument:
        """What it would do, as far as this machine alone can tell. sizer: where sizes and time are asked for."""
        told = forecast(self.accepted.spec, self.accepted.plan, sizer) if sizer else None
        return plan_document(self.accepted, 0, told)


def load(path: Path, profile: str | None, assignments: Sequence[str], sizer: Sizer) -> SweepFile:
    """Read, merge and check a sweep file; the cluster's size is the coordinator's to check.

    Args:
        sizer: works out sizes, for `match`.

    Raises:
        BadInput: with every complaint.
    """
    texts: dict[Path, str] = {}

    def read(each: Path) -> str:
        texts[each] = read_file(each)
        return texts[each]

    document = compose(path, read, profile=profile, assignments=assignments)
    package = _package(document, path)
    if package is not None:
        assignments = [*assignments, f"code.package={package.name}", "code.path=null"]
        document = compose(path, read, profile=profile, assignments=assignments)
    merged = len(texts) > 1 or profile is not None or bool(assignments)
    text = _merged_text(document, texts, profile, assignments) if merged else texts[path]
    return SweepFile(document, text, check(document, None, sizer), package)


def _package(document: Document, file: Path) -> Package | None:
    """Of `code`, whose path is told from the sweep file's own place."""
    code = code_of(document.data.get("code"))
    path = code.get("path") if isinstance(code, Mapping) else None
    if not isinstance(path, str) or not path:
        return None
    return pack(file.parent / path)


def origins(document: Document) -> list[tuple[str, str, str]]:
    """(dotted name, value, place) of every value of a merged file."""
    rows = []
    for path, position in sorted(document.values.items(), key=lambda item: [str(part) for part in item[0]]):
        value = document.data
        try:
            for part in path:
                value = value[part]
        except (KeyError, IndexError, TypeError):
            continue
        if path and not isinstance(value, dict | list):
            rows.append((".".join(map(str, path)), str(value), str(position)))
    return rows


def _merged_text(document: Document, texts: dict[Path, str], profile: str | None, assignments: Sequence[str]) -> str:
    parts = [*map(str, texts), *([f"--profile {profile}"] if profile else []), *(f"--set {a}" for a in assignments)]
    return f"# merged from {', '.join(parts)}\n" + yaml.safe_dump(document.data, sort_keys=False, allow_unicode=True)
