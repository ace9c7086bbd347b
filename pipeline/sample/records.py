"""A day's records, block by block, with the anomalies drawn in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.sample.plan import SamplePlan
from pipeline.sample.world import (
    CATEGORY_NAMES,
    CATEGORY_WEIGHTS,
    CHANNEL_WEIGHTS,
    CHANNELS,
    CHIP,
    CONTACTLESS,
    CONTACTLESS_LIMIT,
    COUNTRIES,
    COUNTRY_SHARE,
    CURRENCIES,
    CURRENCY_OF,
    DAY_SECONDS,
    DELAY_MS,
    EURO_RATE,
    FEE_FIXED,
    FEE_RATE,
    NEVER,
    ONLINE,
    RECORDS,
    RHYTHM,
    TRUTH,
    Array,
    _of,
)

BLOCK_ROWS = 65_536  # part of what defines a day, like the seed: other blocks give other draws
DUPLICATED = "duplicated_block"
KINDS = (
    "extreme_value",
    "broken_correlation",
    "wrong_context",
    "impossible_pair",
    "unit_mistake",
    DUPLICATED,
)


def records_of_day(plan: SamplePlan, cards: Cards, day: int) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield a day's records in order of time and the truth about them, block by block."""
    # Seen from midnight, a card that is used at some interval was last used at any moment within it.
    last_seen = -plan.rng("midnight", day).uniform(0, DAY_SECONDS / (cards.share * plan.records_per_day))
    for block, first in enumerate(range(0, plan.records_per_day, BLOCK_ROWS)):
        yield _Block(plan, cards, day, block, first).drawn(last_seen)


@dataclass(frozen=True)
class Cards:
    """The card holders, one array entry each; when a card's life ends, a new one takes its place."""

    share: Array  # of the payments
    affluence: Array  # standard normal
    home: Array  # index in COUNTRIES
    life: Array  # days
    phase: Array  # days of that life spent when the feed begins
    credit_limit: Array  # EUR

    @classmethod
    def draw(cls, plan: SamplePlan) -> Cards:
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
    """Consecutive records in the making.

    An anomaly is drawn in, not painted over: what is drawn after it agrees with it, so that only what its
    kind says is wrong. `changes` holds the rows, the kind and the falsified columns.
    """

    def __init__(self, plan: SamplePlan, cards: Cards, day: int, block: int, first: int) -> None:
        self.plan, self.cards, self.day, self.first = plan, cards, day, first
        self.rng = plan.rng("records", day, block)
        self.date = plan.start + timedelta(days=day)
        self.weekend = int(self.date.weekday() >= 5)
        self.changes: list[tuple[Array, str, tuple[str, ...]]] = []
        self._choose_anomalies(min(BLOCK_ROWS, plan.records_per_day - first))

    def drawn(self, last_seen: Array) -> tuple[pa.Table, pa.Table]:
        """Return the records and their truth.

        Args:
            last_seen: the second of each card's last payment; it is updated.
        """
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
        """Deal the kinds out to rows.

        One run of rows is repeated at the end of the block; it holds no other kind.
        """
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
        """Return the rows of this kind, one array per way.

        Args:
            ways: (share, columns); the rows are divided at random by these shares, and each way falsifies its
                columns.
        """
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
        """Pick one column for each row, with these odds."""
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
        """Draw numbers of every order of magnitude between the two."""
        return np.exp(self.rng.uniform(np.log(low), np.log(high), n))

    def _draw_fee(self) -> None:
        """Draw the fees; a unit mistake happens before the fee is taken, or after."""
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
            # as ordinary as it was, half the ranks away
            values[rows] = ordered[(rank + self.n // 2) % self.n]

    def _lost(self, share: float) -> Array:
        """Choose where a value is missing for no reason; a falsified one never is."""
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
        # Multiplying by 3^18 permutes the numbers below 10^9: card numbers have no pattern, and none repeats.
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
    return pc.binary_join_element_wise(prefix, pc.utf8_lpad(pc.cast(numbers, pa.string()), 9, "0"), "")
