"""The pages' index has the score after the severity: of equally severe records the highest score is first."""

from alembic import op

revision = "0016"
down_revision = "0015"

PAGED = [
    "day", "severity", "anomaly_score", "anomaly_id", "dataset", "batch_id", "kind", "driver", "signature", "state", "reviewer",
    "band", "model_version", "suppressed",
]  # fmt: skip


def upgrade() -> None:
    """Rebuild the index, on SQLite with the beginning of the key."""
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    name = "ix_queue_page" if is_sqlite else "ix_queue_order"
    op.drop_index(name, "queue", if_exists=True)
    op.create_index(name, "queue", [*PAGED, "key_start"] if is_sqlite else PAGED)
