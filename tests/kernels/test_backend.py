"""The choice of a form, and the tools that the kernel tests rely on."""

import pytest
import torch

from kernels.backend import pick
from kernels.testing import assert_close, poisoned_empty


def test_auto_is_the_cpu_form_for_a_tensor_on_the_cpu():
    assert pick("auto", torch.zeros(1)) == "cpu"
    assert pick("reference", torch.zeros(1)) == "reference"


def test_an_unknown_backend_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="auto, reference, cpu, triton; got 'cuda'"):
        pick("cuda", torch.zeros(1))


def test_triton_for_a_cpu_tensor_needs_the_interpreter(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="TRITON_INTERPRET=1"):
        pick("triton", torch.zeros(1))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert pick("triton", torch.zeros(1)) == "triton"


def test_assert_close_names_the_tensor_the_error_and_the_worst_element():
    with pytest.raises(AssertionError, match=r"dq: relative error 1\.00e-01.*worst at \(1,\): expected 10, got 11"):
        assert_close("dq", torch.tensor([0.0, 10.0]), torch.tensor([0.0, 11.0]), rel=1e-3)
    with pytest.raises(AssertionError, match="h: 1 of 2 actual values are NaN or Inf"):
        assert_close("h", torch.zeros(2), torch.tensor([0.0, torch.nan]), rel=1e-3)


def test_memory_that_nobody_wrote_shows_as_nan():
    with poisoned_empty():
        assert torch.empty(3).isnan().all()
        assert torch.empty_like(torch.zeros(2)).isnan().all()
        assert torch.zeros(2).new_empty(4).isnan().all()
    assert not torch.empty(0).isnan().any()
