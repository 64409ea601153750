"""When a deployment scales to zero.

Revision: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make its column; what is deployed already never does."""
    op.add_column("deployments", sa.Column("scale_to_zero_after_s", sa.Double(), nullable=False, server_default="0"))
