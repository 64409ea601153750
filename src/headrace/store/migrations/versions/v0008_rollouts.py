"""Rollouts in stages.

Revision: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make their table."""
    op.create_table(
        "rollouts",
        *(
            sa.Column(name, sa.Text(), nullable=False)
            for name in ("project", "location", "id", "endpoint_id", "deployed_model_id", "plan", "state")
        ),
        sa.Column("stage", sa.BigInteger(), nullable=False),
        sa.Column("stage_began_at", sa.Double(), nullable=False),
        sa.Column("traffic_before", sa.Text(), nullable=False),
        sa.Column("tallies", sa.Text(), nullable=False),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("resource_version", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "location", "id"),
    )
    op.create_index("rollouts_by_state", "rollouts", ["state"])
    op.create_index("rollouts_by_endpoint", "rollouts", ["project", "location", "endpoint_id"])
