"""What a worker may spend on things beside the training."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator


class Account:
    """Seconds that were spent on something, against the seconds of training that pay for it.

    Args:
        share: of the seconds of training that may be spent.
        cost: seconds that it is taken to cost before it was done once.
        clock: gives seconds.
    """

    def __init__(
        self, *, share: float, cost: float, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._share = share
        self._cost = cost
        self._clock = clock
        self._trained = 0.0
        self._spent = 0.0

    def trained(self, seconds: float) -> None:
        """Adds seconds of training."""
        self._trained += seconds

    @property
    def allows(self) -> bool:
        """Whether it can be paid for once more, at what it cost the last time."""
        return self._spent + self._cost <= self._share * self._trained

    @contextlib.contextmanager
    def paid(self) -> Iterator[None]:
        """Within, time is spent."""
        start = self._clock()
        try:
            yield
        finally:
            self._spent += self._clock() - start

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Within `paid`, what it costs is found out."""
        start = self._clock()
        yield
        self._cost = self._clock() - start
