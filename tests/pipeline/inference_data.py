"""Samples, and what is proposed for them."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow.parquet as pq

from pipeline.config.columns import Column
from pipeline.config.contracts import fit_schema
from pipeline.config.dataset import Dataset
from pipeline.inference import Proposal

N = 200
VALUES = np.random.default_rng(0).normal(size=N)
PLAIN = {"amount": VALUES}


class Guessed:
    """A proposal, loaded as a dataset file."""

    def __init__(self, proposal: Proposal, dataset: Dataset) -> None:
        self.proposal, self.dataset = proposal, dataset

    def column(self, name: str) -> Column:
        return self.dataset.columns[name]


def fits_its_files(guessed: Guessed) -> bool:
    """Whether no file of the folder would be refused for its columns."""
    files = guessed.dataset.incoming_path.rglob("*.parquet")
    schemas = {file.name: pq.read_schema(file).remove_metadata() for file in files}
    return fit_schema(guessed.dataset, schemas).refusals == ()


def codes(n: int) -> list[int]:
    return [i % n for i in range(N)]


START = datetime(2026, 1, 1, tzinfo=UTC)
