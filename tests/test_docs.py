"""What the documentation names must exist: files, make targets, verbs, settings."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import typer.main

from pipeline.cli import app
from pipeline.config.dataset import Dataset
from pipeline.config.files import load_dataset, load_datasets

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """A dead link on the first page is the first thing that a stranger finds."""
    targets = re.findall(r"\]\(([^)#]+)\)", TEXTS[page])
    missing = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not missing


def headings(text: str) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", outside, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_a_heading_that_is_there(page: Path) -> None:
    """A heading that was reworded leaves its readers at the top of a long page, without a word."""
    targets = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", TEXTS[page])
    places = [((page.parent / file).resolve() if file else page, anchor) for file, anchor in targets]
    assert [(str(at), anchor) for at, anchor in places if anchor not in headings(TEXTS.get(at, ""))] == []


def test_every_make_target_that_the_docs_name_exists() -> None:
    """A command copied from the page must run."""
    named = {
        target
        for text in TEXTS.values()
        for target in re.findall(r"(?:^|`)make ([a-z][a-z-]+)", text, re.MULTILINE)
    }
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= named
    assert named <= targets


def test_every_verb_that_the_docs_name_exists_and_every_verb_is_documented() -> None:
    """The reference and the program say the same."""
    verbs = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    named = {
        verb for text in TEXTS.values() for verb in re.findall(r"`(?:\.venv/bin/)?vaewatch ([a-z]+)", text)
    }
    assert named <= verbs
    reference = TEXTS[ROOT / "docs" / "reference" / "command-line.md"]
    assert {verb for verb in verbs if f"`vaewatch {verb}" not in reference} == set()


def test_every_setting_of_a_dataset_is_documented() -> None:
    """A key that only the code knows does not exist for a user."""
    reference = TEXTS[ROOT / "docs" / "reference" / "dataset.md"]
    schema = Dataset.model_json_schema()
    keys = {key for part in [schema, *schema["$defs"].values()] for key in part["properties"]} - {
        "file",
        "description",
    }
    assert {key for key in keys if not re.search(rf"\b{key}\b", reference)} == set()


def test_the_page_s_example_of_a_dataset_file_is_one(tmp_path: Path) -> None:
    """It is the first thing that somebody copies."""
    page = TEXTS[ROOT / "docs" / "reference" / "dataset.md"]
    (example,) = re.findall(r"^```yaml\n(dataset:.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "orders.yaml").write_text(example, encoding="utf-8")
    assert load_dataset(tmp_path / "orders.yaml").name == "orders"


def test_the_shipped_dataset_files_are_sound() -> None:
    """`make up` on a fresh clone shows DAGs, not import errors."""
    assert "payments" in load_datasets(ROOT / "dags" / "datasets")


def test_modules_that_a_module_sends_its_reader_to_exist() -> None:
    """`Does not: X (there.py)` is how a stranger finds X."""
    sources = [
        path for top in ("vae_core", "pipeline", "dags", "infra") for path in (ROOT / top).rglob("*.py")
    ]
    lost = [
        f"{module.relative_to(ROOT)}: {name}"
        for module in sources
        for name in re.findall(
            r"[\w/]+\.py", ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
        )
        if not any((folder / name).exists() for folder in module.parents if folder.is_relative_to(ROOT))
    ]
    assert sources
    assert not lost


def test_tests_that_the_docs_name_exist() -> None:
    """What a page says is held is held by a test: a file, or a function, which bad-input.md names without its
    test_.
    """
    files = list((ROOT / "tests").rglob("test_*.py"))
    known = {"/".join(path.with_suffix("").parts[i:]) for path in files for i in range(len(path.parts))}
    for path in files:
        known.update(re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    named = {x for text in TEXTS.values() for x in re.findall(r"`((?:\w+/)*test_\w+)(?:\.py)?`", text)}
    rows = re.findall(r"^\|.*\|(.*)\|$", TEXTS[ROOT / "docs" / "reference" / "bad-input.md"], re.MULTILINE)
    named |= {f"test_{x}" for row in rows for x in re.findall(r"`(?!test_)(\w+)`", row)}
    assert {"test_objectives", "test_a_batch_of_one_record_is_checked_and_scored"} <= named
    assert named - known == set()
