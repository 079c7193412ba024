"""How a running search is stopped: in order, after the epoch that runs, or at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Container, Iterator

EXIT_TERMINATED = 128 + signal.SIGTERM

CTRL_C = "Ctrl-C"
HANDED_BACK = "handed back"
"""Why a trial stops whose worker was told to stop by its supervisor."""
PAUSED = "paused"
"""Why a trial stops that is to wait for others to get as far (successive halving)."""


class Terminated(SystemExit):
    """SIGTERM: a cluster takes the machine away. The process ends at once."""

    def __init__(self) -> None:
        super().__init__(EXIT_TERMINATED)


class Stop:
    """A wish that the search stops, which workers look at between two epochs."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.reason = ""
        """In words; empty as long as nobody wants it to stop."""
        self.interrupted = False
        """Whether it was Ctrl-C."""

    def request(self, reason: str, *, interrupted: bool = False) -> None:
        """Wishes that the search stops."""
        self.reason = self.reason or reason
        self.interrupted |= interrupted
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Waits until it is to stop, at most so long; whether it is."""
        return self._event.wait(seconds)

    @property
    def wanted(self) -> bool:
        """Whether it is to stop."""
        return self._event.is_set()


@contextlib.contextmanager
def stopped_by_signals(stop: Stop, tell: Callable[[], None]) -> Iterator[None]:
    """Within, the first Ctrl-C only wishes for a stop, the second raises `KeyboardInterrupt`, and
    SIGTERM raises `Terminated`.

    Args:
        tell: is called, in a thread of its own, when the first Ctrl-C came.
    """

    def on_interrupt() -> None:
        if stop.interrupted:
            raise KeyboardInterrupt
        stop.request(CTRL_C, interrupted=True)
        # Whoever watches may be in the middle of printing just now.
        threading.Thread(target=tell, daemon=True).start()

    def on_terminate() -> None:
        stop.request("SIGTERM")
        raise Terminated

    with handled_signals(on_interrupt, on_terminate):
        yield


@contextlib.contextmanager
def handled_signals(
    on_interrupt: Callable[[], None],
    on_terminate: Callable[[], None],
    *,
    ignored_then: Container[int] = (),
) -> Iterator[None]:
    """Within, Ctrl-C and SIGTERM call these, except where they are ignored, or another's already.

    Signals belong to the main thread; in another one nothing changes.

    Args:
        ignored_then: signals that are not to have their old meaning again afterwards, as it stands
            at that time.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    if before[signal.SIGINT] is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: on_interrupt())
    if before[signal.SIGTERM] is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda *_: on_terminate())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if number in ignored_then else handler)


@contextlib.contextmanager
def stopped_after(seconds: float | None, stop: Stop, tell: Callable[[], None]) -> Iterator[None]:
    """Within, wishes for a stop when so much time is over; None: never.

    Args:
        tell: is called then, in a thread of its own.
    """
    if seconds is None:
        yield
        return

    def over() -> None:
        stop.request("the time is up")
        tell()

    timer = threading.Timer(seconds, over)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
