"""Use case: bearer tokens, from their making to their end, and who a request comes from."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from orchestrator.access import Principal, Role, digest, new_secret
from orchestrator.errors import BadInput, NotFound
from orchestrator.lifecycle import Actor
from orchestrator.ports import Clock, TokenStore
from orchestrator.records import Token

LOCAL = "local@"
"""Begins the names of the tokens, an admin's, that `orch up` keeps in files: one for each machine and ORCH_HOME."""
KEEPER = "orch up"
"""Makes them: a name that no token can have, for there is a blank in it."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,99}")
REMEMBERED_S = 2.0
"""How long an answer of the database is believed: a revocation by another process takes so long to be seen."""
MOST_REMEMBERED = 1000


def create(
    name: str, role: Role, project: str | None, *, by: str, store: TokenStore, clock: Clock
) -> tuple[Token, str]:
    """A new token and its secret, which is told this once.

    Raises:
        BadInput: the name is none or a part of orch's, or an admin's token is to be bound to a project.
        Conflict: a token of that name is in force.
    """
    if not NAME.fullmatch(name) or name.startswith(LOCAL):
        raise BadInput(
            "a token's name has 1 to 100 of the signs A-Z a-z 0-9 . _ @ -, a letter or digit first, and does not begin "
            f"with {LOCAL}; got {name!r}."
        )
    if name.lower() in set(Actor):
        raise BadInput(f"a token named {name!r} would sign as a part of orch does in `orch events`; take another name.")
    if role is Role.ADMIN and project is not None:
        raise BadInput("an admin's token reaches every project; leave the project out, or make a submitter's token.")
    secret = new_secret()
    made = store.add_token(name, digest(secret), role=role, project=project, created_by=by, now=clock.now())
    return made, secret


def rotate(name: str, *, by: str, store: TokenStore, clock: Clock) -> tuple[Token, str]:
    """A new secret for a token; the old one is worth nothing from now on.

    Raises:
        NotFound: no such token is in force. BadInput: it is the local one.
    """
    _refuse_local(name)
    secret = new_secret()
    return store.replace_token(name, digest(secret), by=by, now=clock.now()), secret


def revoke(name: str, *, by: str, store: TokenStore, clock: Clock) -> Token:
    """End a token.

    Raises:
        NotFound: no such token is in force. BadInput: it is the local one.
    """
    _refuse_local(name)
    return store.revoke_token(name, by=by, now=clock.now())


def keep_local(secret: str, where: str, *, store: TokenStore, clock: Clock) -> None:
    """Make a file's token an admin's; the one that the file held before is worth nothing.

    where: the file's machine and directory, for several coordinators may share a database.
    """
    kept, name = digest(secret), LOCAL + where
    if store.find_token(kept) is not None:
        return
    try:
        store.replace_token(name, kept, by=KEEPER, now=clock.now())
    except NotFound:
        store.add_token(name, kept, role=Role.ADMIN, project=None, created_by=KEEPER, now=clock.now())


class Doorkeeper:
    """Who bears a token. Safe to share by threads."""

    def __init__(self, store: TokenStore, now_s: Callable[[], float] = time.monotonic) -> None:
        self._store, self._now_s = store, now_s
        self._known: dict[str, tuple[float, Principal | None]] = {}

    def remembered(self, secret: str) -> Principal | None:
        """The bearer, if it was asked for lately; needs no database."""
        until, found = self._known.get(digest(secret), (0.0, None))
        return found if self._now_s() < until else None

    def principal(self, secret: str) -> Principal | None:
        """The bearer; None where the token is not in force. Raises Unreachable."""
        kept = digest(secret)
        token = self._store.find_token(kept)
        found = Principal(token.name, token.role, token.project) if token else None
        if len(self._known) >= MOST_REMEMBERED:
            self._known = {}
        if found is not None:
            self._known[kept] = (self._now_s() + REMEMBERED_S, found)
        return found

    def forget(self) -> None:
        """Believe nothing: tokens have changed."""
        self._known = {}


def _refuse_local(name: str) -> None:
    if name.startswith(LOCAL):
        raise BadInput(
            "a local token lives in $ORCH_HOME/token: `orch down`, remove that file, `orch up`, and there is a new one."
        )
