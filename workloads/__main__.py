"""`python -m workloads.train CONFIG.yaml`: train one trial in this terminal, without the service."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from workloads.budget import Budget
from workloads.config import TrialConfig
from workloads.errors import WorkloadError
from workloads.train import Row, train

SHOWN = ("train_loss", "lr", "grad_norm", "tokens_per_s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, with a line a report. Returns the exit status: 0, 1 for a trial that failed, 2 for a wrong request."""
    request = _parser().parse_args(arguments)
    try:
        trial = TrialConfig.parse(_document(request.config, request.set or []))
        rows = train(trial, checkpoint_dir=request.checkpoint_dir, resume_from=_resume_from(request))
    except ValueError as error:
        _say(f"error: {error}", sys.stderr)
        return 2
    except WorkloadError as error:
        _say(f"error: {error}", sys.stderr)
        return 1
    try:
        for number, row in enumerate(rows):
            _say(_constants(row) if number == 0 else "")
            _say(_line(row, trial.training.steps, everything=request.all))
    except WorkloadError as error:
        _say(f"error: {error}", sys.stderr)
        return 1
    except KeyboardInterrupt:
        _say("stopped", sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workloads.train", description=__doc__)
    parser.add_argument("config", type=Path, help="YAML of one trial (task, model, training, seed), or a sweep file")
    parser.add_argument(
        "--set", action="append", metavar="KEY=VALUE", help="change one value, e.g. training.lr=0.01; may be repeated"
    )
    parser.add_argument("--checkpoint-dir", type=Path, metavar="DIR", help="write checkpoints here")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --checkpoint-dir")
    parser.add_argument("--all", action="store_true", help="print every column, those of routing and gates too")
    return parser


def _resume_from(request: argparse.Namespace) -> Path | None:
    if request.resume and request.checkpoint_dir is None:
        raise ValueError("--resume needs --checkpoint-dir, the directory to go on from.")
    return request.checkpoint_dir if request.resume else None


def _document(path: Path, changes: Sequence[str]) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}. Give the path of a YAML file.") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path} holds {type(document).__name__}, expected a mapping with task, model, training.")
    # A sweep file's `workload` is the part that all its trials share
    document = document.get("workload", document)
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise ValueError(f"--set {change!r} has no '='. Write KEY=VALUE, e.g. training.lr=0.01.")
        _put(document, key.split("."), yaml.safe_load(value))
    return document


def _put(node: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for part in path[:-1]:
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            raise ValueError(
                f"--set {'.'.join(path)}: {part!r} is {child!r}, not a mapping, so it has no {path[-1]!r}."
            )
        node = child
    node[path[-1]] = value


def _constants(row: Row) -> str:
    constants = {name: value for name, value in row.items() if _is_constant(name)}
    return "  ".join(
        f"{name} {value:.5g}" if isinstance(value, float) else f"{name} {value}" for name, value in constants.items()
    )


def _line(row: Row, steps: int, *, everything: bool) -> str:
    def is_shown(name: str) -> bool:
        # An alarm is news; that there is none is not
        return everything or name in SHOWN or name.startswith("val_") or (name.startswith("health/") and row[name] > 0)

    columns = [name for name in row if name != "step" and not _is_constant(name) and is_shown(name)]
    return f"step {row['step']}/{steps}  " + "  ".join(f"{name} {row[name]:.5g}" for name in columns)


def _is_constant(name: str) -> bool:
    return name in Budget.__dataclass_fields__ or name == "data_checksum" or name.startswith("baseline/")


def _say(text: str, stream: Any = None) -> None:
    if text:
        print(text, file=stream or sys.stdout, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
