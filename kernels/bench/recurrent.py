"""What the recurrent kernels cost, as ratios against named peers that run beside them.

    python -m kernels.bench.recurrent [--device cuda] [--repeats 9]

Each repeat times the kernel and its peer one after the other, so that both see the same machine; the ratio is the
median over the repeats of kernel time / peer time (below 1: the kernel is faster). The lines name their goals.
"""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from kernels import chunk_gla, fused_rnn, gated_delta_rule, linear_scan, native

Work = Callable[[], object]


@dataclass(frozen=True)
class Comparison:
    """A kernel's work and a peer's."""

    name: str
    peer: str
    kernel: Work
    other: Work


def _time_s(work: Work, device: str) -> float:
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(comparison: Comparison, repeats: int, device: str) -> str:
    """One line: median times in ms, and the median of the ratios of the pairs."""
    for work in (comparison.kernel, comparison.other):
        _time_s(work, device)
    pairs = [(_time_s(comparison.kernel, device), _time_s(comparison.other, device)) for _ in range(repeats)]
    kernel_ms, other_ms = (1e3 * statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    return f"{comparison.name:<52}{comparison.peer:<28}{kernel_ms:>10.2f}{other_ms:>10.2f}{ratio:>9.3f}"


def _with_gradient(function: Callable[..., object], inputs: list[Tensor]) -> Work:
    def work() -> object:
        out = function(*inputs)
        first = out[0] if isinstance(out, tuple) else out
        assert isinstance(first, Tensor)
        return torch.autograd.grad(first.sum(), inputs)

    return work


def scan_comparisons(device: str) -> list[Comparison]:
    """linear_scan at [8, 2048, 512] float32: goals are 1 against three passes, and 0.05 against the loop."""
    a, x = torch.rand(8, 2048, 512, device=device), torch.randn(8, 2048, 512, device=device)

    def passes() -> None:
        for _ in range(3):
            torch.mul(a, x)

    small = [t[:2, :512, :128].contiguous().requires_grad_() for t in (a, x)]
    name = "linear_scan [8, 2048, 512]"
    return [
        Comparison(name, "3 element-wise passes a*x", lambda: linear_scan(a, x), passes),
        Comparison(name, "step loop", lambda: linear_scan(a, x), lambda: linear_scan(a, x, backend="reference")),
        Comparison(
            "linear_scan [2, 512, 128] with gradient",
            "step loop with gradient",
            _with_gradient(linear_scan, small),
            _with_gradient(partial(linear_scan, backend="reference"), small),
        ),
    ]


def _chunk_products(programs: int, size: int, keys: int, values: int, device: str) -> Work:
    """The four products of a chunk of linear attention: 2·T·(C(K + V) + 2·K·V) FLOPs a head."""
    q, k = (torch.randn(programs, size, keys, device=device) for _ in range(2))
    v, s = torch.randn(programs, size, values, device=device), torch.randn(programs, keys, values, device=device)

    def work() -> None:
        torch.bmm(torch.bmm(q, k.transpose(1, 2)), v)
        torch.bmm(q, s)
        torch.bmm(k.transpose(1, 2), v)

    return work


def _delta_products(programs: int, size: int, keys: int, values: int, device: str) -> Work:
    """Those of the delta rule beside them: K Kᵀ, the inverse times [V, K], and W S."""
    attention = _chunk_products(programs, size, keys, values, device)
    k, inverse = (torch.randn(programs, size, n, device=device) for n in (keys, size))
    right, s = (
        torch.randn(programs, size, keys + values, device=device),
        torch.randn(programs, keys, values, device=device),
    )

    def work() -> None:
        attention()
        torch.bmm(k, k.transpose(1, 2))
        torch.bmm(inverse, right)
        torch.bmm(k, s)

    return work


def _three_times(work: Work) -> Work:
    def thrice() -> None:
        for _ in range(3):
            work()

    return thrice


def matrix_state_comparisons(device: str) -> list[Comparison]:
    """chunk_gla and gated_delta_rule, float32, chunk 64: the goal is 2 against the same FLOPs as products."""
    comparisons = []
    for batch, steps, heads, size in ((2, 2048, 4, 64), (2, 1024, 4, 128), (8, 256, 4, 32)):
        shape = (batch, steps, heads, size)
        q, k, v = (torch.randn(shape, device=device).requires_grad_() for _ in range(3))
        k = torch.nn.functional.normalize(k.detach(), dim=-1).requires_grad_()
        g = (-0.1 * torch.rand(shape, device=device)).requires_grad_()
        beta, g_head = torch.rand(shape[:3], device=device).requires_grad_(), g.detach()[..., 0].requires_grad_()
        programs = batch * heads * steps // 64
        for name, function, inputs, products in (
            ("chunk_gla", chunk_gla, [q, k, v, g], _chunk_products),
            ("gated_delta_rule", gated_delta_rule, [q, k, v, beta, g_head], _delta_products),
        ):
            peer = products(programs, 64, size, size, device)
            plain = [x.detach() for x in inputs]
            label = f"{name} {list(shape)}"
            gradient = _with_gradient(function, inputs)
            comparisons += [
                Comparison(label, "its products, bmm", partial(function, *plain), peer),
                Comparison(f"{label} with gradient", "3 x its products", gradient, _three_times(peer)),
            ]
    return comparisons


def rnn_comparisons(device: str) -> list[Comparison]:
    """fused_rnn, 16 rows of 256 steps, 4 heads of 32, float32, forward and gradient."""
    comparisons = []
    x = torch.randn(16, 256, 128, device=device)
    for cell, gates, library in (("lstm", 4, torch.nn.LSTM), ("gru", 3, torch.nn.GRU), ("slstm", 4, None)):
        w_ih, w_hh = (
            torch.randn(gates * 128, 128, device=device) / 12,
            torch.randn(4, gates * 32, 32, device=device) / 6,
        )
        bias = torch.zeros(gates * 128, device=device)
        inputs = [t.requires_grad_() for t in (x.clone(), w_ih, w_hh, bias, bias.clone())]
        name = f"fused_rnn {cell} 4 heads of 32, with gradient"
        kernel = _with_gradient(partial(fused_rnn, cell), inputs)
        loop = _with_gradient(partial(fused_rnn, cell, backend="reference"), inputs)
        comparisons.append(Comparison(name, "step loop with gradient", kernel, loop))
        if library is not None:
            layer = library(128, 128, batch_first=True, device=device)
            dense = _with_gradient(layer, [inputs[0]])
            comparisons.append(Comparison(name, f"nn.{library.__name__} 128, dense", kernel, dense))
    return comparisons


def _machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return f"{model}, {torch.get_num_threads()} threads of {os.cpu_count()}"


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m kernels.bench.recurrent", description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args(argv)
    torch.manual_seed(0)
    compiled = native._compiler() or "none"
    print(f"{time.strftime('%Y-%m-%d')}  torch {torch.__version__}  {_machine(options.device)}  C compiler {compiled}")
    print(f"{'kernel':<52}{'peer':<28}{'ms':>10}{'peer ms':>10}{'ratio':>9}")
    for group in (scan_comparisons, matrix_state_comparisons, rnn_comparisons):
        for comparison in group(options.device):
            print(measure(comparison, options.repeats, options.device), flush=True)


if __name__ == "__main__":
    main()
