"""When an entry is due: cron expressions of five fields in UTC, and the forms in which planned minutes are written."""

from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

_MINUTE = timedelta(minutes=1)
_KEY_FORMAT = "%Y-%m-%dT%H%MZ"


def utc_now() -> datetime:
    """The current time with its timezone, which is UTC."""
    return datetime.now(UTC)


def check_cron(expression: str) -> str:
    """Returns the expression unchanged if it is valid. Raises ValueError, which says what is wrong with it."""
    # cronsim also accepts a sixth field, for seconds. crontab and Kubernetes do not, and Witness plans whole minutes.
    if len(expression.split()) != 5:
        raise ValueError(
            f"{expression!r} is not a cron expression: write five fields, minute hour day-of-month month day-of-week, "
            "as in '0 3 * * *' for 03:00 UTC every day"
        )
    try:
        next_minute(expression, utc_now())
    except (CronSimError, ValueError) as problem:
        raise ValueError(f"{expression!r} is not a cron expression ({problem})") from problem
    return expression


def next_minute(expression: str, after: datetime) -> datetime:
    """The first planned minute that begins later than `after`."""
    return next(CronSim(expression, after))


def latest_minute(expression: str, now: datetime) -> datetime:
    """The last planned minute that has begun by `now`."""
    return next(CronSim(expression, now.replace(second=0, microsecond=0) + _MINUTE, reverse=True))


def minute_key(minute: datetime) -> str:
    """A planned minute as names of files and ids of jobs contain it: `2026-11-24T0300Z`, which sorts by time."""
    return minute.strftime(_KEY_FORMAT)


def parse_minute_key(key: str) -> datetime:
    """The planned minute, in UTC, that a key of `minute_key` stands for. Raises ValueError for any other text."""
    return datetime.strptime(key, _KEY_FORMAT).replace(tzinfo=UTC)


def minute_text(minute: datetime) -> str:
    """A planned minute as messages show it: `2026-11-24 03:00 UTC`."""
    return f"{minute:%Y-%m-%d %H:%M} UTC"
