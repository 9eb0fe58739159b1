"""Cron expressions: the minutes that they select, in UTC, and that invalid ones are rejected with a reason."""

from datetime import UTC, datetime

import pytest

from pipelines.schedule.cron import check_cron, latest_minute, minute_key, minute_text, next_minute, parse_minute_key


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "now", "latest", "following"),
    [
        ("* * * * *", "2026-11-24T12:00:00", "2026-11-24T12:00", "2026-11-24T12:01"),
        ("* * * * *", "2026-11-24T12:00:59.999", "2026-11-24T12:00", "2026-11-24T12:01"),
        ("0 3 * * *", "2026-11-24T02:59:59", "2026-11-23T03:00", "2026-11-24T03:00"),
        ("*/15 8-17 * * mon-fri", "2026-11-28T12:00:00", "2026-11-27T17:45", "2026-11-30T08:00"),
        ("30 4 1 * *", "2026-12-31T23:59:59", "2026-12-01T04:30", "2027-01-01T04:30"),
        ("0 0 29 2 *", "2026-11-24T12:00:00", "2024-02-29T00:00", "2028-02-29T00:00"),
        # Summer time begins that night in Europe, but all times are UTC.
        ("30 2 * * *", "2026-03-29T02:30:00", "2026-03-29T02:30", "2026-03-30T02:30"),
    ],
)
def test_the_latest_and_the_next_minute(cron: str, now: str, latest: str, following: str) -> None:
    assert check_cron(cron) == cron
    assert latest_minute(cron, at(now)) == at(latest)
    assert next_minute(cron, at(now)) == at(following)


@pytest.mark.parametrize(
    "invalid",
    [
        "", "* * * *", "* * * * * *", "@daily", "61 * * * *", "* 24 * * *", "* * 0 * *", "*/0 * * * *", "5-1 * * * *",
        "a * * * *", "0 0 30 2 *", "0 0 31 4,6 *", "9" * 5000 + " * * * *", "-1 * * * *", "* * * * MON#6",
    ],
)  # fmt: skip
def test_an_invalid_expression(invalid: str) -> None:
    with pytest.raises(ValueError, match="is not a cron expression"):
        check_cron(invalid)


def test_minute_keys_are_read_back_and_keep_their_order() -> None:
    minutes = [at("2026-01-02T03:04"), at("2026-11-24T00:00"), at("2026-11-24T12:00")]
    assert [parse_minute_key(minute_key(minute)) for minute in minutes] == minutes
    assert sorted(map(minute_key, minutes)) == list(map(minute_key, minutes))


def test_the_two_forms_of_a_minute() -> None:
    assert minute_key(at("2026-11-24T03:00")) == "2026-11-24T0300Z"
    assert minute_text(at("2026-11-24T03:00")) == "2026-11-24 03:00 UTC"
