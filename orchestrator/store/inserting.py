"""Inserting many rows at once, and learning their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from orchestrator.store.database import insert


def insert_many(
    connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]], *, unless: Sequence[str] = ()
) -> list[int | None]:
    """Insert rows, with the same columns each, and number them in their order; returns the numbers.

    unless: a row that equals one which is there in these columns is left out, and has None for a number.
    """
    if not rows:
        return []
    statement = insert(connection, table)
    if unless:
        statement = statement.on_conflict_do_nothing(index_elements=unless)
    if connection.dialect.name == "postgresql":
        return _numbered_first(connection, table, statement, rows)
    keys = [table.c[name] for name in unless]
    found = connection.execute(
        statement.returning(table.c.id, *keys, sort_by_parameter_order=not unless), list(rows)
    ).all()
    if not unless:
        return [row.id for row in found]
    ids = {tuple(key): id for id, *key in found}
    return [ids.get(tuple(row[name] for name in unless)) for row in rows]


def _numbered_first(
    connection: sa.Connection, table: sa.Table, statement: sa.Insert, rows: Sequence[Mapping[str, Any]]
) -> list[int | None]:
    """The numbers are drawn, then written: a statement that returns them would have a parameter for each value.

    Of each such statement, a hundred kilobytes long and never twice the same, the driver would parse every word.
    """
    sequence = sa.func.pg_get_serial_sequence(table.name, "id")
    drawn = sa.select(sa.func.nextval(sequence)).select_from(sa.func.generate_series(1, len(rows)))
    ids = sorted(connection.execute(drawn).scalars())
    result = connection.execute(statement, [{**row, "id": id} for row, id in zip(rows, ids, strict=True)])
    if result.rowcount == len(rows):
        return list(ids)
    there = set(connection.execute(sa.select(table.c.id).where(table.c.id.in_(ids))).scalars())
    return [id if id in there else None for id in ids]
