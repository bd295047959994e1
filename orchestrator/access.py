"""Who may do what: roles, and the rights that a bearer token gives."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.errors import Forbidden


class Role(StrEnum):
    """What a token is good for; each covers those before it."""

    VIEWER = "viewer"
    SUBMITTER = "submitter"
    ADMIN = "admin"

    def covers(self, needed: Role) -> bool:
        """Whether this role may do what `needed` may."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. project: the only one that it sees and changes; None for all."""

    name: str
    role: Role
    project: str | None = None

    def sees(self, project: str) -> bool:
        """Whether a project's sweeps, trials and artifacts exist for this bearer."""
        return self.project is None or self.project == project

    def require(self, role: Role) -> None:
        """Raises Forbidden unless its role covers `role`."""
        if not self.role.covers(role):
            raise Forbidden(
                f"the token {self.name!r} is a {self.role}'s, and this takes a {role}'s; "
                "an admin makes one: `orch token create`."
            )

    def scope(self, project: str | None) -> str | None:
        """The project to look at when `project` was asked for. Raises Forbidden for one that is not its own."""
        if project is not None and not self.sees(project):
            raise Forbidden(f"the token {self.name!r} is bound to project {self.project!r}; got project {project!r}.")
        return project if project is not None else self.project

    def acting_for(self, user: str) -> str:
        """The name for the record: an admin may act for others, everybody else acts in the token's name."""
        return user if self.role is Role.ADMIN else self.name


def new_secret() -> str:
    """A token: 256 random bits, with a prefix by which scanners of leaked secrets know it."""
    return f"orch_{secrets.token_urlsafe(32)}"


def digest(secret: str) -> str:
    """What is kept of a token. A plain hash is enough for 256 random bits: there is nothing to guess faster."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
