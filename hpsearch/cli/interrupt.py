"""What Ctrl-C does to commands that have something to tidy up."""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import time
from collections.abc import Iterator

import typer
from rich.console import Console

from hpsearch.cli.options import INTERRUPTED
from hpsearch.cli.text import say
from hpsearch.engine.stop import Terminated, handled_signals

_PATIENCE = 5.0
"""Seconds: a second Ctrl-C after a shorter time is taken for the first one."""


@contextlib.contextmanager
def stoppable(console: Console, message: str = "") -> Iterator[None]:
    """Within, Ctrl-C and SIGTERM end the command with their exit codes, when what was begun is
    tidied up. Who is impatient and presses Ctrl-C twice does not break off the tidying up.

    Args:
        message: to say then.
    """
    with _signals_once():
        try:
            yield
        except KeyboardInterrupt:
            if message:
                say(console, message)
            raise typer.Exit(INTERRUPTED) from None


@contextlib.contextmanager
def _signals_once() -> Iterator[None]:
    last: dict[int, float] = {}

    def on_interrupt() -> None:
        now = time.monotonic()
        if now - last.get(signal.SIGINT, -math.inf) >= _PATIENCE:
            last[signal.SIGINT] = now
            _hush()
            raise KeyboardInterrupt

    def on_terminate() -> None:
        if signal.SIGTERM not in last:
            last[signal.SIGTERM] = time.monotonic()
            _hush()
            raise Terminated

    # The process is about to end then, which takes a moment, too.
    with handled_signals(on_interrupt, on_terminate, ignored_then=last):
        yield


def _hush() -> None:
    """A query that is broken off would be reported with a traceback."""
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL + 1)
