"""A result stands for an identity within one project: what others have trained is nothing that a project may see."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """`result.project_id`, in the key."""
    query = (
        "SELECT sweep.project_id, result.identity, result.trial_id FROM result "
        "JOIN trial ON trial.id = result.trial_id JOIN sweep ON sweep.id = trial.sweep_id"
    )
    _make_anew(query, sa.Column("project_id", ID, nullable=False))


def downgrade() -> None:
    """Without it: the newest trial stands for an identity, whosever it is."""
    _make_anew("SELECT identity, MAX(trial_id) AS trial_id FROM result GROUP BY identity")


def _make_anew(query: str, *key: sa.Column[int]) -> None:
    """The table with what the query finds in the old one."""
    rows: Sequence[sa.RowMapping] = op.get_bind().execute(sa.text(query)).mappings().all()
    op.drop_table("result")
    projects = [sa.ForeignKeyConstraint(["project_id"], ["project.id"], name="fk_result_project_id")] if key else []
    made = op.create_table(
        "result",
        *key,
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("trial_id", ID, nullable=False),
        *projects,
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name="fk_result_trial_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint(*(column.name for column in key), "identity", name="pk_result"),
        sa.UniqueConstraint("trial_id", name="uq_result_trial_id"),
        sqlite_with_rowid=False,
    )
    op.bulk_insert(made, [dict(row) for row in rows])
