"""`python -m workloads.serving CHECKPOINT`: what serving a trained mixture would need, and what it could do without."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from workloads.errors import WorkloadError
from workloads.serving.report import Layer, Report, report
from workloads.trained import Trained, trained


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print. Returns the exit status: 0, or 2 for a wrong request."""
    request = _parser().parse_args(arguments)
    try:
        subject = _in_passes(trained(request.checkpoint), request.batch_size, request.sequence_length)
        before = trained(request.before) if request.before else None
        found = report(subject, before=before, slots=request.slots, devices=request.devices, keep=request.keep)
    except (ValueError, WorkloadError) as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 2
    print("\n".join(_lines(subject, found)))  # noqa: T201
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workloads.serving", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a checkpoint, or a checkpoint directory (`orch show TRIAL`)")
    parser.add_argument(
        "--before", type=Path, metavar="CHECKPOINT", help="from before fine-tuning: prune by the change of router norms"
    )
    parser.add_argument("--keep", type=_number, metavar="K", help="experts a layer to keep (default: three quarters)")
    parser.add_argument(
        "--slots",
        type=_numbers,
        default=(),
        metavar="N,N",
        help="sizes of the buffer (default: a quarter, a half)",
    )
    parser.add_argument("--devices", type=_numbers, default=(2, 4), metavar="N,N", help="devices (default: 2,4)")
    parser.add_argument("--batch-size", type=_number, default=1, help="sequences a pass (default: 1)")
    parser.add_argument("--sequence-length", type=_number, help="tokens a sequence (default: as trained)")
    return parser


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive whole number, got {text!r}")
    return int(text)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(_number(part) for part in text.split(","))


def _in_passes(subject: Trained, batch_size: int, sequence_length: int | None) -> Trained:
    training = subject.trial.training
    length = sequence_length or training.sequence_length
    return replace(
        subject,
        trial=replace(subject.trial, training=replace(training, batch_size=batch_size, sequence_length=length)),
    )


def _lines(subject: Trained, found: Report) -> Iterator[str]:
    yield f"{subject.path}, step {subject.step}: {found.metric} {found.value:.4f}{_rare(found.rare)}"
    yield f"{found.batches} passes over the validation data"
    for layer in found.layers:
        yield from _layer_lines(layer)
    yield ""
    yield "pruning (a pruned choice is skipped, or its token rerouted)"
    for each in found.prunings:
        yield f"  to {each.keep} by {each.by}, {each.mode}: {found.metric} {each.metric:.4f}{_rare(each.rare)}"
    if not found.prunings:
        yield "  not defined for a gate that reads the outputs of all experts"


def _layer_lines(layer: Layer) -> Iterator[str]:
    yield ""
    yield f"{layer.name}: {len(layer.loads)} experts behind {layer.router}, {layer.assignments} assignments"
    yield "  load over mean   " + " ".join(f"{load:.2f}" for load in layer.loads)
    yield f"  padded blocks    {layer.waste:.2f} times the rows of the dropless layer"
    for each in layer.buffered:
        yield (
            f"  buffer of {each.slots:<4d}   hit rate {each.hit_rate:.3f} (LRU {each.lru:.3f}, "
            f"best possible {each.best:.3f}), {each.bytes_a_pass / 1024:.0f} KiB moved a pass"
            + (f", {each.ahead:.0%} of the turns loaded ahead" if each.ahead else "")
        )
    for place in layer.placed:
        yield (
            f"  on {place.devices} devices     largest share {place.in_order:.3f} in order, {place.greedy:.3f} greedy, "
            f"{place.anticorrelated:.3f} anticorrelated (even: {1 / place.devices:.3f})"
        )
    if layer.correlation is not None:
        yield f"  router norms     rank correlation with the loads {layer.correlation:+.2f}"


def _rare(loss: float | None) -> str:
    return "" if loss is None else f", {loss:.3f} nats on the rarest classes"


if __name__ == "__main__":
    raise SystemExit(main())
