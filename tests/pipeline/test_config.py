"""The dataset file and the settings: every fault at once, each where it is, with a way out."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.columns import Column
from pipeline.config.dataset import Dataset
from pipeline.config.derived import faults
from pipeline.config.files import load_dataset, load_datasets
from pipeline.config.settings import Settings, load_settings, quota
from pipeline.config.training import IN_WORDS, RECIPE
from pipeline.errors import ConfigError
from pipeline.installation import Installation
from vae_core import Recipe

GOOD = """\
dataset: payments
incoming:
  path: ../incoming
key: id
time: at
columns:
  id: {type: string, required: true}
  at: {type: timestamp, role: context}
  amount: {type: float, role: numeric, min: 0, max: 5000}
flag:
  review_budget: 5
"""


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str | bytes], Dataset]:
    """Load a dataset file with this text."""

    def load(text: str | bytes) -> Dataset:
        file = tmp_path / "datasets" / "payments.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_dataset(file)

    return load


def lines_of(message: str) -> list[str]:
    """The faults that a message lists."""
    return [line.strip() for line in message.splitlines()[1:]]


def test_a_short_file_is_enough_and_the_rest_has_defaults(
    read: Callable[[str], Dataset], tmp_path: Path
) -> None:
    """Nobody should write down what nearly everybody wants."""
    dataset = read(GOOD)
    assert dataset.key == ["id"]
    assert dataset.columns_with("numeric", "context") == ["at", "amount"]
    assert dataset.train.schedule == "0 2 * * *"
    assert dataset.incoming_path == (tmp_path / "incoming").resolve()


def test_every_fault_is_in_one_message_with_its_line(read: Callable[[str], Dataset]) -> None:
    """Mending one fault to be told the next costs a person ten rounds; a line number saves the search."""
    with pytest.raises(ConfigError) as caught:
        read("""\
dataset: pay ments
incoming:
  path: ../incoming
  split: weekly
key: idd
time: amount
columns:
  id: {type: text}
  amount: {type: float, role: numerc, min: 5, max: 1}
