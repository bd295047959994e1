"""Time that a test moves by hand."""

from datetime import UTC, datetime, timedelta


class FakeClock:
    """Stands still until `advance` is called."""

    def __init__(self, start: datetime = datetime(2030, 1, 1, tzinfo=UTC)) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def advance(self, **duration: float) -> datetime:
        """Go on by a timedelta's keyword arguments; gives the new time."""
        self._now += timedelta(**duration)
        return self._now
