"""When a call that failed is made again."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass

from sluice._calls import Call
from sluice._errors import ResourceExhaustedError, SluiceError, UnavailableError


def _now() -> float:
    """Seconds. Tests put another in its place."""
    return time.monotonic()


@dataclass(frozen=True)
class RetryPolicy:
    """How often, and how long to wait where the daemon does not say how long.

    A call is made again only when it has produced nothing and ended with UNAVAILABLE, or with
    RESOURCE_EXHAUSTED and the daemon's word when to come back. A call that changes a session is
    made again only when the daemon itself refused it: a lost connection does not tell whether the
    change was made.
    """

    max_attempts: int = 5
    initial_backoff: float = 0.1  # seconds; doubles with each failure
    max_backoff: float = 5.0

    def backoff(self, failures: int) -> float:
        """Seconds after that many failures in a row: half of it fixed, half random."""
        most = min(self.initial_backoff * 2.0 ** (failures - 1), self.max_backoff)
        return most * (0.5 + 0.5 * random.random())


NO_RETRY = RetryPolicy(max_attempts=1)


class Attempts:
    """The tries of one call, which share its timeout."""

    def __init__(
        self,
        policy: RetryPolicy,
        timeout: float | None,
        call: Call,
    ) -> None:
        """`timeout` is for a call that names none."""
        timeout = timeout if call.timeout is None else call.timeout
        timeout = None if timeout == math.inf else timeout
        self._policy = policy
        self._most = policy.max_attempts if call.attempts is None else call.attempts
        self._changes_session = call.changes_session
        self._deadline = None if timeout is None else _now() + timeout
        self._failures = 0

    def timeout(self) -> float | None:
        """Seconds that the next try may take; None: any number."""
        return None if self._deadline is None else max(self._deadline - _now(), 0.0)

    def pause(self, error: SluiceError, *, produced: bool = False) -> float:
        """Seconds to wait before the next try. Raises `error` when there is to be none."""
        self._failures += 1
        if produced or self._failures >= self._most or not self._passes(error):
            raise error
        seconds = error.retry_after
        if seconds is None:
            seconds = self._policy.backoff(self._failures)
        if self._deadline is not None and _now() + seconds >= self._deadline:
            raise error
        return seconds

    def _passes(self, error: SluiceError) -> bool:
        if error.retry_after is not None:
            return isinstance(error, (ResourceExhaustedError, UnavailableError))
        return isinstance(error, UnavailableError) and not self._changes_session
