"""What the log says about a mail: its kind, and the request that asked for it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "accounts_0003"
down_revision = "accounts_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("mails") as mails:
        # The defaults are for mails that wait, and for workers of the former release that still run.
        mails.add_column(sa.Column("kind", sa.String(40), nullable=False, server_default="unknown"))
        mails.add_column(sa.Column("request_id", sa.String(128), nullable=False, server_default="-"))


def downgrade() -> None:
    with op.batch_alter_table("mails") as mails:
        mails.drop_column("request_id")
        mails.drop_column("kind")
