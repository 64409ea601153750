"""Which GPUs are a replica's, and what it reserves of its machine's own memory.

Revision: 0021
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the columns; replicas that are there see all GPUs, as until now."""
    op.add_column("replicas", sa.Column("gpus", sa.Text(), nullable=False, server_default="[]"))
    op.add_column("replicas", sa.Column("machine_bytes", sa.BigInteger(), nullable=False, server_default="0"))
