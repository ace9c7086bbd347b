"""Tables on a terminal: nothing that is said of a batch is cut where there is room for it."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from pipeline.display import nightly

REASON = "2026-01-26.parquet: the file is cut short: 88536 bytes and no footer; deliver it again, whole, and [1] run validate"


def batch(batch_id: str, **said: Any) -> dict[str, Any]:
    """A batch as the views tell it."""
    counts = dict.fromkeys(("n_read", "n_accepted", "n_set_aside"), 5000)
    unknown = dict.fromkeys(("n_flagged", "model_version", "threshold", "above_usual", "reason"))
    return {
        "batch_id": batch_id,
        "status": "refused",
        **counts,
        **unknown,
        "is_odd": False,
        "notes": [],
        "set_aside": {},
        **said,
    }


def printed(width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of two batches in a terminal of this width."""
    monkeypatch.setattr(nightly, "console", lambda: Console(width=width, highlight=False))
    nightly.print_batches([
        batch("2026-01-25", status="scored", set_aside={"duplicate_key:id": 3}),
        batch("2026-01-26", reason=REASON),
    ])
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("width", [60, 80, 119, 120, 140, 300])
def test_what_is_said_of_a_batch_is_whole_at_any_width(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What to do next stands at the end of a reason."""
    lines = printed(width, monkeypatch, capsys)
    said = "".join("".join(lines).split())
    assert "duplicate_key:id3" in said
    assert all(word in said for word in REASON.split())
    assert max(map(len, lines)) <= width


def test_notes_stand_beside_the_counts_only_where_they_have_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A column of two letters is no column."""
    narrow, wide = (printed(width, monkeypatch, capsys) for width in (80, 140))
    assert [line.split()[0] for line in narrow[1:5]] == [
        "2026-01-25",
        "2026-01-26",
        "2026-01-25:",
        "2026-01-26:",
    ]
    assert [line.split()[0] for line in wide[1:3]] == ["2026-01-25", "2026-01-26"]
    assert wide[1].rstrip().endswith("duplicate_key:id 3")


def test_a_dataset_without_batches_has_no_table_of_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A heading over nothing looks as if something had gone missing."""
    monkeypatch.setattr(nightly, "console", lambda: Console(width=140, highlight=False))
    counts = dict.fromkeys(("n_read", "n_accepted", "n_flagged"), 0)
    empty = {"dataset": "new", "champion": None, "counts": {}, "batches": [], "tables": "var/tables/new"}
    nightly.print_status([{**empty, **counts}], whole=True)
    first, last = capsys.readouterr().out.splitlines()
    assert "no batches yet" in first
    assert last == "tables: var/tables/new"
