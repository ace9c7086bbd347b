"""Shapes of what one record stands beside, as the JSON API sends it: other records, other versions, itself as
it might have been.

Belongs here: pydantic models of what is looked up when asked for. Does not: those of the queue's own records
and of requests (shapes.py), or looking up (review/record.py, compare.py, versions.py).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field


class Neighbour(BaseModel):
    """A record before or after one, or the one itself."""

    batch_id: str
    row_number: int
    record_key: str
    record: dict[str, Any]
    is_this: bool = Field(description="the record that was asked about")


class Neighbours(BaseModel):
    """Records around one, in time."""

    of: str = Field(description="whose they are; empty: the dataset names no entity, so they are its batch's")
    rows: list[Neighbour] = Field(description="in order, the record itself among them; empty: not stored")
    columns: list[str] = Field(
        description="of the records, the time and those of the reasons first, without those that are the same for all or name a record"
    )


class Near(BaseModel):
    """A record of the same batch that was not flagged."""

    record_key: str
    record: dict[str, Any]
    distance: float = Field(description="Gower's: 0, alike in every column, to 1")
    differs: list[str] = Field(description="columns in which it differs most, the most telling first")


class Change(BaseModel):
    """A column of a record, as it was and as it would have to be."""

    column: str
    observed: str
    needed: str


class Clearing(BaseModel):
    """The smallest change, along a record's reasons, after which it would not have been flagged."""

    changes: list[Change] = Field(description="all of them together; empty: see why_not")
    score: float | None = Field(description="with the changes, nats")
    why_not: str = Field(description="where there is no such change, or nothing can be said")


class Rescored(BaseModel):
    """What one registered model version says of a record now."""

    model_version: int
    aliases: list[str]
    trained_at: datetime
    anomaly_score: float | None
    severity: float | None
    threshold: float | None = Field(description="null where it depends on the whole batch")
    would_flag: bool | None
    why_not: str = Field(description="where the version cannot say")
