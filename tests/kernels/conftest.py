"""Random inputs that are the same in every run, and both CPU forms of an operation."""

import pytest
import torch

from kernels import native


@pytest.fixture
def random():
    """float64 normal numbers of a shape, that ask for a gradient."""
    gen = torch.Generator().manual_seed(0)
    return lambda *shape, dtype=torch.float64: torch.randn(*shape, generator=gen, dtype=dtype).requires_grad_()


@pytest.fixture(params=["native", "pytorch"])
def cpu_form(request, monkeypatch):
    """The C form where it can be built, and the PyTorch form that stands in for it."""
    if request.param == "pytorch":
        monkeypatch.setattr(native, "load", lambda source, real: None)
    elif native._compiler() is None:
        pytest.skip("no C compiler on this machine")
    return request.param
