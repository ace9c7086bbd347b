"""Hidden records have an index of their own: each rule's are counted without reading the others."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    hidden = sa.text("suppressed != 0")
    op.create_index(
        "ix_queue_hidden",
        "queue",
        ["suppressed"],
        if_not_exists=True,
        sqlite_where=hidden,
        postgresql_where=hidden,
    )
