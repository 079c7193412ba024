"""Names that come from outside (files, classes, people), made safe and short to show."""

from __future__ import annotations

from pathlib import Path

_LONG = 100


def printable(text: str) -> str:
    r"""`text` with what does not print (control characters, bidi overrides, undecodable bytes)
    written out: an escape character becomes the four characters `\x1b`.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable()
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def listed(names: list[str] | tuple[str, ...], most: int = 5) -> str:
    """The first `most` of `names`, and how many more there are: a, b, c and 7 more."""
    cut = [name if len(name) <= _LONG else f"{name[:_LONG]}…" for name in names[:most]]
    shown = ", ".join(printable(name) or "(empty)" for name in cut)
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"


def family_label(family: str) -> str:
    """What a model family is called in tables and folders: its name, or that of its file."""
    return Path(family).stem if family.endswith(".py") else family
