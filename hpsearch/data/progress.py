"""How those are told who wait while many images are read."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a long reading has come.

    Attributes:
        what: what is done, in a few words.
        done, total: images.
        bad: images that could not be read so far.
        seconds: since it began.
    """

    what: str
    done: int
    total: int
    bad: int
    seconds: float


Watch = Callable[[Progress], None]
"""Is told how far it has come."""


class Clock:
    """Makes `Progress` reports."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._start = what, total, time.perf_counter()

    def at(self, done: int, bad: int = 0) -> Progress:
        """The report after `done` images."""
        seconds = time.perf_counter() - self._start
        return Progress(self._what, done, self._total, bad, seconds)
