"""Odd as a whole is judged by the dataset's own batches; earlier values followed another rule."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Forget it for earlier batches until they are scored again; their numbers stay."""
    op.execute(sa.text("UPDATE batches SET is_odd = NULL"))
