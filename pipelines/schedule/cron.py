"""When an entry is planned: cron expressions of five fields, in UTC."""

from datetime import UTC, datetime, timedelta

from cronsim import CronSim, CronSimError

_MINUTE = timedelta(minutes=1)
_FORM = "%Y-%m-%dT%H%MZ"


def utc_now() -> datetime:
    """The present; tests give another."""
    return datetime.now(UTC)


def check_cron(expression: str) -> str:
    """The expression, if it is one. Raises ValueError, which says what is wrong with it."""
    # cronsim takes a sixth field, for seconds; crontab and Kubernetes do not, and Witness plans minutes.
    if len(expression.split()) != 5:
        raise ValueError(
            f"{expression!r} is no cron expression: write five fields, minute hour day-of-month month day-of-week, "
            "as in '0 3 * * *' for 03:00 UTC every day"
        )
    try:
        next_minute(expression, utc_now())
    except (CronSimError, ValueError) as problem:
        raise ValueError(f"{expression!r} is no cron expression ({problem})") from problem
    return expression


def next_minute(expression: str, after: datetime) -> datetime:
    """The first planned minute after `after`."""
    return next(CronSim(expression, after))


def latest_minute(expression: str, now: datetime) -> datetime:
    """The last planned minute that has begun by `now`."""
    return next(CronSim(expression, now.replace(second=0, microsecond=0) + _MINUTE, reverse=True))


def written_minute(minute: datetime) -> str:
    """As in names of files and jobs: in the order of time."""
    return minute.strftime(_FORM)


def read_minute(text: str) -> datetime:
    """What `written_minute` wrote."""
    return datetime.strptime(text, _FORM).replace(tzinfo=UTC)
