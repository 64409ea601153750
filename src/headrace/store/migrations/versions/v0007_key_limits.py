"""What keys may use in a minute.

Revision: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make their columns; keys that are there have no limits."""
    op.add_column("api_keys", sa.Column("requests_per_minute", sa.BigInteger(), nullable=True))
    op.add_column("api_keys", sa.Column("tokens_per_minute", sa.BigInteger(), nullable=True))
