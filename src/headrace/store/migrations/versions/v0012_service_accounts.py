"""Keys whose holders sign tokens.

Revision: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the column of their public keys; keys that are there are secrets."""
    op.add_column("api_keys", sa.Column("public_key", sa.Text(), nullable=False, server_default=""))
