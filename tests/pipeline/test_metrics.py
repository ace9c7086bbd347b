"""Metrics, and the rules and the dashboard over them: each name and label that these use is emitted, and each
expression is valid in Prometheus.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from pipeline.config.settings import Settings
from pipeline.detection.measures import ColumnDrift, Measures
from pipeline.installation import Installation
from pipeline.monitoring import store
from pipeline.monitoring.findings import Finding
from pipeline.report import metrics
from pipeline.storage.ledger import BatchState

INFRA = Path(__file__).resolve().parents[2] / "infra"
RULES = yaml.safe_load((INFRA / "prometheus" / "vaewatch.rules.yml").read_text(encoding="utf-8"))
DASHBOARD = json.loads((INFRA / "grafana" / "vaewatch.json").read_text(encoding="utf-8"))
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NAME = 'a "quoted"\\ column\n{x="y"}'
STATE = BatchState(
    dataset="sensors", batch_id="2026-01-01", version=0, status="accepted", reason="", fingerprint="f", signature="", contract_hash="",
    files=[], notes=[], set_aside={}, n_read=1_000, n_accepted=990, newest_record_at=None, validated_at=NOW,
)  # fmt: skip


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Installation]:
    """One scored batch with an alarm, then a refused one."""
    installation = Installation(Settings(home=tmp_path, datasets=tmp_path))
    ledger = installation.ledger
    accepted = ledger.record_validation(STATE)
    drift = ColumnDrift(0.25, 0.0, 0.3, 1.0, 0.125, 0.0, None)
    measures = Measures(
        990, 990, 30, 20.0, 0.5, 0.01, 1_000, 10, champion_days=2.0, backlog=30, columns={NAME: drift}
    )
    findings = (Finding("drift:a", "alarm", "a moved", "ask"),)
    watched = store.Watched(
        "2026-01-01", date(2026, 1, 1), measures, findings, model_version=3, measured_at=NOW
    )
    store.replace(ledger, "sensors", watched)
    ledger.record_scores(accepted, model_version=3, threshold=1.0, n_flagged=30)
    ledger.set_serving("sensors", 3)
    ledger.set_trained("sensors", NOW)
    ledger.record_validation(replace(STATE, batch_id="2026-01-02", status="refused", fingerprint="g"))
    yield installation
    installation.close()


def emitted(here: Installation) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(metrics.exposition(here)):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def test_the_numbers_are_those_of_the_ledger(here: Installation) -> None:
    """Labels from data come back as they were."""
    found = emitted(here)
    assert set(found) == set(metrics.GAUGES)
    mine = {"dataset": "sensors"}
    assert found["vaewatch_last_delivery_refused"] == [(mine, 1.0)]
    assert found["vaewatch_champion_version"] == [(mine, 3.0)]
    assert ({**mine, "severity": "alarm"}, 1.0) in found["vaewatch_findings"]
    assert ({**mine, "severity": "warning"}, 0.0) in found["vaewatch_findings"]
    assert ({**mine, "kind": "flagged"}, 30.0) in found["vaewatch_batch_records"]
    assert ({**mine, "status": "refused"}, 1.0) in found["vaewatch_batches"]
    assert found["vaewatch_column_missing_ratio"] == [({**mine, "column": NAME}, 0.125)]
    made = found["vaewatch_champion_trained_timestamp_seconds"][0][1]
    assert made == NOW.timestamp() - 2 * 86_400


def test_a_dataset_whose_file_was_deleted_rings_no_more(here: Installation) -> None:
    """Nothing is delivered for it, for ever; a file that cannot be read is another thing."""
    folder = here.settings.datasets
    other = "dataset: {}\nincoming: {{path: .}}\ncolumns: {{a: {{type: float, role: numeric}}}}\nflag: {{review_budget: 1}}\n"
    (folder / "other.yaml").write_text(other.format("other"))
    assert not emitted(here)
    (folder / "sensors.yaml").write_text("dataset: sensors\nincoming: oops\n")
    assert emitted(here)
    (folder / "sensors.yaml").write_text(other.format("sensors"))
    assert emitted(here)


def test_strays_do_not_hide_the_batch_that_they_were_cut_from(here: Installation) -> None:
    """They share its day, their name comes after its own, and nothing of them is scored or can be odd: what
    the alert rules ask of the newest batch would be 0.
    """
    before = emitted(here)
    measured = store.Watched(
        "2026-01-01_undated", date(2026, 1, 1), Measures(0, 0, 0, 0.0, None, None, 4, 4), model_version=3, measured_at=NOW
    )  # fmt: skip
    store.replace(here.ledger, "sensors", measured)
    here.ledger.record_validation(replace(STATE, batch_id="2026-01-02_undated", fingerprint="h"))
    after = emitted(here)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"vaewatch_batches"}  # one more was accepted


def test_who_may_read_some_datasets_is_told_of_those(here: Installation) -> None:
    assert '"sensors"' in metrics.exposition(here, only={"sensors"})
    assert '"sensors"' not in metrics.exposition(here, only=set())


def test_an_installation_in_which_nothing_happened_has_metrics(tmp_path: Path) -> None:
    empty = Installation(Settings(home=tmp_path, datasets=tmp_path))
    assert emitted(empty) == {}
    said: list[str] = []
    metrics.publish(empty, said.append)
    assert (tmp_path / "metrics" / metrics.FILE).read_text(encoding="utf-8") == metrics.exposition(empty)
    assert said == []
    empty.close()


def test_a_file_that_cannot_be_written_is_said_and_stops_nothing(here: Installation) -> None:
    (here.settings.home / "metrics").write_text("in the way", encoding="utf-8")
    said: list[str] = []
    metrics.publish(here, said.append)
    assert "could not be written" in said[0]


def expressions() -> list[tuple[str, str]]:
    """Every expression of the rules and of the dashboard, by where it is."""
    found = [(rule["alert"], rule["expr"]) for group in RULES["groups"] for rule in group["rules"]]
    for panel in DASHBOARD["panels"]:
        found += [(panel["title"], target["expr"].replace("$dataset", ".*")) for target in panel["targets"]]
    return found


def selectors(expression: Any) -> Iterator[Any]:
    """The vector selectors of a parsed expression."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
        return
    inner = [
        getattr(expression, name, None) for name in ("lhs", "rhs", "expr", "param", "vector_selector", "args")
    ]
    for one in inner:
        for part in one if isinstance(one, list | tuple) else [one]:
            if part is not None and type(part).__module__ == type(expression).__module__:
                yield from selectors(part)


