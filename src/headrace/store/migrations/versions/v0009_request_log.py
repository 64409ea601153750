"""What of an endpoint's requests is written down.

Revision: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make its column; of endpoints that are there nothing is."""
    op.add_column("endpoints", sa.Column("request_log", sa.Text(), nullable=True))
