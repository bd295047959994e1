"""Every SQL statement on bearer tokens. Secrets never come here, only their digests."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa

from orchestrator.access import Role
from orchestrator.errors import Conflict, NotFound
from orchestrator.records import Token
from orchestrator.store import audit
from orchestrator.store import schema as t
from orchestrator.store.database import AnyRow, Database, insert

_IN_FORCE = t.token.c.revoked_at.is_(None)


class SqlTokens:
    """`ports.TokenStore` on SQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_token(
        self, name: str, digest: str, *, role: Role, project: str | None, created_by: str, now: datetime
    ) -> Token:
        """Raises Conflict where a token of that name is in force."""
        with self._database.write() as connection:
            values = {"name": name, "digest": digest, "role": role, "project": project}
            statement = insert(connection, t.token).values(**values, created_by=created_by, created_at=now)
            row = connection.execute(statement.on_conflict_do_nothing().returning(t.token)).one_or_none()
            if row is None:
                raise Conflict(f"a token {name!r} is in force already; revoke or rotate it, or take another name.")
            reach = f"project {project}" if project else "all projects"
            reason = f"{'an' if role is Role.ADMIN else 'a'} {role}'s, of {reach}"
            _note(connection, created_by, f"made token {name}", reason, now)
            return _token(row)

    def tokens(self) -> list[Token]:
        """All there ever were, oldest first."""
        with self._database.read() as connection:
            return [_token(row) for row in connection.execute(sa.select(t.token).order_by(t.token.c.id))]

    def find_token(self, digest: str) -> Token | None:
        """The token in force that has this digest."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(t.token).where(t.token.c.digest == digest, _IN_FORCE)).one_or_none()
        return None if row is None else _token(row)

    def replace_token(self, name: str, digest: str, *, by: str, now: datetime) -> Token:
        """A new secret for the token in force of that name; the old one is worth nothing. Raises NotFound."""
        return self._change(name, "rotated", by, now, digest=digest)

    def revoke_token(self, name: str, *, by: str, now: datetime) -> Token:
        """End the token in force of that name. Raises NotFound."""
        return self._change(name, "revoked", by, now, revoked_at=now)

    def _change(self, name: str, what: str, by: str, now: datetime, **values: object) -> Token:
        statement = sa.update(t.token).where(t.token.c.name == name, _IN_FORCE).values(**values)
        with self._database.write() as connection:
            row = connection.execute(statement.returning(t.token)).one_or_none()
            if row is None:
                raise NotFound(f"no token {name!r} is in force; `orch token list` shows all.")
            _note(connection, by, f"{what} token {name}", "", now)
            return _token(row)


def _note(connection: sa.Connection, by: str, what: str, reason: str, now: datetime) -> None:
    audit.write_events(connection, [audit.event(None, by, what, reason=reason, now=now)])


def _token(row: AnyRow) -> Token:
    return Token(
        id=row.id,
        name=row.name,
        role=row.role,
        project=row.project,
        created_by=row.created_by,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
    )
