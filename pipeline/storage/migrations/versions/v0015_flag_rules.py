"""By which rule each model version flags, from when on; the database keeps it from being changed."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Create the table, empty: older batches kept their threshold, not the rule behind it."""
    op.create_table(
        "flag_rules",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("dataset", sa.String(63), nullable=False),
        sa.Column("model_version", sa.Integer, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("before", sa.Text),
        sa.Column("threshold", sa.Float),
        sa.Column("threshold_before", sa.Float),
        sa.Column("by", sa.String(250), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_flag_rules_dataset", "flag_rules", ["dataset"])
    says = "flag_rules are append-only: a change is a new entry"
    if op.get_bind().dialect.name == "sqlite":
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER flag_rules_no_{change.lower()} BEFORE {change} ON flag_rules "
                f"BEGIN SELECT RAISE(ABORT, '{says}'); END"
            )
        return
    op.execute(
        "CREATE OR REPLACE FUNCTION flag_rules_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{says}'; END $$"
    )
    op.execute(
        "CREATE TRIGGER flag_rules_append_only BEFORE UPDATE OR DELETE ON flag_rules "
        "FOR EACH ROW EXECUTE FUNCTION flag_rules_append_only()"
    )
