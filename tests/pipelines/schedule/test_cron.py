"""Cron expressions: which minutes they name, in UTC, and that nonsense is refused with a reason."""

from datetime import UTC, datetime

import pytest

from pipelines.schedule.cron import check_cron, latest_minute, next_minute, read_minute, written_minute


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
        # Summer time begins and ends somewhere: not here.
        ("30 2 * * *", "2026-03-29T02:30:00", "2026-03-29T02:30", "2026-03-30T02:30"),
    ],
)
def test_the_minutes_that_it_names(cron: str, now: str, latest: str, following: str) -> None:
    assert check_cron(cron) == cron
    assert latest_minute(cron, at(now)) == at(latest)
    assert next_minute(cron, at(now)) == at(following)


@pytest.mark.parametrize(
    "nonsense",
    [
        "", "* * * *", "* * * * * *", "@daily", "61 * * * *", "* 24 * * *", "* * 0 * *", "*/0 * * * *", "5-1 * * * *",
        "a * * * *", "0 0 30 2 *", "0 0 31 4,6 *", "9" * 5000 + " * * * *", "-1 * * * *", "* * * * MON#6",
    ],
)  # fmt: skip
def test_nonsense(nonsense: str) -> None:
    with pytest.raises(ValueError, match="is no cron expression"):
        check_cron(nonsense)


def test_written_minutes_are_read_back_and_keep_their_order() -> None:
    minutes = [at("2026-01-02T03:04"), at("2026-11-24T00:00"), at("2026-11-24T12:00")]
    assert [read_minute(written_minute(minute)) for minute in minutes] == minutes
    assert sorted(map(written_minute, minutes)) == list(map(written_minute, minutes))
