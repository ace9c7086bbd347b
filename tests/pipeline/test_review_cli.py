"""The verbs of review, as a shell calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.installation import Installation

from .review_data import put, row


def test_days_are_compared_as_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As text, 2026-1-5 lies after every day of the year; what is no day is refused."""
    monkeypatch.setenv("VAEWATCH_HOME", str(tmp_path))
    here = Installation()
    put(here.ledger, [row("early", "2026-01-04"), row("late", "2026-01-30")])
    here.close()
    shell = CliRunner()
    for argument, expected in (("--since", ["late"]), ("--until", ["early"])):
        listed = shell.invoke(app, ["review", "list", "--json", argument, "2026-1-5"])
        assert [one["record_key"] for one in json.loads(listed.stdout)] == expected
    refused = shell.invoke(app, ["review", "list", "--since", "2026-99-99"])
    assert refused.exit_code == 2
