"""Which GPUs are a replica's.

Revision: 0021
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the column; replicas that are there see all GPUs, as until now."""
    op.add_column("replicas", sa.Column("gpus", sa.Text(), nullable=False, server_default="[]"))
