"""A believable card-payment feed to try vaewatch on: one Parquet batch per day, every anomaly labelled.

Belongs here: how the sample data come about, and the truth about them. Does not: the contract for the feed
(a YAML file beside the others) and anything that reads it.

    out/incoming/payments/2026-01-01.parquet   one file per day
    out/truth/payments.parquet                 batch_id, record_key, kind, column (those at odds, most telling first)
    out/truth/payments_bad_rows.parquet        batch_id, record_key, rule (what breaks the contract on the bad_rows day)

A day is drawn from (seed, day number), in blocks of `BLOCK_ROWS` that become row groups: the same plan gives the
same bytes, a longer plan begins with a shorter one's days, and memory does not grow with the size of a day.
Daily and weekly rhythm, card and country give the time, category and channel; those and the holder's affluence
give the amount; fee, items, spending and delay follow. Prices rise by 0.1 % a day. History is contaminated too.

A contract for this feed would state:
    transaction_id       key, unique, `^[0-9]{8}-[0-9]{9}$`
    time                 required, UTC, on the day that names the batch
    card_id              identifier, required, `^c[0-9]{9}$`
    merchant_category    required, one of CATEGORY_NAMES
    country, channel     required, one of COUNTRIES, of CHANNELS
    currency             required, `^[A-Z]{3}$`
    amount               in euro, required, finite, 0 to 100 000
    fee                  in euro, required, 0 to 2 500
    distance_km          0 to 20 040; missing where the channel is online, and in 2 % elsewhere
    seconds_since_last   from 0; missing for a card's first payment
    items                required, 1 to 1 000
    account_age_days     required, 0 to 3 650
    is_recurring         required
    credit_limit         0 to 20 000; missing in 3 %
    monthly_spend        required, 0 to 20 000
    authorisation_ms     0 to 60 000; missing in 2 %
    terminal_uptime_h    0 to 25, hours since the restart at midnight; missing where the channel is online
    exchange_rate        required, euro per unit of the currency, 0.01 to 2
    a batch              has rows and every required column

Hostile days, in this order, evenly over the last third (over the last six days of a plan shorter than 18), ending
before the last day. The receipt names their batches; the truth leaves out the batches that can't be scored:
    schema_drift   `items` is int64 and a column `loyalty_tier` appears: readable, nothing is lost
    truncated      the file breaks off halfway: the whole batch is refused
    bad_rows       1.5 % of the rows break the contract: they are set aside, the others are scored
    lost_column    `fee` is gone: the whole batch is refused
    empty          a well-formed file without rows
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

Array = npt.NDArray[Any]

BLOCK_ROWS = 65_536  # part of what defines a day, like the seed: other blocks are other draws
DAY_SECONDS = 86_400
BAD_SHARE = 0.015
RANDOM_STREAMS = ("cards", "midnight", "records", "bad_rows")
HOSTILE = ("schema_drift", "truncated", "bad_rows", "lost_column", "empty")
NOT_SCORED = ("truncated", "lost_column", "empty")
RULES = ("missing_value", "out_of_range", "not_finite", "not_in_set", "pattern", "duplicate_key")
DUPLICATED = "duplicated_block"
KINDS = (
    "extreme_value",
    "broken_correlation",
    "wrong_context",
    "impossible_pair",
    "unit_mistake",
    DUPLICATED,
)

RECORDS = pa.schema({
    "transaction_id": pa.string(),
    "time": pa.timestamp("us", tz="UTC"),
    "card_id": pa.string(),
    "merchant_category": pa.dictionary(pa.int32(), pa.string()),
    "country": pa.string(),
    "currency": pa.string(),
    "channel": pa.string(),
    "amount": pa.float64(),
    "fee": pa.decimal128(10, 2),
    "distance_km": pa.float64(),
    "seconds_since_last": pa.int64(),
    "items": pa.int32(),
    "account_age_days": pa.int32(),
    "is_recurring": pa.bool_(),
    "credit_limit": pa.float64(),
    "monthly_spend": pa.float64(),
    "authorisation_ms": pa.int32(),
    "terminal_uptime_h": pa.float64(),
    "exchange_rate": pa.float64(),
})
KEY = {"batch_id": pa.string(), "record_key": pa.string()}
REPETITIVE = [
    "merchant_category",
    "country",
    "currency",
    "channel",
    "exchange_rate",
    "batch_id",
    "kind",
    "rule",
]
TRUTH = pa.schema({**KEY, "kind": pa.string(), "column": pa.list_(pa.string())})
BAD_ROWS = pa.schema({**KEY, "rule": pa.string()})


class Category(NamedTuple):
    """What is usual for one kind of merchant."""

    name: str
    share: float
    typical: float  # median amount, in euro
    spread: float  # of log amount
    hours: tuple[int, int]  # opens, closes; no payment outside
    weekend: float  # volume against a weekday; 0: closed
    channels: tuple[int, int, int, int, int]  # weights in the order of CHANNELS; 0: never
    items: float  # most, at the typical amount
    evening: float = 0.0  # by how much log amount is higher at night than at noon
    recurring: float = 0.0  # share of the online payments
    far: float = 1.0  # distance from home against an errand's


CATEGORIES = (
    Category("groceries", 0.20, 28, 0.65, (7, 22), 1.2, (35, 45, 20, 0, 0), 9, evening=0.2),
    Category("bakery", 0.10, 6.5, 0.45, (5, 14), 1.3, (10, 65, 25, 0, 0), 4),
    Category("restaurant", 0.11, 30, 0.50, (11, 24), 1.5, (45, 25, 30, 0, 0), 4, evening=0.6),
    Category("nightlife", 0.05, 26, 0.55, (19, 5), 2.0, (30, 45, 25, 0, 0), 3, evening=0.3),
    Category("fuel", 0.07, 58, 0.35, (0, 24), 0.9, (60, 20, 20, 0, 0), 0.5, far=2),
    Category("transport", 0.09, 5.5, 0.60, (6, 23), 0.7, (10, 55, 35, 0, 0), 0.5),
    Category("fashion", 0.06, 62, 0.60, (9, 21), 1.4, (40, 15, 15, 30, 0), 3),
    Category("electronics", 0.05, 150, 0.70, (8, 23), 1.1, (35, 5, 10, 50, 0), 2),
    Category("pharmacy", 0.05, 19, 0.50, (8, 20), 0.6, (35, 45, 20, 0, 0), 3),
    Category("doctor", 0.04, 85, 0.45, (8, 18), 0, (80, 10, 10, 0, 0), 0.5),
    Category("school", 0.03, 130, 0.40, (7, 17), 0, (15, 0, 0, 85, 0), 0.5, recurring=0.5),
    Category("cinema", 0.04, 24, 0.40, (13, 24), 2.0, (15, 35, 20, 30, 0), 3, evening=0.2),
    Category("travel", 0.04, 260, 0.60, (0, 24), 1.0, (10, 0, 5, 85, 0), 2, far=4),
    Category("hotel", 0.03, 190, 0.50, (6, 24), 1.1, (55, 5, 10, 30, 0), 0.5, far=20),
    Category("subscription", 0.05, 13, 0.30, (0, 24), 1.0, (0, 0, 0, 100, 0), 0.5, recurring=0.97),
    Category("cash", 0.06, 110, 0.50, (0, 24), 0.9, (0, 0, 0, 0, 100), 0.5),
)
CHANNELS = ("chip", "contactless", "wallet", "online", "atm")
CHIP, CONTACTLESS, ONLINE = CHANNELS.index("chip"), CHANNELS.index("contactless"), CHANNELS.index("online")
CONTACTLESS_LIMIT = 50.0  # EUR; above it the terminal asks for the chip
FEE_FIXED, FEE_RATE = np.array([0.08, 0.05, 0.06, 0.25, 0.60]), np.array([0.009, 0.007, 0.011, 0.021, 0.004])
DELAY_MS = np.array([900.0, 320.0, 420.0, 1500.0, 2600.0])
COUNTRIES = ("DE", "FR", "ES", "IT", "NL", "AT", "GB", "PL", "SE", "CH", "CZ", "DK")
COUNTRY_SHARE = np.array([0.24, 0.12, 0.08, 0.08, 0.06, 0.06, 0.10, 0.07, 0.06, 0.05, 0.04, 0.04])
CURRENCIES = ("EUR", "GBP", "PLN", "SEK", "CHF", "CZK", "DKK")
EURO_RATE = np.array([1.0, 1.17, 0.235, 0.088, 1.06, 0.041, 0.134])
CURRENCY_OF = np.array([0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6])
# Payments by hour of a weekday: quiet until five, a peak at noon and another after work.
RHYTHM = np.interp(np.arange(24), [0, 2, 5, 8, 12, 15, 18, 23], [6, 3, 6, 44, 70, 58, 75, 12])


def _of(field: str) -> Array:
    """One number of every category."""
    return np.array([float(getattr(category, field)) for category in CATEGORIES])


CATEGORY_NAMES = tuple(category.name for category in CATEGORIES)
CHANNEL_WEIGHTS = np.array([category.channels for category in CATEGORIES])
_OPENS, _CLOSES = np.array([category.hours for category in CATEGORIES]).T[:, :, None]
IS_OPEN = (np.arange(24) - _OPENS) % 24 < (_CLOSES - _OPENS - 1) % 24 + 1  # (n_categories, 24)
CATEGORY_WEIGHTS = (IS_OPEN.T * _of("share"), IS_OPEN.T * _of("share") * _of("weekend"))  # weekday, weekend
# The hours at which a category never happens: closed, and not about to open or just closed.
NEVER = ~(IS_OPEN | np.roll(IS_OPEN, 3, axis=1) | np.roll(IS_OPEN, -3, axis=1))
NEVER[CHANNEL_WEIGHTS[:, ONLINE] > 0] = False  # a shop on the internet may be open all the same


@dataclass(frozen=True)
class SamplePlan:
    """What to generate; equal plans give equal bytes."""

    days: int = 40
    records_per_day: int = 5000
    start: date = date(2026, 1, 1)
    seed: int = 7
    anomaly_share: float = 0.004
    hostile: bool = True

    def __post_init__(self) -> None:
        """Refuse what can't be generated, with every fault in one message."""
        faults = [f"{x} must be at least 1" for x in ("days", "records_per_day") if getattr(self, x) < 1]
        if not 0 <= self.anomaly_share <= 0.2:
            faults.append(f"anomaly_share must be in [0, 0.2], is {self.anomaly_share}")
        if self.seed < 0:
            faults.append(f"seed must not be negative, is {self.seed}")
        if self.hostile and (self.days < 12 or self.records_per_day < 100):
            faults.append("hostile days need 12 days of 100 records; else set hostile to false")
        if faults:
            raise ValueError("sample plan: " + "; ".join(faults))

    def batch_id(self, day: int) -> str:
        """The name of a day's batch: its date."""
        return (self.start + timedelta(days=day)).isoformat()

    def hostile_days(self) -> dict[str, int]:
        """What goes wrong -> on which day, all different; empty for a friendly plan."""
        stride = max(1, (self.days // 3 - 1) // len(HOSTILE))
        first = self.days - 1 - stride * len(HOSTILE)
        return {name: first + stride * i for i, name in enumerate(HOSTILE)} if self.hostile else {}

    def rng(self, stream: str, *place: int) -> np.random.Generator:
        """The random numbers of one stream at one place; no two share any."""
        return np.random.default_rng([self.seed, RANDOM_STREAMS.index(stream), *place])


DEFAULT_PLAN = SamplePlan()


@dataclass(frozen=True)
class SampleReceipt:
    """What was written: ids, counts, paths. Batches that can't be scored add no records and no anomalies."""

    incoming: Path
    truth: Path
    bad_rows: Path
    batch_ids: tuple[str, ...]
    hostile: dict[str, str]  # what is wrong -> batch_id
    n_records: int
    n_anomalies: dict[str, int]  # by kind; a record delivered twice counts once
    n_bad_rows: dict[str, int]  # by rule


def generate(out: Path, plan: SamplePlan = DEFAULT_PLAN) -> SampleReceipt:
    """Write the feed and the truth about it under `out`; a second run replaces."""
    incoming, truth_path = out / "incoming" / "payments", out / "truth" / "payments.parquet"
    bad_path = truth_path.with_name("payments_bad_rows.parquet")
    wrong_on = {day: name for name, day in plan.hostile_days().items()}
    cards, n_records, kinds, rules = _Cards.draw(plan), 0, Counter[str](), Counter[str]()
    with _published(truth_path, TRUTH) as truth_file, _published(bad_path, BAD_ROWS) as bad_file:
        for day in range(plan.days):
            for n_rows, truth, bad in _write_day(incoming, plan, cards, day, wrong_on.get(day, "")):
                n_records += n_rows
                for table, file in ((truth, truth_file), (bad, bad_file)):
                    if len(table):
                        file.write_table(table)
                kinds.update(truth["kind"].to_pylist())
                rules.update(bad["rule"].to_pylist())
    return SampleReceipt(
        incoming=incoming,
        truth=truth_path,
        bad_rows=bad_path,
        batch_ids=tuple(map(plan.batch_id, range(plan.days))),
        hostile={name: plan.batch_id(day) for day, name in wrong_on.items()},
        n_records=n_records,
        n_anomalies={kind: kinds[kind] for kind in KINDS},
        n_bad_rows={rule: rules[rule] for rule in RULES},
    )


def _write_day(
    incoming: Path, plan: SamplePlan, cards: _Cards, day: int, wrong: str
) -> Iterator[tuple[int, pa.Table, pa.Table]]:
    """Write one batch; for each block that can be scored, give its size, anomalies and bad rows."""
    schema = _altered(RECORDS.empty_table(), wrong).schema
    kept = 0.5 if wrong == "truncated" else 1.0
    with _published(incoming / f"{plan.batch_id(day)}.parquet", schema, kept) as file:
        for block, (table, truth) in enumerate(_records(plan, cards, day) if wrong != "empty" else ()):
            bad = BAD_ROWS.empty_table()
            if wrong == "bad_rows":
                table, bad = _spoiled(table, truth, plan.batch_id(day), plan.rng("bad_rows", day, block))
            file.write_table(_altered(table, wrong), row_group_size=len(table))
            if wrong not in NOT_SCORED:
                yield len(table), truth, bad


@contextmanager
def _published(target: Path, schema: pa.Schema, kept: float = 1.0) -> Iterator[pq.ParquetWriter]:
    """Write beside the target, then rename over it; `kept` below one breaks the file off."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_suffix(f".{uuid4().hex}.draft")
    try:
        with pq.ParquetWriter(
            draft, schema, compression="zstd", use_dictionary=REPETITIVE, write_page_checksum=True
        ) as file:
            yield file
        os.truncate(draft, int(draft.stat().st_size * kept))
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _records(plan: SamplePlan, cards: _Cards, day: int) -> Iterator[tuple[pa.Table, pa.Table]]:
    """A day's records in order of time and the truth about them, block by block."""
    # Looking back from midnight, a card that is used every so often was last used at any moment of that interval.
    last_seen = -plan.rng("midnight", day).uniform(0, DAY_SECONDS / (cards.share * plan.records_per_day))
    for block, first in enumerate(range(0, plan.records_per_day, BLOCK_ROWS)):
        yield _Block(plan, cards, day, block, first).drawn(last_seen)


@dataclass(frozen=True)
class _Cards:
    """The card holders, one array entry each; when a card's life ends, a new one takes its place."""

    share: Array  # of the payments
    affluence: Array  # standard normal
    home: Array  # index in COUNTRIES
    life: Array  # days
    phase: Array  # days of that life spent when the feed begins
    credit_limit: Array  # EUR

    @classmethod
    def draw(cls, plan: SamplePlan) -> _Cards:
        n, rng = int(np.clip(plan.records_per_day, 3_000, 200_000)), plan.rng("cards")
        activity, affluence = rng.lognormal(0, 0.4, n), rng.standard_normal(n)
        life = rng.integers(300, 3_600, n)
        credit_limit = 3_000 + 1_000 * affluence + 150 * rng.standard_normal(n)
        return cls(
            share=activity / activity.sum(),
            affluence=affluence,
            home=rng.choice(len(COUNTRIES), n, p=COUNTRY_SHARE),
            life=life,
            phase=(life * rng.random(n)).astype(np.int64),
            credit_limit=np.clip(credit_limit.round(-2), 500, 10_000),
        )


class _Block:
    """Consecutive records in the making. An anomaly is drawn in, not painted over: what is drawn after it agrees
    with it, so that only what its kind says is wrong. `changes` notes the rows, the kind and the falsified columns."""

    def __init__(self, plan: SamplePlan, cards: _Cards, day: int, block: int, first: int) -> None:
        self.plan, self.cards, self.day, self.first = plan, cards, day, first
        self.rng = plan.rng("records", day, block)
        self.date = plan.start + timedelta(days=day)
        self.weekend = int(self.date.weekday() >= 5)
        self.changes: list[tuple[Array, str, tuple[str, ...]]] = []
        self._choose_anomalies(min(BLOCK_ROWS, plan.records_per_day - first))

    def drawn(self, last_seen: Array) -> tuple[pa.Table, pa.Table]:
        """The records and their truth; `last_seen`, the second of each card's last payment, is kept up to date."""
        self._draw_when_and_who(last_seen)
        self._draw_what()
        self._draw_where()
        self._draw_amount()
        self._draw_fee()
        self._draw_rest()
        table = self._table()
        truth = self._truth(table["transaction_id"])
        return pa.concat_tables([table, table.slice(*self.repeated)]), truth

    def _choose_anomalies(self, n_rows: int) -> None:
        """Deal the kinds out to rows. One run of rows comes again at the end of the block; it holds no other kind."""
        n_anomalies = int(n_rows * self.plan.anomaly_share + self.rng.random())
        kinds = (np.arange(n_anomalies) + self.rng.integers(len(KINDS))) % len(KINDS)
        others = kinds[kinds != KINDS.index(DUPLICATED)]
        n_repeated = min(n_anomalies - len(others), n_rows // 2)
        self.n = n_rows - n_repeated
        start = self.rng.integers(self.n - n_repeated + 1)
        rows = self.rng.choice(self.n - n_repeated, len(others), replace=False)
        self.kind = np.full(self.n, -1)
        self.kind[np.where(rows < start, rows, rows + n_repeated)] = others
        self.repeated = int(start), n_repeated
        self.changes.append((start + np.arange(n_repeated), DUPLICATED, ("transaction_id",)))

    def _falsify(self, kind: str, *ways: tuple[float, tuple[str, ...]]) -> list[Array]:
        """The rows of this kind, divided at random among ways of these shares, each falsifying these columns."""
        rows = np.flatnonzero(self.kind == KINDS.index(kind))
        way = np.searchsorted(np.cumsum([share for share, _ in ways])[:-1], self.rng.random(len(rows)))
        parts = [rows[way == i] for i in range(len(ways))]
        self.changes += [(part, kind, columns) for part, (_, columns) in zip(parts, ways, strict=True)]
        return parts

    def _draw_when_and_who(self, last_seen: Array) -> None:
        rhythm = np.roll(RHYTHM, 2) + 8 if self.weekend else RHYTHM
        quantile = (self.first + np.arange(self.n) + self.rng.random(self.n)) / self.plan.records_per_day
        until = np.append(0, rhythm.cumsum()) / rhythm.sum()
        self.second = np.interp(quantile, until, np.arange(25) * 3600.0)
        self.hour = np.minimum(self.second // 3600, 23).astype(np.int64)
        self.card = np.searchsorted(self.cards.share.cumsum()[:-1], self.rng.random(self.n))
        order = np.argsort(self.card, kind="stable")
        card, second = self.card[order], self.second[order]
        before = last_seen[card]
        before[1:] = np.where(card[1:] == card[:-1], second[:-1], before[1:])
        self.since_last = np.empty(self.n)
        self.since_last[order] = second - before
        last_seen[self.card] = self.second  # of a card's several payments the last one stays

    def _draw_what(self) -> None:
        ways = (0.2, ("time", "merchant_category")), (0.8, ("time", "terminal_uptime_h", "merchant_category"))
        misplaced, misdated = self._falsify("wrong_context", *ways)
        rows = np.concatenate([misplaced, misdated])
        weights = CATEGORY_WEIGHTS[self.weekend][self.hour]
        weights[rows] *= NEVER.any(axis=1)
        self.category = self._pick(weights)
        self.clock = self.second.copy()
        self.clock[rows] = 3600 * (self._pick(NEVER[self.category[rows]]) + self.rng.random(len(rows)))
        self.second[misplaced] = self.clock[misplaced]
        pairs = (0.6, ("channel", "merchant_category")), (0.4, ("currency", "country"))
        self.unpaired, self.exchanged = self._falsify("impossible_pair", *pairs)
        self.channel = self._pick(CHANNEL_WEIGHTS[self.category])
        self.channel[self.unpaired] = self._pick(CHANNEL_WEIGHTS[self.category[self.unpaired]] == 0)

    def _pick(self, weights: Array) -> Array:
        """One column for each row, with these odds."""
        until = weights.cumsum(axis=1)
        picked: Array = (until <= until[:, -1:] * self.rng.random((len(weights), 1))).sum(axis=1)
        return picked

    def _draw_where(self) -> None:
        home, far = self.cards.home[self.card], _of("far")[self.category]
        abroad = self.rng.random(self.n) < 0.05 * np.sqrt(far)
        self.country = np.where(abroad, self.rng.choice(len(COUNTRIES), self.n, p=COUNTRY_SHARE), home)
        self.currency = CURRENCY_OF[self.country]
        self.rate = EURO_RATE[self.currency] * np.exp(0.01 * np.sin(self.day / 9 * self.currency))
        other = self.rng.integers(1, len(CURRENCIES), len(self.exchanged))
        self.currency[self.exchanged] = (self.currency[self.exchanged] + other) % len(CURRENCIES)
        abroad = self.country != home
        spread = np.where(abroad, 0.5, 0.9) * self.rng.standard_normal(self.n)
        self.distance = np.where(abroad, 250, 6 * far) * np.exp(spread)

    def _draw_amount(self) -> None:
        typical, late = _of("typical")[self.category], np.clip(self.hour - 12, -2, 8) / 8
        log = np.log(typical) + _of("spread")[self.category] * self.rng.standard_normal(self.n)
        log += 0.3 * self.cards.affluence[self.card] + 0.001 * self.day
        log += _of("evening")[self.category] * late + 0.05 * self.weekend
        self.amount = np.maximum(np.exp(log), 0.5)
        cash = self.category == CATEGORY_NAMES.index("cash")
        self.amount[cash] = np.maximum(self.amount[cash].round(-1), 10)
        too_much = (self.channel == CONTACTLESS) & (self.amount > CONTACTLESS_LIMIT)
        too_much[self.unpaired] = False
        self.channel[too_much] = CHIP
        most = _of("items")[self.category] * (self.amount / typical) ** 0.4
        self.items = np.ceil(most * self.rng.uniform(0.4, 1, self.n))
        delay = DELAY_MS[self.channel] * np.exp(0.25 * self.rng.standard_normal(self.n))
        self.delay = delay + 0.05 * self.distance
        self._exaggerate(typical)

    def _exaggerate(self, typical: Array) -> None:
        """Make some values extreme, but within the contract's bounds."""
        ways = (0.5, ("amount",)), (0.25, ("items",)), (0.25, ("authorisation_ms",))
        large, many, slow = self._falsify("extreme_value", *ways)
        self.amount[large] = np.maximum(self._between(4_000, 90_000, len(large)), 20 * typical[large])
        self.items[many] = self._between(40, 300, len(many))
        self.delay[slow] = self._between(6_000, 40_000, len(slow))

    def _between(self, low: float, high: float, n: int) -> Array:
        """Numbers of every order of magnitude between the two."""
        return np.exp(self.rng.uniform(np.log(low), np.log(high), n))

    def _draw_fee(self) -> None:
        """A unit mistake happens before the fee is taken, or after."""
        ways = (0.4, ("amount", "merchant_category")), (0.6, ("amount", "fee"))
        before, after = self._falsify("unit_mistake", *ways)
        rows = np.concatenate([before, after])
        small = self.amount[rows] < np.where(self.rng.random(len(rows)) < 0.5, 60, 900)
        right = self.amount[after]
        self.amount[rows] *= np.where(small, 100, 0.01)
        charged = self.amount.copy()
        charged[after] = right
        fee = FEE_FIXED[self.channel] + FEE_RATE[self.channel] * charged
        self.fee = np.maximum(fee * np.exp(0.04 * self.rng.standard_normal(self.n)), 0.01)

    def _draw_rest(self) -> None:
        recurs = self.rng.random(self.n) < _of("recurring")[self.category]
        self.recurring = recurs & (self.channel == ONLINE)
        self.limit = self.cards.credit_limit[self.card]
        self.spend = 0.4 * self.limit * np.exp(0.06 * self.rng.standard_normal(self.n))
        self.uptime = self.second / 3600 + self.rng.uniform(0, 0.5, self.n)
        ways = (0.6, ("fee", "amount")), (0.4, ("monthly_spend", "credit_limit"))
        swapped = self._falsify("broken_correlation", *ways)
        for rows, values in zip(swapped, (self.fee, self.spend), strict=True):
            ordered = np.sort(values)
            rank = np.searchsorted(ordered, values[rows])
            values[rows] = ordered[
                (rank + self.n // 2) % self.n
            ]  # as ordinary as it was, half the ranks away

    def _lost(self, share: float) -> Array:
        """Where a value is missing for no reason; a falsified one never is."""
        return (self.rng.random(self.n) < share) & (self.kind < 0)

    def _table(self) -> pa.Table:
        online, category = self.channel == ONLINE, pa.array(self.category, pa.int32())
        columns = self._card_columns() | {
            "transaction_id": _numbered(f"{self.date:%Y%m%d}-", self.first + np.arange(self.n)),
            "time": np.datetime64(self.date, "us") + (self.clock * 10**6).astype("timedelta64[us]"),
            "merchant_category": pa.DictionaryArray.from_arrays(category, CATEGORY_NAMES),
            "country": pa.array(COUNTRIES).take(self.country),
            "currency": pa.array(CURRENCIES).take(self.currency),
            "channel": pa.array(CHANNELS).take(self.channel),
            "amount": np.maximum(self.amount.round(2), 0.01),
            "fee": pa.array(self.fee).cast(pa.decimal128(10, 2)),
            "distance_km": pa.array(self.distance.round(1), mask=online | self._lost(0.02)),
            "items": self.items.astype(np.int32),
            "is_recurring": self.recurring,
            "monthly_spend": self.spend.round(2),
            "authorisation_ms": pa.array(self.delay.astype(np.int32), mask=self._lost(0.02)),
            "terminal_uptime_h": pa.array(self.uptime.round(2), mask=online),
            "exchange_rate": self.rate.round(5),
        }
        return pa.table(columns, schema=RECORDS)

    def _card_columns(self) -> dict[str, Any]:
        lived, life = self.cards.phase[self.card] + self.day, self.cards.life[self.card]
        holder, age = lived // life, lived % life
        # Multiplying by 3^18 permutes the numbers below 10^9: card numbers without a pattern, none given twice.
        number = (self.card + len(self.cards.share) * holder) % 10**9 * 3**18 % 10**9
        first_payment = self.since_last > age * DAY_SECONDS + self.second
        return {
            "card_id": _numbered("c", number),
            "seconds_since_last": pa.array(self.since_last.astype(np.int64), mask=first_payment),
            "account_age_days": age.astype(np.int32),
            "credit_limit": pa.array(self.limit, mask=self._lost(0.03)),
        }

    def _truth(self, keys: pa.ChunkedArray) -> pa.Table:
        rows = np.concatenate([rows for rows, _, _ in self.changes])
        notes = [(kind, columns) for rows, kind, columns in self.changes for _ in rows]
        truth = {
            "batch_id": [self.date.isoformat()] * len(rows),
            "record_key": keys.take(rows),
            "kind": [kind for kind, _ in notes],
            "column": [columns for _, columns in notes],
        }
        return pa.table(truth, schema=TRUTH).sort_by("record_key")


def _numbered(prefix: str, numbers: Array) -> pa.Array:
    """The prefix and nine digits."""
    return pc.binary_join_element_wise(prefix, pc.utf8_lpad(pc.cast(numbers, pa.string()), 9, "0"), "")


def _altered(table: pa.Table, wrong: str) -> pa.Table:
    """The table as delivered on a day on which the schema is wrong."""
    if wrong == "lost_column":
        return table.drop_columns("fee")
    if wrong != "schema_drift":
        return table
    position = table.schema.get_field_index("items")
    table = table.set_column(position, "items", table["items"].cast(pa.int64()))
    tier = np.digitize(table["account_age_days"].to_numpy(), [365, 1460])
    return table.append_column("loyalty_tier", pa.array(("basic", "silver", "gold")).take(tier))


def _spoiled(
    table: pa.Table, truth: pa.Table, batch_id: str, rng: np.random.Generator
) -> tuple[pa.Table, pa.Table]:
    """The table with rows that break the contract, none of them an anomaly, and which rule each breaks."""
    keys, places = table["transaction_id"], np.arange(len(table))
    ordinary = np.flatnonzero(~pc.is_in(keys, truth["record_key"].combine_chunks()).to_numpy())
    n_each = min(int(np.ceil(len(table) * BAD_SHARE / len(RULES))), len(ordinary) // (len(RULES) + 1))
    *spoiled, originals = rng.choice(ordinary, (len(RULES) + 1, n_each), replace=False)
    from_original = places.copy()
    from_original[spoiled[RULES.index("duplicate_key")]] = originals
    instead = {
        "missing_value": ("country", pa.scalar(None, pa.string())),
        "out_of_range": ("amount", pc.negate(table["amount"])),
        "not_finite": ("amount", np.inf),
        "not_in_set": ("channel", "manual"),
        "pattern": ("currency", "eur."),
        "duplicate_key": ("transaction_id", keys.take(from_original)),
    }
    for rule, rows in zip(RULES, spoiled, strict=True):
        name, values = instead[rule]
        column = pc.if_else(np.isin(places, rows), values, table[name])
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
    repeated = truth["record_key"].filter(pc.equal(truth["kind"], DUPLICATED)).to_pylist()
    bad = {
        "batch_id": [batch_id] * (len(RULES) * n_each + len(repeated)),
        "record_key": table["transaction_id"].take(np.concatenate(spoiled)).to_pylist() + repeated,
        "rule": list(np.repeat(RULES, n_each)) + ["duplicate_key"] * len(repeated),
    }
    return table, pa.table(bad, schema=BAD_ROWS)
