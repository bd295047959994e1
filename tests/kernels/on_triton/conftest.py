"""Triton kernels against their references.

With a GPU these tests run on it, in the ordinary test process. Without one they need Triton's interpreter, which must
be chosen before the first import of Triton: ``tests/kernels/test_interpreter.py`` starts a process for each file here
with ``TRITON_INTERPRET=1``, and the ordinary process passes them by.
"""

import torch

from kernels.backend import triton_is_installed, triton_is_interpreted

if not triton_is_installed() or not (torch.cuda.is_available() or triton_is_interpreted()):
    collect_ignore_glob = ["test_*.py"]
