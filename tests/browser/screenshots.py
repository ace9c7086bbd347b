"""Renews the README's pictures: `make screenshots`.

The program trains on a sample feed and scores it, up to the day on which a column drifts. Then come the page
of that day, the queue in dark mode, and a record that several columns are at odds in.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pipeline.sample import SamplePlan, generate
from tests.browser import chromium
from tests.browser.page import Page

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGES = REPOSITORY / "docs" / "images"
PLAN = SamplePlan(days=40, records_per_day=3000, hostile=False, drift=True)


def main() -> None:
    """Write docs/images/report.png, review-queue.png and review-record.png."""
    if why_not := chromium.missing():
        sys.exit(f"no pictures: {why_not}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        environment, day = _scored(root)
        chromiums = chromium.Chromiums(root / "profiles")
        with closing(chromiums), chromiums.browsers() as start:
            report = root / "home" / "reports" / "payments" / day / "run.html"
            _shoot(start(1120, 960), report.as_uri(), "report")
            with _served(environment) as address:
                _shoot(start(1200, 820, dark=True), address, "review-queue")
                one = f"/record/{_several_at_odds(environment)}"
                _shoot(start(1200, 980), address, "review-record", one)


def _scored(root: Path) -> tuple[dict[str, str], str]:
    """An installation whose newest batch is of the day that drifts; its environment, and the day."""
    receipt = generate(root, PLAN)
    day = receipt.drift["slower"]
    for later in receipt.batch_ids[receipt.batch_ids.index(day) + 1 :]:
        (receipt.incoming / f"{later}.parquet").unlink()
    datasets = root / "datasets"
    datasets.mkdir()
    text = (REPOSITORY / "dags" / "datasets" / "payments.yaml").read_text(encoding="utf-8")
    text = text.replace("../../var/incoming", "../incoming").replace("settle_seconds: 3", "settle_seconds: 0")
    (datasets / "payments.yaml").write_text(text, encoding="utf-8")
    theirs = {k: v for k, v in os.environ.items() if not k.startswith(("VAEWATCH_", "MLFLOW_"))}
    environment = theirs | {"VAEWATCH_HOME": str(root / "home"), "VAEWATCH_DATASETS": str(datasets)}
    last = receipt.incoming / f"{day}.parquet"
    kept = shutil.move(last, root / last.name)  # what trains has not seen the day
    for _ in range(2):
        subprocess.run(_program("run", "payments"), env=environment, cwd=REPOSITORY, check=True)
        if kept.exists():
            shutil.move(kept, last)
    return environment, day


def _program(*arguments: str) -> list[str]:
    return [sys.executable, "-u", "-m", "pipeline.cli", *arguments]


@contextmanager
def _served(environment: dict[str, str]) -> Iterator[str]:
    """The address of the review page, token and all."""
    command = _program("review", "--port", "0", "--by", "ann")
    with subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as it:
        assert it.stdout
        found = re.search(r"http://\S+", it.stdout.readline())
        assert found
        try:
            yield found[0]
        finally:
            it.terminate()


def _several_at_odds(environment: dict[str, str]) -> str:
    """The severest record that two columns explain a third of each, or more, and another one some of it."""
    command = _program("review", "list", "payments", "--limit", "500", "--json")
    listed = subprocess.run(
        command, env=environment, cwd=REPOSITORY, check=True, capture_output=True, text=True
    )
    rows = sorted(json.loads(listed.stdout), key=lambda row: -row["severity"])
    shares = {row["anomaly_id"]: [one["share"] for one in row["reasons"]] for row in rows}
    found = (name for name, share in shares.items() if len(share) > 2 and min(share[:2]) > 1 / 3)
    return str(next(found, rows[0]["anomaly_id"]))


def _shoot(browser: Any, address: str, name: str, path: str = "") -> None:
    browser.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
    page = Page(browser, address)
    if path:
        page.go(path)
    (IMAGES / f"{name}.png").write_bytes(browser.get_screenshot_as_png())
    sys.stdout.write(f"docs/images/{name}.png\n")


if __name__ == "__main__":
    main()
