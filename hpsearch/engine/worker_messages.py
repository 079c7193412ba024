"""What the supervisor and a worker process tell each other, through the worker's pipes."""

from __future__ import annotations

import dataclasses

from hpsearch.engine.place import Place
from hpsearch.engine.spec import StudySpec

LENGTH = 8
"""Bytes of the number, in front of a worker's job, that tells how long it is."""

STOP = b"stop"
"""What a worker is sent that is to hand its trial back; the end of its input means the same."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker process is told; it goes through a pipe, so that no list of processes shows
    the address of the database.

    Attributes:
        threads: of torch.
        number: from 1.
        owner: its name for leases; given when it is started.
    """

    spec: StudySpec
    place: Place
    device: str
    threads: int
    number: int
    grace: float
    owner: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refusal:
    """A worker's last word where an error ended it that starting it again would not mend."""

    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Done:
    """A worker's last word where there is nothing left to do, or it was told to stop."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alive:
    """A worker's sign of life for its supervisor, which needs no database."""
