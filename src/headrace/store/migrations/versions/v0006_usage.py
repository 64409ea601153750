"""What requests used.

Revision: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_WHOSE = ("project", "location", "key_id", "endpoint_id", "model_id", "model_version")
_COUNTS = ("requests", "unfinished", "inexact", "prompt_tokens", "completion_tokens")


def upgrade() -> None:
    """Make the sums by hour, and how far the segments that they come from were read."""
    op.create_table(
        "usage_hours",
        *(sa.Column(name, sa.Text(), nullable=False) for name in _WHOSE),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("hour_at", *_COUNTS)),
        sa.PrimaryKeyConstraint(*_WHOSE, "hour_at"),
    )
    op.create_index("usage_hours_by_hour", "usage_hours", ["hour_at"])
    op.create_table(
        "usage_segments",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("read_bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
