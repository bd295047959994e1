"""Writing many rows at once, and learning the numbers of new ones."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from orchestrator.store.database import AnyRow, insert

Rows = Sequence[Mapping[str, Any]]


def insert_rows(connection: sa.Connection, table: sa.Table, rows: Rows) -> None:
    """Insert rows, with the same columns each, in their order."""
    if rows:
        connection.execute(*_filled(connection, table, rows))


def insert_new(connection: sa.Connection, table: sa.Table, rows: Rows, told: Sequence[str]) -> list[AnyRow]:
    """Insert those rows that are not there yet, by whatever is unique in the table; returns these columns of them."""
    if not rows:
        return []
    statement, parameters = _filled(connection, table, rows)
    statement = statement.on_conflict_do_nothing().returning(*(table.c[name] for name in told))
    return list(connection.execute(statement, parameters))


def insert_many(
    connection: sa.Connection, table: sa.Table, rows: Rows, *, unless: Sequence[str] = ()
) -> list[int | None]:
    """Insert rows, with the same columns each, and number them in their order; returns the numbers.

    unless: a row that equals one which is there in these columns is left out, and has None for a number.
    """
    if not rows:
        return []
    if connection.dialect.name == "postgresql":
        return _numbered_first(connection, table, rows, unless)
    statement = insert(connection, table)
    if unless:
        statement = statement.on_conflict_do_nothing(index_elements=unless)
    keys = [table.c[name] for name in unless]
    found = connection.execute(
        statement.returning(table.c.id, *keys, sort_by_parameter_order=not unless), list(rows)
    ).all()
    if not unless:
        return [row.id for row in found]
    ids = {tuple(key): id for id, *key in found}
    return [ids.get(tuple(row[name] for name in unless)) for row in rows]


def _numbered_first(connection: sa.Connection, table: sa.Table, rows: Rows, unless: Sequence[str]) -> list[int | None]:
    """The numbers are drawn, then written: in what order a statement returns new ones is nowhere promised."""
    sequence = sa.func.pg_get_serial_sequence(table.name, "id")
    drawn = sa.select(sa.func.nextval(sequence)).select_from(sa.func.generate_series(1, len(rows)))
    ids = sorted(connection.execute(drawn).scalars())
    statement, parameters = _filled(connection, table, [{**row, "id": id} for row, id in zip(rows, ids, strict=True)])
    if unless:
        statement = statement.on_conflict_do_nothing(index_elements=unless)
    if connection.execute(statement, parameters).rowcount == len(rows):
        return list(ids)
    there = set(connection.execute(sa.select(table.c.id).where(table.c.id.in_(ids))).scalars())
    return [id if id in there else None for id in ids]


def update_rows(connection: sa.Connection, table: sa.Table, rows: Rows, where: sa.ColumnElement[bool]) -> None:
    """Write columns of rows by their `id`, the same ones of each, where this holds still."""
    if not rows:
        return
    names = [name for name in rows[0] if name != "id"]
    if connection.dialect.name == "postgresql":
        given = sa.select(*(_array(table, name).label(name) for name in ("id", *names))).subquery()
        statement = sa.update(table).where(table.c.id == given.c.id, where)
        connection.execute(statement.values({name: given.c[name] for name in names}), _columns(rows))
    else:
        statement = sa.update(table).where(table.c.id == sa.bindparam("id_"), where)
        written = statement.values({name: sa.bindparam(f"{name}_") for name in names})
        connection.execute(written, [{f"{name}_": value for name, value in row.items()} for row in rows])


def _filled(connection: sa.Connection, table: sa.Table, rows: Rows) -> tuple[Any, Any]:
    """A statement, and what it is executed with.

    On PostgreSQL that is an array for each column: the same words for any number of rows, which are parsed once, and
    one message to the server instead of one a row.
    """
    if connection.dialect.name != "postgresql":
        return insert(connection, table), list(rows)
    return _from_arrays(table, tuple(rows[0])), _columns(rows)


@functools.cache
def _from_arrays(table: sa.Table, names: tuple[str, ...]) -> postgresql.Insert:
    return postgresql.insert(table).from_select(names, sa.select(*(_array(table, name) for name in names)))


def _array(table: sa.Table, name: str) -> sa.ColumnElement[Any]:
    # SQLAlchemy takes a parameter of a column's own name for its value
    return sa.func.unnest(sa.bindparam(f"{name}_", type_=postgresql.ARRAY(table.c[name].type, dimensions=1)))


def _columns(rows: Rows) -> dict[str, list[Any]]:
    return {f"{name}_": [row[name] for row in rows] for name in rows[0]}