@pytest.mark.parametrize(("place", "text"), expressions(), ids=[place for place, _ in expressions()])
def test_every_expression_asks_for_what_is_emitted(here: Installation, place: str, text: str) -> None:
    """A metric that was renamed leaves an alert that never rings."""
    found = emitted(here)
    asked = list(selectors(promql_parser.parse(text)))
    assert asked, place
    for selector in asked:
        assert selector.name in found
        labels, _ = found[selector.name][0]
        for matcher in selector.matchers.matchers:
            assert matcher.name in labels
            values = {sample[matcher.name] for sample, _ in found[selector.name]}
            assert any(re.fullmatch(matcher.value, value) for value in values), (place, matcher.value)


def test_rules_are_whole() -> None:
    """What Prometheus wants of each, and what whoever is woken wants."""
    alerts = [rule for group in RULES["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in alerts}) == len(alerts) >= 8
    for rule in alerts:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert re.fullmatch(r"\d+[smhd]", rule.get("for", "1m"))
        assert set(rule["annotations"]) == {"summary", "description"}
        assert "{{ $labels.dataset }}" in rule["annotations"]["summary"]


needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool here: `apt-get install prometheus` brings it"
)
BAD = {  # one hour apart; a timestamp of 0 is a thing that never happened again
    'vaewatch_findings{dataset="bad",severity="alarm"}': "1",
    'vaewatch_findings{dataset="bad",severity="warning"}': "1",
    'vaewatch_last_delivery_refused{dataset="bad"}': "1",
    'vaewatch_last_delivery_timestamp_seconds{dataset="bad"}': "0",
    'vaewatch_last_train_ended_timestamp_seconds{dataset="bad"}': "0",
    'vaewatch_champion_trained_timestamp_seconds{dataset="bad"}': "0",
    'vaewatch_batches{dataset="bad",status="accepted"}': "1",
    'vaewatch_review_backlog{dataset="bad"}': "100",
    'vaewatch_batch_records{dataset="bad",kind="expected_flagged"}': "2",
}
HOURS = 31 * 24


@needs_promtool
def test_prometheus_rings_for_a_bad_dataset_by_every_rule_and_for_a_good_one_by_none(tmp_path: Path) -> None:
    """Its own evaluation, `for` and all, over a month."""
    good = {
        name.replace('"bad"', '"good"'): f"0+3600x{HOURS}" if "timestamp" in name else f"0x{HOURS}"
        for name in BAD
    }
    skipped = {'vaewatch_last_trained_timestamp_seconds{dataset="good"}': f"0x{HOURS}"}  # by train.when
    series = {name: f"{value}x{HOURS}" for name, value in BAD.items()} | good | skipped
    ringing = [
        {"labels": f'{{alertname="{rule["alert"]}", dataset="bad"}}', "value": 1}
        for group in RULES["groups"]
        for rule in group["rules"]
    ]
    asked = {
        "expr": 'count by (alertname, dataset) (ALERTS{alertstate="firing"})',
        "eval_time": f"{HOURS}h",
        "exp_samples": ringing,
    }
    test = {
        "rule_files": [str(INFRA / "prometheus" / "vaewatch.rules.yml")],
        "evaluation_interval": "1h",
        "tests": [
            {
                "interval": "1h",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [asked],
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(test), encoding="utf-8")
    done = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_reads_what_is_emitted(here: Installation) -> None:
    """And finds nothing to say about names, help and types, but that bits are no bytes: these are of
    information.
    """
    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=metrics.exposition(here),
        capture_output=True,
        text=True,
        check=False,
    )
    said = (done.stdout + done.stderr).splitlines()
    assert [line for line in said if not re.match(r"vaewatch_column_divergence_bits .*bits", line)] == []
    assert done.returncode == (3 if said else 0)  # 3: advice only


def test_the_dashboard_is_whole() -> None:
    """Panels do not overlap, each has a place, a source and a number of its own."""
    panels = DASHBOARD["panels"]
    assert {"title", "uid", "schemaVersion", "templating", "time"} <= set(DASHBOARD)
    assert len({panel["id"] for panel in panels}) == len(panels) >= 12
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells
        assert panel["type"] in {"stat", "timeseries"}
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${source}"}


def variable_faults(
    dashboard: dict[str, Any], found: dict[str, list[tuple[dict[str, str], float]]]
) -> list[str]:
    """What is wrong with how a dashboard's queries use its variables; found: what is emitted."""
    variables = {one["name"]: one for one in dashboard["templating"]["list"]}
    faults, values_of = [], {}
    for name, one in variables.items():
        if one["type"] == "query":
            asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", one["query"]["query"])
            if asked is None or all(asked[2] not in labels for labels, _ in found.get(asked[1], [])):
                faults.append(f"{name} asks {one['query']['query']}, which has no values")
            else:
                values_of[name] = asked[2]
    text = json.dumps(dashboard)
    faults += [
        f"${used} is no variable"
        for used in {*re.findall(r"\$\{?(?!__)(\w+)", text)}
        if used not in variables
    ]
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            for selector in selectors(promql_parser.parse(target["expr"])):
                where = f"{panel['title']}: {selector.name}"
                by = [one for one in selector.matchers.matchers if one.value.startswith("$")]
                filtered = {values_of.get(one.value.strip("${}")): one for one in by}
                faults += [f"{where} is not filtered by {one}" for one in {*values_of.values()} - {*filtered}]
                for label, one in filtered.items():
                    if label != one.name or any(label not in labels for labels, _ in found[selector.name]):
                        faults.append(f"{where} filters {one.name} by {one.value}")
                    if one.op != promql_parser.MatchOp.Re:
                        faults.append(f"{where}: {one.value} may be several, which only =~ takes")
    return faults


def test_the_dashboards_filter_is_a_variable_that_it_has_over_a_label_that_is_emitted(
    here: Installation,
) -> None:
    """A wrong one shows every panel empty, or all datasets whichever is chosen."""
    found = emitted(here)
    assert variable_faults(DASHBOARD, found) == []


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ('=~\\"$dataset\\"', '=~\\"$datasets\\"', "$datasets is no variable"),
        ('{dataset=~\\"$dataset\\"}', '{column=~\\"$dataset\\"}', "filters column by $dataset"),
        ('{dataset=~\\"$dataset\\"}', "", "is not filtered by dataset"),
        ('dataset=~\\"$dataset\\"', 'dataset=\\"$dataset\\"', "which only =~ takes"),
        ('"name": "dataset"', '"name": "data"', "$dataset is no variable"),
        (
            "label_values(vaewatch_batches, dataset)",
            "label_values(vaewatch_batches, data)",
            "which has no values",
        ),
        (
            "label_values(vaewatch_batches, dataset)",
            "label_values(vaewatch_batch, dataset)",
            "which has no values",
        ),
        ('"${source}"', '"${sources}"', "$sources is no variable"),
    ],
)
def test_a_dashboard_with_a_wrong_filter_is_noticed(
    here: Installation, was: str, now: str, said: str
) -> None:
    """Each of the slips that the queries alone do not show."""
    text = json.dumps(DASHBOARD)
    assert was in text
    assert any(said in fault for fault in variable_faults(json.loads(text.replace(was, now)), emitted(here)))


def test_every_metric_is_in_the_reference() -> None:
    """A gauge that nobody can look up."""
    text = (INFRA.parent / "docs" / "reference" / "monitoring.md").read_text(encoding="utf-8")
    for name, (meaning, label) in metrics.GAUGES.items():
        assert f"| `{name}` | {label} | {meaning} |" in text
