"""On SQLite, the pages' index holds the beginnings of keys, so that a search with many hits reads only it."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Rebuild the index. PostgreSQL's has no room for a key: its rows have 2,704 bytes."""
    if op.get_bind().dialect.name == "sqlite":
        op.drop_index("ix_queue_order", "queue")
        columns = (
            "day", "severity", "anomaly_id", "dataset", "batch_id", "kind", "driver", "signature", "state", "reviewer",
            "band", "model_version", "suppressed", "key_start",
        )  # fmt: skip
        op.create_index("ix_queue_page", "queue", list(columns))
