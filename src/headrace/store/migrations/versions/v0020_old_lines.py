"""Lines of timelines by their time, so that old ones are found.

Revision: 0020
"""

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the index."""
    op.create_index("transitions_by_time", "transitions", ["at"])
