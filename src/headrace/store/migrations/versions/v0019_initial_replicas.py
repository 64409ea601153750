"""With how many replicas a deployment begins, and wakes from zero.

Revision: 0019
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the column; deployments that are there begin with the fewest, as until now."""
    op.add_column("deployments", sa.Column("initial_replicas", sa.BigInteger(), nullable=False, server_default="0"))