train: {calibration: 2}
flag: {review_budget: 3, error_rate: 0.1}
""")
    faults = lines_of(str(caught.value))
    expected = {
        "line 1: dataset": "'pay ments' must start with a letter",
        "line 4: incoming.split": "'day', 'hour' or 'month'",
        "line 5: key": "'idd' is not among the columns",
        "line 6: time": "has type float",
        "line 8: columns.id.type": "is 'text'",
        "line 9: columns.amount.role": "'numeric', 'categorical', 'context' or 'ignored'",
        "line 10: train.calibration": "less than 1",
        "line 11: flag": "exactly one of",
    }
    for where, what in expected.items():
        assert any(fault.startswith(where) and what in fault for fault in faults), (where, faults)
    assert len(faults) == len(expected)


@pytest.mark.parametrize(
    ("typed", "known", "line"),
    [
        ("datset: x", "dataset", 12),
        ("incomming: {path: x}", "incoming", 12),
        ("batch: {max_setaside: 0.1}", "max_set_aside", 12),
        ("train:\n  windowdays: 3", "window_days", 13),
        ("batch:\n  min_record: 3", "min_records", 13),
    ],
)
def test_a_misspelled_key_names_the_one_that_was_meant(
    read: Callable[[str], Dataset], typed: str, known: str, line: int
) -> None:
    """A key that is silently passed over is a setting that silently does not hold."""
    with pytest.raises(ConfigError, match=rf"line {line}: \S+: unknown key; did you mean '{known}'\?"):
        read(GOOD + typed)


def test_a_misspelled_key_of_a_column_is_named_with_those_of_columns(read: Callable[[str], Dataset]) -> None:
    """The nearest key must come from where the person is, not from the top of the file."""
    with pytest.raises(ConfigError, match=r"line 7: columns\.id\.requird: .* 'required'"):
        read(GOOD.replace("required: true", "requird: true"))


def test_a_key_like_no_other_lists_the_known_ones(read: Callable[[str], Dataset]) -> None:
    """Where nothing is near, the whole list is the help."""
    with pytest.raises(ConfigError, match="known keys: review_budget, error_rate, false_discovery_rate, cap"):
        read(GOOD.replace("review_budget: 5", "zzz: 5"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("flag: {review_budget: 9}\n", "line 12: 'flag' is given twice"),
        ("train: {seed: 1, seed: 2}\n", "line 12: 'seed' is given twice"),
        ("batch:\n  min_records: 1\n  min_records: 2\n", "line 14: 'min_records' is given twice"),
    ],
)
def test_a_key_given_twice_is_a_fault(read: Callable[[str], Dataset], text: str, fault: str) -> None:
    """YAML keeps the last one and says nothing: half of a merge conflict becomes the setting."""
    with pytest.raises(ConfigError, match=fault):
        read(GOOD + text)


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("min: 0", "min: 6000", "min 6000 is above max 5000"),
        ("min: 0", "min: .nan", "finite"),
        ("max: 5000", "max: .inf", "finite"),
        ("type: float,", "type: 'decimal(39,2)',", "scale <= precision <= 38"),
        ("type: float,", "type: 'decimal(2,3)',", "scale <= precision <= 38"),
        ("type: float,", "type: 'decimal(0,0)',", "precision of at least 1"),
        ("type: float,", "type: decimal(10,2),", r'"decimal\(p,s\)", in quotes'),
        ("type: float,", "type: string,", "role numeric needs a number.*min and max are for numbers"),
        ("type: string,", "type: string, min: 3,", "min and max are for numbers"),
        ("role: numeric,", "role: numeric, pattern: a,", "values and pattern are for strings"),
        ("type: string,", "type: other, role: categorical,", "type other .* can only have role ignored"),
        ("type: string,", "type: string, values: [1, yes],", "values.1: must be text, in quotes, is True"),
        ("type: string,", "type: string, pattern: '[',", "is not a regular expression"),
        ("type: string,", "type: string, pattern: 'a(?=b)',", "is not a regular expression"),
        ("  id:", "  yes:", "line 7: columns: YAML reads a name as True: put it in quotes"),
        ("  id:", "  2024:", "line 7: columns: YAML reads a name as 2024"),
        ("  id:", "  AMOUNT: {type: int}\n  id:", "amount differ in case only"),
        ("  id:", '  "": {type: int}\n  id:', "a column without a name can only have type other"),
        ("time: at", "time: null\nbatch: {min_records: -1}", "greater than or equal to 0"),
        ("path: ../incoming", "path: x\n  files: '*.parquet'", "with {batch_id} in it exactly once"),
        (
            "path: ../incoming",
            "path: x\n  files: ../{batch_id}.parquet",
            "with {batch_id} in it exactly once",
        ),
        ("time: at", "incoming: {path: x, split: day}", "is given twice"),
        ("key: id", "key: false", "key: must be a list, is False"),
        (
            "review_budget: 5",
            "review_budget: 5%",
            r"line \d+: flag.review_budget: must be a number, is '5%' \(a share: 0.05\)",
        ),
        (
            "time: at",
            "time: at\ntrain: {window_days: thirty}",
            "train.window_days: must be a number, is 'thirty'",
        ),
        (
            "time: at",
            "time: at\ntrain: {max_records: 60.5}",
            "train.max_records: must be a whole number, is 60.5",
        ),
        ("time: at", "time: at\ntrain: {calibration: 3}", "train.calibration: must be less than 1, is 3"),
        (
            "time: at",
            "time: at\ntrain: {leave_out: [b..a]}",
            "train.leave_out: the range b..a ends before it begins, so no batch is in it; turn it round: a..b",
        ),
        ("time: at", "time: at\ntrain: nightly", "train: must be settings, a line each, is 'nightly'"),
        (
            "time: at",
            "time: at\ntrain: {schedule: every night}",
            "train.schedule: 'every night' is not a cron schedule",
        ),
        (
            "time: at",
            "time: at\nschedule: {discover: 61 * * * *}",
            r"discover: '61 \* \* \* \*' is not a cron schedule",
        ),
        (
            "time: at",
            "time: at\nretention: {schedule: 0 2 * *}",
            "retention.schedule: .* is not a cron schedule",
        ),
        (
            "  path: ../incoming",
            "  path: {../incoming",
            r"\.yaml: line \d+, column \d+: .*, while parsing a flow mapping that begins in line 3",
        ),
        ("key: id", "file: x.yaml", "file: unknown key"),
        ("key: id", "storage: 'a[1]'", "tables cannot be stored in"),
        ("key: id", "storage: s3://b/t", "s3://b/t is an address, and what is kept must lie in a folder"),
        ("path: ../incoming", "path: gs://b/in", "gs://b/in is an address, and only folders can be read"),
        ("role: numeric, ", "", "there is nothing to model"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(
    read: Callable[[str], Dataset], old: str, new: str, fault: str
) -> None:
    """Found at start, a fault costs a minute; found in a query at two at night, the night."""
    assert GOOD.count(old) == 1
    with pytest.raises(ConfigError, match=fault):
        read(GOOD.replace(old, new))


def test_a_split_needs_a_time_column_and_says_so_where_the_split_is(read: Callable[[str], Dataset]) -> None:
    """The person who wrote `split` looks there, not at a setting that is missing."""
    text = GOOD.replace("path: ../incoming", "path: x\n  split: day").replace("time: at\n", "")
    with pytest.raises(ConfigError, match=r"line 4: incoming\.split: needs a time column"):
        read(text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"- a\n- b\n",
        b"just words",
        GOOD.encode("utf-16"),
        b"dataset: \xff\xfe\n",
        (GOOD + "\ttabs: 1\n").encode(),
        (GOOD + "---\n" + GOOD).encode(),
        (GOOD + "description: 2024-99-99\n").encode(),
        (GOOD + "? [a, b]\n: 1\n").encode(),
        (GOOD + "train: &again {seed: *again}\n").encode(),
        (GOOD + "flag: !!python/object/apply:os.system ['true']\n").encode(),
    ],
    ids=["empty", "list", "text", "utf16", "bytes", "tab", "two", "date", "listkey", "recursive", "code"],
)
def test_a_file_that_is_no_mapping_of_settings_is_refused_by_name(
    read: Callable[[bytes], Dataset], text: bytes
) -> None:
    """A stack trace from a YAML parser tells a person neither which file nor that it is the file."""
    with pytest.raises(ConfigError, match=r"payments\.yaml: "):
        read(text)


KEYS = st.sampled_from([
    *("dataset", "incoming", "path", "files", "split", "key", "time", "columns", "at", "amount", "type", "role", "min"),
    *("values", "pattern", "flag", "cap", "recipe", "", "yes", 1, None, 0.5),
])  # fmt: skip
LEAVES = (
    KEYS | st.sampled_from(["payments", "float", "numeric", "timestamp", "{batch_id}", "day"]) | st.floats()
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=8
)


@given(changes=st.dictionaries(KEYS, VALUES, max_size=3), column=VALUES)
def test_whatever_is_written_is_loaded_or_refused(
    read: Callable[[str], Dataset], changes: dict[object, object], column: object
) -> None:
    """A list where a text belongs, a text where a section belongs: never a stack trace."""
    text = yaml.safe_dump({**yaml.safe_load(GOOD), "columns": {"id": column, "amount": column}, **changes})
    with contextlib.suppress(ConfigError):
        assert read(text).columns


def test_a_file_that_is_not_there_is_a_config_error(tmp_path: Path) -> None:
    """The shell's exit code 2 says: look at what you typed."""
    with pytest.raises(ConfigError, match="No such file"):
        load_dataset(tmp_path / "absent.yaml")


