"""What is said of an endpoint when it is made by itself, and a vendor's own settings of a deployed model.

Revision: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make their columns; of what is there nothing was said."""
    op.add_column("endpoints", sa.Column("description", sa.Text(), nullable=False, server_default=""))
    op.add_column("endpoints", sa.Column("inference_timeout_s", sa.Double(), nullable=False, server_default="0"))
    op.add_column("deployed_models", sa.Column("settings", sa.Text(), nullable=False, server_default="{}"))
