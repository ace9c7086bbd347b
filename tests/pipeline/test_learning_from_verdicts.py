"""What people said of records changes what the next training puts to the front."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config.dataset import Dataset
from pipeline.records.window import choose_window
from pipeline.storage.tables import Tables
from pipeline.training import experiment
from tests.bench import speed_window

N, N_NEW, BY = 3_000, 4_000, 3.0
WORTH, NOT_WORTH = 0, 20  # what is left of their number by 40
plain = speed_window.cells


def partly_odd(first: int, n: int, day: int) -> pa.StructArray:
    """Of forty records one is odd in x00, which is worth a person's time, and one as much in x01, which is
    not.
    """
    table = pa.Table.from_batches([pa.RecordBatch.from_struct_array(plain(first, n, day))])
    for name, rest in (("x00", WORTH), ("x01", NOT_WORTH)):
        values = table[name].to_numpy() + BY * (table["id"].to_numpy() % 40 == rest)
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    return table.to_struct_array().combine_chunks()


def test_after_fifty_verdicts_the_same_training_finds_more_of_what_is_worth_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the window's tables to the model that serves, by one seed: of the 100 highest of 4,000 new
    records.
    """
    monkeypatch.setattr(speed_window, "cells", partly_odd)
    speed_window.land(tmp_path, N)
    usual, states = speed_window.dataset(), speed_window.states(N)
    recipe = {"steps": 60, "n_members": 1, "critic_steps": 0}
    dataset: Dataset = usual.model_copy(update={"train": usual.train.model_copy(update={"recipe": recipe})})
    worth, not_worth = (
        [(states[i * len(states) // N].batch_id, str(i)) for i in range(N - 1_000, N) if i % 40 == rest]
        for rest in (WORTH, NOT_WORTH)
    )
    new = pa.Table.from_batches([pa.RecordBatch.from_struct_array(partly_odd(N, N_NEW, len(states)))])
    found = []
    for name, verdicts in (("without", ((), ())), ("with", (worth, not_worth))):
        window, scratch = choose_window(dataset, states, *verdicts), tmp_path / name
        fitted = experiment.fit(dataset, window, Tables(tmp_path / "tables"), scratch, scratch, 1, None)
        highest = np.argsort(-fitted.trained.score_table(new)["anomaly_score"].to_numpy())[:100]
        found.append(int((new["id"].to_numpy()[highest] % 40 == WORTH).sum()))
    without, after = found
    assert after >= without + 20