def test_types_are_written_in_one_way(read: Callable[[str], Dataset]) -> None:
    """The contract's hash and the notes of a batch must not depend on a blank."""
    dataset = read(GOOD.replace("type: float,", "type: 'decimal(10, 2)',"))
    assert dataset.columns["amount"].type == "decimal(10,2)"


def test_the_environment_overrides_a_file(
    read: Callable[[str], Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same file serves test and production; what differs is said where it is deployed."""
    monkeypatch.setenv("VAEWATCH_PAYMENTS__INCOMING__PATH", "/data/payments")
    monkeypatch.setenv("VAEWATCH_PAYMENTS__FLAG__REVIEW_BUDGET", "null")
    monkeypatch.setenv("VAEWATCH_PAYMENTS__FLAG__ERROR_RATE", "0.01")
    monkeypatch.setenv("VAEWATCH_PAYMENTS__COLUMNS__AMOUNT__MAX", "70")
    monkeypatch.setenv("VAEWATCH_PAYMENTS__TRAIN__RECIPE__STEPS", "20")
    monkeypatch.setenv("VAEWATCH_OTHERS__FLAG__CAP", "3")
    dataset = read(GOOD.replace("  amount:", "  Amount:"))
    assert str(dataset.incoming_path) == "/data/payments"
    assert (dataset.flag.error_rate, dataset.flag.review_budget, dataset.flag.cap) == (0.01, None, None)
    assert dataset.columns["Amount"].max == 70
    assert dataset.train.recipe == {"steps": 20}


def test_a_schedule_may_be_any_that_airflow_reads(read: Callable[[str], Dataset]) -> None:
    """Its presets, too."""
    for schedule in ("30 1 * * 1-5", "@daily"):
        text = GOOD.replace("time: at", f"time: at\ntrain: {{schedule: '{schedule}'}}")
        assert read(text).train.schedule == schedule


def test_a_file_whose_dataset_has_another_name_says_so(tmp_path: Path) -> None:
    """Half renamed: "did you mean" would send people from the one name to the other and back."""
    (tmp_path / "retail.yaml").write_text(GOOD.replace("dataset: payments", "dataset: retial"))
    here = Installation(Settings(home=tmp_path / "home", datasets=tmp_path))
    with pytest.raises(ConfigError, match=r"no dataset 'retail': .*retail\.yaml calls itself 'retial'"):
        here.dataset("retail")


@pytest.mark.parametrize("before", ["flag:\n", "flag: 3\n"])
def test_the_environment_can_override_a_section_that_is_faulty_in_the_file(
    read: Callable[[str], Dataset], monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """An empty section is how people comment one out; it must not end in a stack trace."""
    monkeypatch.setenv("VAEWATCH_PAYMENTS__FLAG__ERROR_RATE", "0.01")
    assert read(GOOD.replace("flag:\n  review_budget: 5\n", before)).flag.error_rate == 0.01


@pytest.mark.parametrize(
    ("variable", "value", "fault"),
    [
        ("TRAIN__CALIBRATION", "3", "train.calibration: must be less than 1, is 3"),
        ("FLAG__CAP", "[1", "while parsing a flow sequence"),
        ("FLAGS__CAP", "1", "flags: unknown key; did you mean 'flag'"),
        ("DESCRIPTION", "2024-99-99", "month must be in"),
    ],
)
def test_a_fault_from_the_environment_names_the_variable(
    read: Callable[[str], Dataset], monkeypatch: pytest.MonkeyPatch, variable: str, value: str, fault: str
) -> None:
    """A person who reads the file finds nothing wrong in it, however long they look."""
    monkeypatch.setenv(f"VAEWATCH_PAYMENTS__{variable}", value)
    with pytest.raises(ConfigError, match=rf"VAEWATCH_PAYMENTS__{variable}: {fault}"):
        read(GOOD)


def test_a_folder_of_files_is_checked_whole(tmp_path: Path) -> None:
    """Two broken datasets are two faults in one message, and the name of a dataset is taken once."""
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yml").write_text(GOOD)
    (tmp_path / "c.yaml").write_text(GOOD.replace("numeric", "numerical"))
    (tmp_path / "d.yaml").write_text("- nothing\n")
    with pytest.raises(ConfigError) as caught:
        load_datasets(tmp_path)
    for fault in ("b.yml: dataset 'payments' is also in", "c.yaml:", "d.yaml: must be a mapping"):
        assert fault in str(caught.value)


def test_two_datasets_do_not_share_variables(tmp_path: Path) -> None:
    """VAEWATCH_CARD_FEED__FLAG__CAP must mean one of them."""
    for name in ("card-feed", "card_feed"):
        (tmp_path / f"{name}.yaml").write_text(GOOD.replace("dataset: payments", f"dataset: {name}"))
    with pytest.raises(ConfigError, match="share the environment variables VAEWATCH_CARD_FEED__"):
        load_datasets(tmp_path)


def test_a_folder_without_files_has_no_datasets(tmp_path: Path) -> None:
    """A fresh installation is not a broken one."""
    assert load_datasets(tmp_path / "absent") == {}


def test_the_json_schema_accepts_what_the_loader_accepts(read: Callable[[str], Dataset]) -> None:
    """Editors check and complete with it: a red line under a good file teaches people to ignore red lines."""
    schema = json.loads(json.dumps(Dataset.model_json_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    for text in (GOOD, GOOD.replace("key: id", "key: [id, at]"), GOOD.replace("key: id", "key:")):
        read(text)
        jsonschema.validate(yaml.safe_load(text), schema)


def test_the_json_schema_refuses_unknown_keys_and_explains_the_known_ones() -> None:
    """Completion without a description is a list of riddles."""
    schema = Dataset.model_json_schema()
    assert schema["additionalProperties"] is False
    assert "file" not in schema["properties"]
    assert all("description" in field for field in schema["$defs"]["Column"]["properties"].values())
    with pytest.raises(jsonschema.ValidationError, match="datset"):
        jsonschema.validate(yaml.safe_load(GOOD) | {"datset": 1}, schema)


def test_a_file_is_read_by_several_at_once(read: Callable[[str], Dataset]) -> None:
    """The review page's threads do: of six hundred, a hundred were told that DuckDB is busy."""
    derived = "derived:\n  step: {sql: amount - lag(amount) OVER by_time}\n  twice: {sql: 2 * amount}\n"
    dataset = read(GOOD.replace("flag:", f"{derived}flag:"))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: faults(dataset), range(400)))
        patterns = [re.escape(f"x{i}") for i in range(400)]
        columns = list(pool.map(lambda text: Column(type="string", pattern=text), patterns))
    assert found == [[]] * 400
    assert [column.pattern for column in columns] == patterns


