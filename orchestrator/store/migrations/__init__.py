"""Alembic's revisions, one file a change, never edited after release. `alembic revision -m WHAT` makes the next one."""
