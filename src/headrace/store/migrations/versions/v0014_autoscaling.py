"""How many replicas a deployment runs by itself.

Revision: 0014
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the columns of what was asked for and of what was decided; of deployments that are there it is neither."""
    op.add_column("deployments", sa.Column("autoscaling", sa.Text(), nullable=True))
    op.add_column("deployments", sa.Column("scaling", sa.Text(), nullable=True))
