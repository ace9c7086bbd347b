"""What the command line prints of itself, whatever the width of the terminal."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from pipeline.cli import app


@pytest.mark.parametrize("group", [(), ("review",), ("review", "rules"), ("quarantine",)], ids=" ".join)
def test_help_says_of_each_verb_a_whole_sentence(group: tuple[str, ...]) -> None:
    """Half a sentence and three dots do not say what a verb does."""
    commands = CliRunner().invoke(app, [*group, "--help"], terminal_width=80).stdout.partition("Commands:")[2]
    assert len(re.findall(r"^  [a-z]+  ", commands, re.MULTILINE)) >= 3
    assert "..." not in commands
