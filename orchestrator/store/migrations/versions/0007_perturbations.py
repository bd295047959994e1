"""What a population changed in its trials, and from whose checkpoint they went on."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """`perturbation`."""
    op.create_table(
        "perturbation",
        sa.Column("trial_id", ID, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("parent_trial_id", ID, nullable=False),
        sa.Column("parent_step", sa.BigInteger(), nullable=False),
        sa.Column("changed", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["trial_id"], ["trial.id"], name="fk_perturbation_trial_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["parent_trial_id"], ["trial.id"], name="fk_perturbation_parent_trial_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("trial_id", "attempt", name="pk_perturbation"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """Without it."""
    op.drop_table("perturbation")