@given(st.text(max_size=40))
def test_no_text_makes_a_column_name_that_a_file_cannot_hold(name: str) -> None:
    """Other people name columns; a contract must be able to repeat any name."""
    columns = {
        name: {"type": "other"},
        "amount" if name.casefold() != "amount" else "b": {"type": "float", "role": "numeric"},
    }
    dataset = Dataset.model_validate({"dataset": "d", "incoming": {"path": "x"}, "columns": columns})
    assert set(dataset.columns) == set(columns)


@settings(max_examples=15)
@given(
    st.text(max_size=8) | st.sampled_from(["(?=a)", r"(a)\1", "(?<!a)b", "a{2000}", "[[:alpha:]]", r"\p{L}"])
)
def test_any_pattern_is_compiled_or_refused(pattern: str) -> None:
    """A pattern that only DuckDB refuses would be found when the first batch is checked."""
    with contextlib.suppress(ValueError):
        Column(type="string", pattern=pattern)
        assert duckdb.execute("SELECT regexp_full_match('text', ?)", [pattern]).fetchone() is not None


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One installation is one set of variables: nothing is read from the folder one happens to be in."""
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "DATASETS", "LEDGER_URL", "TRACKING_URI", "THREADS"):
        monkeypatch.delenv(f"VAEWATCH_{name}", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    plain = load_settings()
    assert (plain.home, plain.datasets) == (tmp_path / "var", tmp_path / "dags" / "datasets")
    assert plain.tracking == f"sqlite:///{tmp_path}/var/mlflow.db"
    assert plain.cores >= 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow")
    assert load_settings().tracking == "http://mlflow"
    monkeypatch.setenv("VAEWATCH_TRACKING_URI", "http://ours")
    monkeypatch.setenv("VAEWATCH_HOME", "elsewhere")
    monkeypatch.setenv("VAEWATCH_THREADS", "3")
    assert load_settings().tracking == "http://ours"
    assert load_settings().ledger == f"sqlite:///{tmp_path}/elsewhere/ledger.db"
    assert load_settings().cores == 3


def test_faulty_settings_are_named_by_their_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The person sees VAEWATCH_THREADS in a deployment, not a field called threads."""
    monkeypatch.setenv("VAEWATCH_THREADS", "many")
    monkeypatch.setenv("VAEWATCH_HOME", "/data/[prod]")
    with pytest.raises(ConfigError, match=r"(?s)VAEWATCH_HOME: .*'\['.*VAEWATCH_THREADS: "):
        load_settings()


