"""What every kernel test needs: a comparison that says what went wrong, and memory that shows what nobody wrote."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
"""Where the kernel tests put their tensors."""


def relative_error(expected: Tensor, actual: Tensor) -> float:
    """``|actual - expected| / |expected|`` in the Euclidean norm, in float64; the plain norm where expected is 0."""
    wide = torch.complex128 if expected.is_complex() or actual.is_complex() else torch.float64
    e, a = expected.detach().to(wide), actual.detach().to(wide)
    scale = torch.linalg.vector_norm(e).item()
    return torch.linalg.vector_norm(a - e).item() / (scale or 1.0)


def assert_close(name: str, expected: Tensor, actual: Tensor, rel: float) -> None:
    """Fail unless shapes agree, both are finite, and :func:`relative_error` is at most ``rel``.

    Raises:
        AssertionError: naming the tensor, the error, and the worst element.
    """
    assert tuple(expected.shape) == tuple(actual.shape), (
        f"{name}: expected shape {tuple(expected.shape)}, got {tuple(actual.shape)}"
    )
    for what, tensor in (("expected", expected), ("actual", actual)):
        bad = int((~torch.isfinite(tensor)).sum())
        assert not bad, f"{name}: {bad} of {tensor.numel()} {what} values are NaN or Inf"
    error = relative_error(expected, actual)
    if error <= rel:
        return
    gap = (actual.detach() - expected.detach()).abs()
    worst = torch.unravel_index(gap.argmax(), gap.shape)
    raise AssertionError(
        f"{name}: relative error {error:.2e} is above {rel:.0e}; worst at {tuple(int(i) for i in worst)}: "
        f"expected {expected[worst].item():.6g}, got {actual[worst].item():.6g}"
    )


def _poison(tensor: Tensor) -> Tensor:
    if tensor.is_floating_point() or tensor.is_complex():
        return tensor.fill_(float("nan"))
    return tensor if tensor.dtype is torch.bool else tensor.fill_(torch.iinfo(tensor.dtype).max)


@contextmanager
def poisoned_empty() -> Iterator[None]:
    """Make torch.empty, empty_like and Tensor.new_empty return NaN (integers: the largest), so that a cell which a
    kernel forgets to write shows in the result."""
    originals: dict[str, Callable[..., Tensor]] = {"empty": torch.empty, "empty_like": torch.empty_like}
    new_empty = Tensor.new_empty

    def poisoned(name: str) -> Any:
        return lambda *args, **kwargs: _poison(originals[name](*args, **kwargs))

    with (
        patch.object(torch, "empty", poisoned("empty")),
        patch.object(torch, "empty_like", poisoned("empty_like")),
        patch.object(Tensor, "new_empty", lambda self, *args, **kwargs: _poison(new_empty(self, *args, **kwargs))),
    ):
        yield
