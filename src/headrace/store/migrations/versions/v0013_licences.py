"""Licences of published models that projects accepted.

Revision: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make their table."""
    op.create_table(
        "licence_acceptances",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("publisher_model", sa.Text(), nullable=False),
        sa.Column("accepted_by", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("resource_version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "publisher_model"),
    )
