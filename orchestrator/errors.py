"""Everything that may go wrong on purpose. The class says who must act; the message what, where and how to mend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """What `orch` returns to the shell."""

    OK = 0
    WORK_FAILED = 1
    BAD_INPUT = 2
    UNREACHABLE = 3


class OrchError(Exception):
    """Base of all errors that a person can act on; printed as one message, without a traceback."""

    exit_code = ExitCode.WORK_FAILED


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing wrong with a file that a person wrote.

    line, column: 1-based; None where the file as a whole is meant.
    source: the line of text, for the caret.
    """

    message: str
    file: str = ""
    line: int | None = None
    column: int | None = None
    source: str = ""
    hint: str = ""

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part not in (None, ""))
        text = f"{place}: {self.message}" if place else self.message
        if self.source and self.column:
            text += f"\n    {self.source}\n    {' ' * (self.column - 1)}^"
        return text + (f"\n    {self.hint}" if self.hint else "")


class BadInput(OrchError):
    """The user's input cannot be used. `complaints` lists all that is wrong; nothing was queued or changed."""

    exit_code = ExitCode.BAD_INPUT

    def __init__(self, complaints: Sequence[Complaint] | str) -> None:
        self.complaints = [Complaint(complaints)] if isinstance(complaints, str) else list(complaints)
        super().__init__("\n".join(map(str, self.complaints)))


class NotFound(BadInput):
    """No sweep or trial goes by that name or number."""


class Conflict(BadInput):
    """It is there already, or was asked for once before with other words."""


class Forbidden(OrchError):
    """The token's role or project does not allow it; nothing was changed."""

    exit_code = ExitCode.BAD_INPUT


class Unreachable(OrchError):
    """The coordinator, Ray, MLflow or the database does not answer."""

    exit_code = ExitCode.UNREACHABLE


class Denied(Unreachable):
    """The coordinator does not know the token: no use to try again."""


class StaleRow(OrchError):
    """A row is no longer as the caller saw it: somebody else moved it, and the caller's decision is void."""


class LeaseLost(OrchError):
    """Another coordinator acts by now: nothing was written."""


class IllegalMove(OrchError):
    """The state machine has no such move."""


class ClusterError(OrchError):
    """Ray refused something that orch asked of it."""
