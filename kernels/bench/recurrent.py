"""What the recurrent kernels cost, as ratios against named peers that run beside them.

    python -m kernels.bench.recurrent [--device cuda] [--repeats 9]

Each repeat times the kernel and its peer one after the other, so that both see the same machine; the ratio is the
median over the repeats of kernel time / peer time (below 1: the kernel is faster). The lines name their goals.

On a GPU the chunked forms run in bfloat16, and have further peers: a copy of as many bytes (its time over the scan's is
the share of the copy bandwidth), PyTorch's chunked forms eager and compiled, and flash-linear-attention's kernels where
it is installed; `their products` give the share of the matrix rate.
"""

import argparse
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from kernels import chunk_gla, fused_rnn, gated_delta_rule, linear_scan, native
from kernels.bench.timing import Work, in_turns, machine
from kernels.chunk_gla.chunked import chunk_gla as gla_in_pytorch
from kernels.gated_delta_rule.chunked import gated_delta_rule as delta_in_pytorch


@dataclass(frozen=True)
class Comparison:
    """A kernel's work and a peer's."""

    name: str
    peer: str
    kernel: Work
    other: Work


def measure(comparison: Comparison, repeats: int, device: str) -> str:
    """One line: median times in ms, and the median of the ratios of the pairs."""
    kernel_ms, other_ms, ratio = in_turns(comparison.kernel, comparison.other, repeats, device)
    return f"{comparison.name:<52}{comparison.peer:<36}{kernel_ms:>10.2f}{other_ms:>10.2f}{ratio:>9.3f}"


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

    def loop(a: Tensor, x: Tensor) -> Tensor:
        h, states = torch.zeros_like(x[:, 0]), []
        for a_t, x_t in zip(a.unbind(1), x.unbind(1), strict=True):  # whose gradient, unlike an index's, is one stack
            h = a_t * h + x_t
            states.append(h)
        return torch.stack(states, dim=1)

    whole = [t.clone().requires_grad_() for t in (a, x)]
    small = [t[:2, :512, :128].contiguous().requires_grad_() for t in (a, x)]
    name = "linear_scan [8, 2048, 512]"
    source, target = (torch.empty(3 * x.numel() // 2, device=device) for _ in range(2))
    copied = [Comparison(name, "a copy of as many bytes", lambda: linear_scan(a, x), lambda: target.copy_(source))]
    return [
        *(copied if device == "cuda" else []),
        Comparison(name, "3 element-wise passes a*x", lambda: linear_scan(a, x), passes),
        Comparison(name, "step loop", lambda: linear_scan(a, x), lambda: linear_scan(a, x, backend="reference")),
        Comparison(
            f"{name} with gradient",
            "step loop, unbound, with gradient",
            _with_gradient(linear_scan, whole),
            _with_gradient(loop, whole),
        ),
        Comparison(
            "linear_scan [2, 512, 128] with gradient",
            "step loop with gradient",
            _with_gradient(linear_scan, small),
            _with_gradient(partial(linear_scan, backend="reference"), small),
        ),
    ]


def _dtype(device: str) -> torch.dtype:
    return torch.bfloat16 if device == "cuda" else torch.float32


def _chunk_products(programs: int, size: int, keys: int, values: int, device: str) -> Work:
    """The four products of a chunk of linear attention: 2·T·(C(K + V) + 2·K·V) FLOPs a head."""
    random = partial(torch.randn, device=device, dtype=_dtype(device))
    q, k, v = (random(programs, size, n) for n in (keys, keys, values))
    s = random(programs, keys, values)

    def work() -> None:
        torch.bmm(torch.bmm(q, k.transpose(1, 2)), v)
        torch.bmm(q, s)
        torch.bmm(k.transpose(1, 2), v)

    return work


def _delta_products(programs: int, size: int, keys: int, values: int, device: str) -> Work:
    """Those of the delta rule beside them: K Kᵀ, the inverse times [V, K], and W S."""
    attention = _chunk_products(programs, size, keys, values, device)
    random = partial(torch.randn, device=device, dtype=_dtype(device))
    k, inverse, right = (random(programs, size, n) for n in (keys, size, keys + values))
    s = random(programs, keys, values)

    def work() -> None:
        attention()
        torch.bmm(k, k.transpose(1, 2))
        torch.bmm(inverse, right)
        torch.bmm(k, s)

    return work


def _fla(name: str, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
    """flash-linear-attention's own, with the same arguments and no scale."""
    ops = importlib.import_module("fla.ops")  # absent from most machines
    q, k, v, *gates = inputs
    if name == "chunk_gla":
        o, last = ops.chunk_gla(q, k, v, *gates, scale=1.0)
    else:
        beta, log_decay = gates
        o, last = ops.chunk_gated_delta_rule(q, k, v, log_decay, beta, scale=1.0)
    return o, last


def _on_a_gpu(
    name: str, label: str, function: Callable[..., object], inputs: list[Tensor], in_pytorch: Callable[..., object]
) -> Iterator[Comparison]:
    peers = {"chunked, PyTorch eager": in_pytorch, "chunked, torch.compile": torch.compile(in_pytorch)}
    if importlib.util.find_spec("fla"):
        peers["flash-linear-attention"] = lambda *x: _fla(name, list(x))
    plain = [x.detach() for x in inputs]
    for peer, other in peers.items():
        yield Comparison(label, peer, partial(function, *plain), partial(other, *plain))
        gradients = (_with_gradient(function, inputs), _with_gradient(other, inputs))
        yield Comparison(f"{label} with gradient", peer, *gradients)


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
        q, k, v = (torch.randn(shape, device=device, dtype=_dtype(device)).requires_grad_() for _ in range(3))
        k = torch.nn.functional.normalize(k.detach(), dim=-1).requires_grad_()
        g = (-0.1 * torch.rand(shape, device=device)).requires_grad_()
        beta, g_head = torch.rand(shape[:3], device=device).requires_grad_(), g.detach()[..., 0].requires_grad_()
        programs = batch * heads * steps // 64
        for name, function, inputs, products, in_pytorch in (
            ("chunk_gla", chunk_gla, [q, k, v, g], _chunk_products, gla_in_pytorch),
            ("gated_delta_rule", gated_delta_rule, [q, k, v, beta, g_head], _delta_products, delta_in_pytorch),
        ):
            peer = products(programs, 64, size, size, device)
            plain = [x.detach() for x in inputs]
            label = f"{name} {list(shape)}"
            gradient = _with_gradient(function, inputs)
            comparisons += [
                Comparison(label, "its products, bmm", partial(function, *plain), peer),
                Comparison(f"{label} with gradient", "3 x its products", gradient, _three_times(peer)),
            ]
            if device == "cuda":
                comparisons += _on_a_gpu(name, label, function, inputs, in_pytorch)
    return comparisons


def rnn_comparisons(device: str) -> list[Comparison]:
    """fused_rnn, 16 rows of 256 steps, 4 heads of 32, float32, forward and gradient; on a GPU nn.LSTM is cuDNN's."""
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


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m kernels.bench.recurrent", description=__doc__)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args(argv)
    torch.manual_seed(0)
    compiled = native._compiler() or "none"
    print(f"{machine(options.device)}  C compiler {compiled}")
    print(f"{'kernel':<52}{'peer':<36}{'ms':>10}{'peer ms':>10}{'ratio':>9}")
    for group in (scan_comparisons, matrix_state_comparisons, rnn_comparisons):
        for comparison in group(options.device):
            print(measure(comparison, options.repeats, options.device), flush=True)


if __name__ == "__main__":
    main()