def test_the_recipe_s_settings_are_those_of_vae_core() -> None:
    """They are listed twice, so that reading a file needs no torch."""
    fields = Recipe.__dataclass_fields__
    assert list(RECIPE) == list(fields)
    assert {name for name, field in fields.items() if isinstance(field.default, str)} == IN_WORDS


@pytest.mark.parametrize(
    ("written", "meant"), [("1e-3", 0.001), ("1.0e-3", 0.001), ("'20'", 20), ("1E2", 100), ("20", 20)]
)
def test_a_number_that_yaml_takes_for_text_is_read_as_a_number(
    written: str, meant: float, read: Callable[[str], Dataset]
) -> None:
    """YAML 1.1 wants a point in 1.0e-3."""
    found = read(GOOD + f"train: {{recipe: {{learning_rate: {written}}}}}\n").train.recipe["learning_rate"]
    assert (found, type(found)) == (meant, type(meant))


def test_text_where_a_number_is_due_is_said_when_the_file_is_read(read: Callable[[str], Dataset]) -> None:
    """Both faults at once, and a word where words are due is none."""
    said = r"line \d+: train\.recipe: steps must be a number, is 'many'; trim must be a number, is 'a bit'"
    with pytest.raises(ConfigError, match=said):
        read(GOOD + "train: {recipe: {steps: many, trim: a bit, prior: normal}}\n")


