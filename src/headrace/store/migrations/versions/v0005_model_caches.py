"""What nodes' model caches hold.

Revision: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make its column; a node says it with its next report."""
    op.add_column("nodes", sa.Column("model_cache", sa.Text(), nullable=False, server_default="{}"))
