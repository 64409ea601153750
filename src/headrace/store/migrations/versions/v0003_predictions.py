"""What was predicted of a deployment.

Revision: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make its column."""
    op.add_column("deployments", sa.Column("predicted", sa.Text(), nullable=True))
