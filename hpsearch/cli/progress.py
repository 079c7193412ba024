"""How far reading the data has come: a line that redraws itself on a terminal, else nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.text import Text

from hpsearch.cli.text import duration

if TYPE_CHECKING:
    from hpsearch.data.progress import Progress


def progress_text(progress: Progress) -> str:
    """Such as: decoding 1,200 of 5,000 images, 350 images/s, 10.9 s left."""
    parts = [progress.what]
    if progress.total and progress.done:
        rate = progress.done / max(progress.seconds, 1e-9)
        parts = [
            f"{progress.what} {progress.done:,} of {progress.total:,} images",
            f"{rate:,.0f} images/s",
            f"{duration((progress.total - progress.done) / rate)} left",
        ]
    if progress.bad:
        parts.append(f"{progress.bad:,} cannot be read")
    return ", ".join(parts)


@contextlib.contextmanager
def progress_line(console: Console) -> Iterator[Callable[[Progress], None]]:
    """A function that shows the progress it is given, until the block ends."""
    if not console.is_terminal:
        yield lambda _: None
        return
    with Live(console=console, refresh_per_second=8, transient=True) as live:
        yield lambda progress: live.update(Text(progress_text(progress), style="dim"))
