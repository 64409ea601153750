"""What the model registry knows of models and versions, and what its lists are looked up by.

Revision: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the columns and the indexes; what is registered has no descriptions or labels of versions."""
    op.add_column("models", sa.Column("description", sa.Text(), nullable=False, server_default=""))
    op.add_column("models", sa.Column("last_version", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("model_versions", sa.Column("labels", sa.Text(), nullable=False, server_default="{}"))
    op.add_column("model_versions", sa.Column("kept", sa.Text(), nullable=False, server_default="{}"))
    op.add_column("model_versions", sa.Column("updated_at", sa.Double(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE models SET last_version = (SELECT COALESCE(MAX(CAST(v.version AS BIGINT)), 0) FROM model_versions v "
        "WHERE v.project = models.project AND v.location = models.location AND v.model_id = models.id)"
    )
    place = ["project", "location"]
    for table in ("models", "endpoints", "operations"):
        op.create_index(f"{table}_by_time", table, [*place, "created_at", "id"])
    for table in ("models", "endpoints"):
        op.create_index(f"{table}_by_display_name", table, [*place, "display_name"])
    op.create_index("models_by_update", "models", [*place, "updated_at", "id"])
    op.create_index("operations_by_id", "operations", ["id"])
    op.create_index("operations_by_state_in_time", "operations", [*place, "state", "created_at", "id"])
    op.create_index("operations_by_parent", "operations", [*place, "parent", "created_at", "id"])
