"""The sweep file: its words (`model`), its text with positions (`document`), and the way between them (`load`)."""

from orchestrator.spec.load import load_spec
from orchestrator.spec.model import SweepSpec

__all__ = ["SweepSpec", "load_spec"]
