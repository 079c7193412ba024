"""How counts, shares and reasons are written in notes and messages."""

from __future__ import annotations

from hpsearch.names import printable


def plural(count: int, word: str, words: str | None = None) -> str:
    """1 image, 2 images; `words` where the plural is not just one letter longer."""
    return f"{count:,} {word if count == 1 else words or word + 's'}"


def percent(part: int, whole: int) -> str:
    """The share of `part` in `whole`: 12%, 1.5%, 0.03%."""
    share = 100.0 * part / max(whole, 1)
    return f"{share:.0f}%" if share >= 10 else f"{share:.2g}%"


def reason_of(error: Exception) -> str:
    """What a library's exception says, on one short line; its kind where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return printable(lines[0])[:160] if lines else type(error).__name__
