"""What is usual in the feed: merchants, channels, countries, hours, and the columns of its files."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]

DAY_SECONDS = 86_400

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
    weekend: float  # volume relative to a weekday; 0: closed
    channels: tuple[int, int, int, int, int]  # weights in the order of CHANNELS; 0: never
    items: float  # most, at the typical amount
    evening: float = 0.0  # added to log amount at night, against noon
    recurring: float = 0.0  # share of the online payments
    far: float = 1.0  # distance from home, relative to an errand's


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
    return np.array([float(getattr(category, field)) for category in CATEGORIES])


CATEGORY_NAMES = tuple(category.name for category in CATEGORIES)
CHANNEL_WEIGHTS = np.array([category.channels for category in CATEGORIES])
_OPENS, _CLOSES = np.array([category.hours for category in CATEGORIES]).T[:, :, None]
IS_OPEN = (np.arange(24) - _OPENS) % 24 < (_CLOSES - _OPENS - 1) % 24 + 1  # (n_categories, 24)
CATEGORY_WEIGHTS = (IS_OPEN.T * _of("share"), IS_OPEN.T * _of("share") * _of("weekend"))  # weekday, weekend
# The hours at which a category never happens: it is closed, neither about to open nor just closed.
NEVER = ~(IS_OPEN | np.roll(IS_OPEN, 3, axis=1) | np.roll(IS_OPEN, -3, axis=1))
NEVER[CHANNEL_WEIGHTS[:, ONLINE] > 0] = False  # an online shop may be open all the same
