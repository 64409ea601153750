"""Labels of models and endpoints, so that lists are looked up by them.

Revision: 0018
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0016"
branch_labels = None
depends_on = None

_NAMES = ("project", "location", "kind", "resource_id", "key", "value")


def upgrade() -> None:
    """Make the table, and fill it with what there is."""
    labels = op.create_table(
        "labels",
        *(sa.Column(name, sa.Text(), nullable=False) for name in _NAMES),
        sa.PrimaryKeyConstraint("project", "location", "kind", "resource_id", "key"),
    )
    op.create_index("labels_by_value", "labels", ["kind", "key", "value", "project", "location", "resource_id"])
    for kind, table in (("model", "models"), ("endpoint", "endpoints")):
        found = op.get_bind().execute(sa.text(f"SELECT project, location, id, labels FROM {table}"))  # noqa: S608
        rows = [
            dict(zip(_NAMES, (project, location, kind, resource_id, key, value), strict=True))
            for project, location, resource_id, text in found
            for key, value in json.loads(text).items()
        ]
        op.bulk_insert(labels, rows)
