"""YAML text as plain data that remembers where everything stood.

Numbers follow YAML 1.2's core schema, so `1e-4` is a number and `no` is a word (YAML 1.1, which most Python readers
speak, has both the other way round). Tags, duplicate keys and anything that could blow up are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from orchestrator.errors import BadInput, Complaint

MAX_BYTES = 1_000_000
MAX_NODES = 100_000  # after aliases are written out; a "billion laughs" file stops here
MAX_DEPTH = 40
MAX_OPEN = 1000

Path = tuple[str | int, ...]

_INT = re.compile(r"[-+]?[0-9](_?[0-9])*")
_HEX = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9](_?[0-9])*(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS = {"null": None, "~": None, "": None, "true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or something else that was typed (`--set`), by name and lines."""

    name: str
    lines: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Position:
    """1-based line and column of a source."""

    line: int
    column: int
    source: Source

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line}"


@dataclass(slots=True)
class Document:
    """Parsed YAML: `data` is dicts, lists and scalars; positions of keys and of values by path."""

    source: Source
    data: Any = None
    keys: dict[Path, Position] = field(default_factory=dict)
    values: dict[Path, Position] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """Name of the source that messages mean where there is no better place."""
        return self.source.name

    def complaint(self, path: Path, message: str, hint: str = "", *, at_key: bool = False) -> Complaint:
        """A complaint about what stands at `path`, or at the nearest thing around it that has a place."""
        table = self.keys if at_key else self.values
        for length in range(len(path), -1, -1):
            position = table.get(path[:length]) or self.values.get(path[:length])
            if position:
                return self._at(position, message, hint)
        return Complaint(message, self.file, hint=hint)

    def move(self, old: Path, new: Path, value: Any) -> None:
        """`value`, which stands at `old`, has its places at `new`, too, and so has what is below it."""
        for suffix in _paths(value):
            for table in (self.keys, self.values):
                if old + suffix in table:
                    table[new + suffix] = table[old + suffix]

    def _at(self, position: Position, message: str, hint: str = "") -> Complaint:
        lines = position.source.lines
        text = lines[position.line - 1] if 0 < position.line <= len(lines) else ""
        return Complaint(message, position.source.name, position.line, position.column, text[:200], hint)

    def place(self, mark: yaml.Mark) -> Position:
        """PyYAML's mark as a position."""
        return Position(mark.line + 1, mark.column + 1, self.source)


def _paths(value: Any) -> Iterator[Path]:
    yield ()
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        for path in _paths(below):
            yield (key, *path)


def parse_document(text: str | bytes, file: str) -> Document:
    """Read one YAML document.

    Raises:
        BadInput: with every duplicate key, tag and unreadable value, or the one syntax error.
    """
    text = _decoded(text, file)
    document = Document(Source(file, tuple(text.splitlines())))
    if _open_brackets(text) > MAX_OPEN:
        raise BadInput([Complaint(f"nested deeper than {MAX_DEPTH} levels", file)])
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        if mark is None:
            raise BadInput([Complaint(f"not YAML: {problem}", file)]) from None
        hint = "Indent with spaces." if "\\t" in problem else ""
        raise BadInput([document._at(document.place(mark), f"not YAML: {problem}", hint)]) from None
    except (yaml.YAMLError, ValueError) as error:
        raise BadInput([Complaint(f"not YAML: {_one_line(error)}", file)]) from None
    except RecursionError:
        raise BadInput([Complaint(f"nested deeper than {MAX_DEPTH} levels", file)]) from None
    if node is None:
        raise BadInput([Complaint("the file is empty", file, hint="`orch submit --help` shows a first sweep.")])
    complaints: list[Complaint] = []
    document.data = _Builder(document, complaints).build(node, (), 0)
    if complaints:
        raise BadInput(complaints)
    return document


def expect_mapping(document: Document) -> None:
    """Raises BadInput unless the document is a mapping, as every sweep file is."""
    if not isinstance(document.data, dict):
        kind = "a list" if isinstance(document.data, list) else "a single value"
        message = f"a sweep file is a mapping with `name`, `workload`, ...; this is {kind}"
        raise BadInput([document.complaint((), message)])


class _Loader(yaml.SafeLoader):
    """Resolves no tags by itself, so that a tag on a node is one that the file wrote."""

    yaml_implicit_resolvers: dict = {}  # noqa: RUF012  PyYAML reads it from the class


class _Builder:
    """Walks the nodes once, collecting complaints instead of stopping at the first."""

    def __init__(self, document: Document, complaints: list[Complaint]) -> None:
        self.document = document
        self.complaints = complaints
        self.nodes = 0

    def build(self, node: yaml.Node, path: Path, depth: int) -> Any:
        self.nodes += 1
        position = self.document.place(node.start_mark)
        if self.nodes > MAX_NODES:
            raise BadInput(
                [self.document._at(position, f"more than {MAX_NODES:,} values once aliases are written out")]
            )
        if depth > MAX_DEPTH:
            raise BadInput([self.document._at(position, f"nested deeper than {MAX_DEPTH} levels")])
        self.document.values[path] = position
        if not node.tag.startswith("tag:yaml.org,2002:") or node.tag[18:] not in ("str", "seq", "map"):
            self._complain(position, f"the tag {node.tag!r} is not allowed: a sweep file is plain data")
            return None
        if isinstance(node, yaml.MappingNode):
            return dict(self._items(node, path, depth))
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*path, i), depth + 1) for i, child in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node, position)

    def _items(self, node: yaml.MappingNode, path: Path, depth: int) -> Iterator[tuple[str, Any]]:
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            position = self.document.place(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                self._complain(position, "a key must be a word")
                continue
            key = key_node.value
            if key in seen:
                self._complain(
                    position, f"the key {key!r} stands here a second time; it is on line {seen[key]} already"
                )
                continue
            seen[key] = position.line
            self.document.keys[(*path, key)] = position
            yield key, self.build(value_node, (*path, key), depth + 1)

    def _scalar(self, node: yaml.ScalarNode, position: Position) -> Any:
        text = node.value
        if node.style is not None:
            return text
        if text.lower() in _WORDS and text in (text.lower(), text.capitalize(), text.upper()):
            return _WORDS[text.lower()]
        if _INT.fullmatch(text):
            if len(text) > 30:
                self._complain(position, f"the number {text[:20]}… has {len(text)} digits")
                return None
            return int(text)
        if _HEX.fullmatch(text):
            return int(text, 0)
        if _FLOAT.fullmatch(text):
            number = float(text)
            if math.isinf(number):
                self._complain(position, f"the number {text[:40]} is too large")
            return number
        if text.lower().lstrip("+-") in (".inf", ".nan"):
            self._complain(position, f"{text} is not a usable number")
            return None
        return text

    def _complain(self, position: Position, message: str) -> None:
        self.complaints.append(self.document._at(position, message))


def _open_brackets(text: str) -> int:
    """The most that are open at once, quoted ones included: the reader's time grows with the square of it."""
    depth = deepest = 0
    for sign in re.findall(r"[\[\]{}]", text):
        depth = depth + 1 if sign in "[{" else max(depth - 1, 0)
        deepest = max(deepest, depth)
    return deepest


def _decoded(text: str | bytes, file: str) -> str:
    if len(text) > MAX_BYTES:
        raise BadInput([Complaint(f"the file has {len(text):,} bytes; a sweep file has at most {MAX_BYTES:,}", file)])
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text[: error.start].count(b"\n") + 1
        raise BadInput([Complaint("the file is not UTF-8", file, line, hint="Save it as UTF-8.")]) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