def test_an_unknown_setting_of_the_recipe_is_said_when_the_file_is_read(
    read: Callable[[str], Dataset],
) -> None:
    """Not at two in the morning, when it is used."""
    with pytest.raises(ConfigError, match=r"train\.recipe: unknown setting 'step'; did you mean 'steps'\?"):
        read(GOOD + "train: {recipe: {step: 100}}\n")


@pytest.mark.parametrize(
    ("wrong", "right"), [("HOM", "HOME"), ("DATASET", "DATASETS"), ("TRACKING_URL", "TRACKING_URI")]
)
def test_a_misspelled_variable_is_no_silence(monkeypatch: pytest.MonkeyPatch, wrong: str, right: str) -> None:
    """A night's work would go to the default folder."""
    monkeypatch.setenv(f"VAEWATCH_{wrong}", "/data")
    with pytest.raises(ConfigError, match=rf"VAEWATCH_{wrong}: unknown; did you mean VAEWATCH_{right}\?"):
        load_settings()


@pytest.mark.parametrize("folder", ["a[b", "a]", "a^b", "a|b", "a\\b", "a?b", "a%20b", "a\nb"])
def test_a_home_in_which_tables_would_be_lost_is_refused(folder: str, tmp_path: Path) -> None:
    """deltalake panics on some characters in a path and takes others for escapes: better told at start."""
    with pytest.raises(ValueError, match="tables cannot be stored in"):
        Settings(home=tmp_path / folder)


def test_a_home_in_an_object_store_is_no_folder_of_that_name() -> None:
    """A Path takes s3:// for a folder `s3:`, and a night's work would lie there."""
    with pytest.raises(ValueError, match="s3://bucket/vaewatch is an address"):
        Settings(home=Path("s3://bucket/vaewatch"))
    with pytest.raises(ValueError, match="s3://bucket/files is an address"):
        Settings(datasets=Path("s3://bucket/files"))


def test_a_noise_model_for_what_is_no_number_is_said_when_the_file_is_read(
    read: Callable[[str], Dataset],
) -> None:
    """A misspelt column would otherwise keep the default, or fail at night."""
    with pytest.raises(
        ConfigError, match=r"train\.recipe\.column_noise: column 'amuont' does not have role numeric"
    ):
        read(GOOD + "train: {recipe: {column_noise: {amuont: poisson}}}\n")


def test_categories_without_a_closed_form_are_said_when_the_file_is_read(
    read: Callable[[str], Dataset],
) -> None:
    """Otherwise each night's training would fail, once it had read its window."""
    exact = "train: {recipe: {encoder: exact, prior: normal, noise: gaussian_shared_sigma}}\n"
    assert read(GOOD + exact).train.recipe["encoder"] == "exact"
    categories = GOOD.replace("flag:", "  channel: {type: string, role: categorical}\nflag:")
    with pytest.raises(
        ConfigError,
        match=r"train\.recipe\.encoder: exact takes numeric columns only: column 'channel' has role",
    ):
        read(categories + exact)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "20000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
    ],
)
def test_a_container_s_limit_on_cpu_time_is_known(
    tmp_path: Path, files: dict[str, str], cores: int | None
) -> None:
    """Sixteen threads on two cores' worth of time wait for one another."""
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert quota(tmp_path) == cores


def test_a_day_that_yaml_reads_as_a_date_is_the_name_of_a_batch(
    read: Callable[[str | bytes], Dataset],
) -> None:
    """Batches are named by their day more often than not."""
    train = read(GOOD + "train: {leave_out: [2026-01-27, 2026-02-01..2026-02-03]}\n").train
    found = [day for day in ("2026-01-26", "2026-01-27", "2026-02-02", "2026-02-04") if train.leaves_out(day)]
    assert found == ["2026-01-27", "2026-02-02"]
