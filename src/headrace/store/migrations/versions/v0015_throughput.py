"""Throughput that is sold: profiles, what a replica carries, what a deployed model was promised.

Revision: 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table and the columns; nothing that is there was sold any throughput."""
    op.create_table(
        "profiles",
        sa.Column("project", sa.Text(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("runtime", sa.Text(), nullable=False),
        sa.Column("hardware", sa.Text(), nullable=False),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("carried", sa.Text(), nullable=False),
        sa.Column("points", sa.Text(), nullable=False),
        sa.Column("mean_error", sa.Double(), nullable=False),
        sa.Column("worst_error", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("resource_version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "location", "id"),
    )
    op.create_index(
        "profiles_by_version", "profiles", ["project", "location", "model_id", "model_version", "created_at"]
    )
    op.add_column("endpoints", sa.Column("kept", sa.Text(), nullable=False, server_default="{}"))
    op.add_column("deployments", sa.Column("carried", sa.Text(), nullable=True))
    op.add_column("deployed_models", sa.Column("provision", sa.Text(), nullable=True))
