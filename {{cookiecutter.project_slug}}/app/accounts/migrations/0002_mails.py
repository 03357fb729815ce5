"""Mails that wait to be sent, and when an address was confirmed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "accounts_0002"  # a team of 0.1.0 may have a 0002 of its own
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "mails",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("recipient", sa.String(254), nullable=False),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("needs_token", sa.Boolean(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.DateTime(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_mails"),
    )
    op.create_index("ix_mails_due_at", "mails", ["due_at"])
    with op.batch_alter_table("users") as users:
        users.add_column(sa.Column("confirmed_at", sa.DateTime(), nullable=True))
    # Nobody could confirm an address until now. The owners of these accounts must not lose their files at a reset.
    op.execute("UPDATE users SET confirmed_at = created_at")


def downgrade() -> None:
    op.drop_table("mails")
    with op.batch_alter_table("users") as users:
        users.drop_column("confirmed_at")
