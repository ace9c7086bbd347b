"""The doorbell: rings when a file has settled, and only then."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from airflow.sdk.module_loading import import_string

from dags.watcher import SettledFiles


def rings(trigger: SettledFiles, *script: Callable[[], object] | int | float) -> list[int]:
    """How many files each ring told of. The script: a step to take, a number of rings to wait for, seconds to
    pass.
    """

    async def listen() -> list[int]:
        heard: list[int] = []

        async def hear() -> None:
            async for event in trigger.run():
                heard.append(event.payload["n_files"])  # noqa: PERF401  (it never ends)

        task = asyncio.create_task(hear())
        for part in script:
            if isinstance(part, float):
                await asyncio.sleep(part)
            elif isinstance(part, int):
                async with asyncio.timeout(20):
                    while len(heard) < part:
                        await asyncio.sleep(0.01)
            else:
                part()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return heard

    return asyncio.run(listen())


def land(folder: Path, name: str, *, age: float = 60, text: str = "x") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_it_rings_once_for_what_is_there_and_once_for_what_comes(tmp_path: Path) -> None:
    """Files that settled while nobody looked are found at the start; after that only news ring."""
    land(tmp_path, "a.parquet")
    land(tmp_path, "day=2/b.parquet")
    bell = SettledFiles(str(tmp_path), settle_seconds=1, every=0.05)
    assert rings(bell, 1, lambda: land(tmp_path, "c.parquet"), 2, 0.2) == [2, 1]


def test_it_keeps_silent_while_a_file_is_written(tmp_path: Path) -> None:
    """Half a file must not start a run."""
    bell = SettledFiles(str(tmp_path), settle_seconds=30, every=0.05)
    assert rings(bell, lambda: land(tmp_path, "a.parquet", age=0), 0.3) == []


def test_it_rings_when_a_file_has_settled(tmp_path: Path) -> None:
    """The ring comes from time passing, with no further change in the folder."""
    land(tmp_path, "a.parquet", age=0)
    assert rings(SettledFiles(str(tmp_path), settle_seconds=0.4, every=0.05), 1) == [1]


def test_a_replaced_file_rings_again(tmp_path: Path) -> None:
    """A corrected delivery comes under the name of the bad one."""
    land(tmp_path, "a.parquet")
    bell = SettledFiles(str(tmp_path), settle_seconds=1, every=0.05)
    assert rings(bell, 1, lambda: land(tmp_path, "a.parquet", age=50, text="longer"), 2) == [1, 1]


@pytest.mark.parametrize("name", [".a.parquet", "_tmp/a.parquet", ".staging/a.parquet"])
def test_hidden_files_do_not_ring(name: str, tmp_path: Path) -> None:
    """Writers keep their drafts under such names."""
    land(tmp_path, name)
    assert rings(SettledFiles(str(tmp_path), settle_seconds=1, every=0.05), 0.3) == []


def test_a_folder_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    """The first delivery often makes the folder."""
    folder = tmp_path / "later"
    bell = SettledFiles(str(folder), settle_seconds=1, every=0.05)
    assert rings(bell, 0.2, lambda: land(folder, "a.parquet"), 1) == [1]


def test_airflow_can_make_one_like_it(tmp_path: Path) -> None:
    """The triggerer knows a trigger by dotted name and arguments only."""
    name, arguments = SettledFiles(str(tmp_path), settle_seconds=30).serialize()
    assert import_string(name)(**arguments).serialize() == (name, arguments)
