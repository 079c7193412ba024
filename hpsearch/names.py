"""Names that come from outside (files, classes, people), made safe and short to show."""

from __future__ import annotations

import html
import re
import urllib.parse
from pathlib import Path

_LONG = 100

# A password goes on to the first "@", as SQLAlchemy has it, whatever is in it; and on to the last
# one of the host's part, where someone forgot to encode an "@" as %40.
_USER_PASSWORD = re.compile(r"([\w+.-]+://[^:/]*:)[^@]*@(?:[^\s@?]*@)*")
_QUERY_VALUE = re.compile(r"([?&])([^?&=\n]*)=([^&\n]*)")
_SECRETS = frozenset({"password", "passwd", "pwd", "sslpassword"})


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


def markdown(text: str) -> str:
    """A text from outside, without a meaning in Markdown or HTML; on one line."""
    escaped = html.escape(printable(text), quote=False)
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#~" else letter for letter in escaped)


def listed(names: list[str] | tuple[str, ...], most: int = 5) -> str:
    """The first `most` of `names`, and how many more there are: a, b, c and 7 more."""
    cut = [name if len(name) <= _LONG else f"{name[:_LONG]}…" for name in names[:most]]
    shown = ", ".join(printable(name) or "(empty)" for name in cut)
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"


def value_text(value: object) -> str:
    """A parameter's value in tables and figures; a dash where it is not given."""
    return f"{value:.4g}" if isinstance(value, float) else printable(str(value)) or "–"


def family_label(family: str) -> str:
    """What a model family is called in tables and folders: its name, or that of its file."""
    return Path(family).stem if family.endswith(".py") else family


def without_password(text: str) -> str:
    """`text` with *** in the place of each password of a URL in it: `name://user:PASSWORD@host`,
    or `?password=PASSWORD`. In doubt more of the text is hidden, never less.
    """

    def hide(match: re.Match[str]) -> str:
        mark, key, _ = match.groups()
        secret = urllib.parse.unquote_plus(key).strip().lower() in _SECRETS
        return f"{mark}{key}=***" if secret else match[0]

    return _QUERY_VALUE.sub(hide, _USER_PASSWORD.sub(r"\1***@", text))
