"""Alembic's revisions, one file a change, never edited after release.

`alembic revision -m WHAT`, in the repository, makes the next one; `store.open_store` runs what is missing.
"""
