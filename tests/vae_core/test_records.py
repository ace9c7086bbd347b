"""What counts as a layout and as records, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from vae_core import MISSING, VAE, Layout, Records, attribute, encode, score
from vae_core.records import FARTHEST


def test_a_layout_survives_json(layout: Layout) -> None:
    """The layout is stored with the model; what comes back must be the same one."""
    assert Layout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout


def test_columns_are_numeric_then_categorical(layout: Layout) -> None:
    """Every per-column result is in this order."""
    assert layout.columns == ("a", "b", "c", "d", "e", "colour", "shade")


def test_a_layout_names_all_its_faults_at_once() -> None:
    """One round of corrections is enough."""
    with pytest.raises(ValueError, match=r"(?s)more than once: a.*'k' must have at least 1"):
        Layout(numeric=("a",), categorical=(("a", 2), ("k", 0)))


def test_a_layout_without_modelled_columns_is_refused() -> None:
    """Context alone gives nothing to score."""
    with pytest.raises(ValueError, match="at least one numeric or categorical"):
        Layout(numeric=(), context=("hour",))


@pytest.mark.parametrize("categorical", [("valve", 3), {"valve": 3}, (("valve", "3"),), (("valve",),)])
def test_a_layout_says_how_categories_are_written(categorical: Any) -> None:
    with pytest.raises(
        TypeError, match=r"pairs of a name and its number .* \(\('valve', 3\),\), has '?\(?'?valve"
    ):
        Layout(numeric=("a",), categorical=categorical)


def test_a_layout_of_lists_is_that_of_tuples() -> None:
    """It would not equal the one that is read back with a model, and its critic would be refused."""
    listed = Layout(["a", "b"], [["k", np.int64(3)]], ["hour"])  # type: ignore[arg-type, list-item]
    assert listed == Layout(("a", "b"), (("k", 3),), ("hour",))
    assert hash(listed) == hash(Layout.from_dict(json.loads(json.dumps(listed.to_dict()))))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("speed", "numeric must be a tuple .*, is 'speed'"),
        (None, "numeric must be a tuple"),
        ((1,), "strings, has 1"),
    ],
)
def test_columns_are_named_by_strings(columns: Any, said: str) -> None:
    """A single name without its comma is no five columns."""
    with pytest.raises(TypeError, match=said):
        Layout(numeric=columns)


def test_a_tensor_in_place_of_records_is_refused_in_words(vae: VAE) -> None:
    for use in (score, attribute, encode):
        with pytest.raises(
            TypeError, match=r"must be Records\(numeric, categorical, context\), .* not a Tensor"
        ):
            use(vae, torch.zeros(3, 5))  # type: ignore[operator]


def test_what_is_no_tensor_is_refused_by_name() -> None:
    """An array has shapes and types of its own, which look like a tensor's until they do not."""
    with pytest.raises(TypeError, match=r"numeric, which is a list, context, which is a ndarray \(numpy's: "):
        Records([[1.0]], torch.zeros(1, 0, dtype=torch.int64), np.zeros((1, 0)))  # type: ignore[arg-type]


def test_records_of_the_wrong_kind_are_refused_in_one_message() -> None:
    """A float64 table or float codes would otherwise fail deep inside a kernel."""
    with pytest.raises(ValueError, match=r"(?s)numeric must be.*float64.*categorical must be.*float32"):
        Records(torch.zeros(2, 1, dtype=torch.float64), torch.zeros(2, 1), torch.zeros(2, 0))


def test_parts_of_unequal_length_are_refused() -> None:
    """They cannot belong to the same records."""
    with pytest.raises(ValueError, match="equally many rows, have numeric 2, categorical 3, context 2"):
        Records(torch.zeros(2, 1), torch.zeros(3, 1, dtype=torch.int64), torch.zeros(2, 0))


@pytest.mark.parametrize("code", [-2, 5])
def test_a_code_outside_its_column_is_refused_by_name(
    layout: Layout, draw: Callable[..., Records], code: int
) -> None:
    """It would silently read another column's weights."""
    records = draw(10, seed=0)
    records.categorical[3, 1] = code
    with pytest.raises(ValueError, match=r"'shade' has codes .* allowed are -1\.\.4"):
        layout.check(records)


def test_records_with_other_columns_are_refused(layout: Layout) -> None:
    """The message says which part has how many."""
    records = Records(torch.zeros(1, 5), torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, 3))
    with pytest.raises(ValueError, match="context records have 3 columns, the layout has 1"):
        layout.check(records)


def test_one_index_gives_one_record_with_its_row_axis(draw: Callable[..., Records]) -> None:
    """A negative index counts from the end, as everywhere in Python."""
    records = draw(5, seed=0)
    assert len(records[2]) == 1
    assert torch.equal(records[-1].numeric, records[4:].numeric)
    with pytest.raises(IndexError):
        records[5]


def test_a_mask_or_a_list_of_rows_chooses_records(draw: Callable[..., Records]) -> None:
    """Flagged records are picked by mask."""
    records = draw(5, seed=0)
    mask = torch.tensor([True, False, False, True, False])
    assert torch.equal(records[mask].categorical, records[torch.tensor([0, 3])].categorical)


def test_observed_says_which_cells_are_there() -> None:
    """NaN and -1 are the two marks of a missing cell; infinity is a value."""
    records = Records(
        torch.tensor([[1.0, torch.nan], [torch.inf, 0.0]]), torch.tensor([[0], [MISSING]]), torch.zeros(2, 0)
    )
    assert records.observed.tolist() == [[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]


def test_ordinary_values_are_kept_as_they_are() -> None:
    """The safety belt must not touch a value that needs none."""
    records = Records(
        torch.tensor([[0.5, -FARTHEST, torch.nan, torch.inf]]),
        torch.zeros(1, 0, dtype=torch.int64),
        torch.tensor([[torch.nan, 2.0]]),
    )
    assert records.values.tolist() == [[0.5, -FARTHEST, 0.0, FARTHEST]]
    assert records.context_values.tolist() == [[0.0, 2.0]]
