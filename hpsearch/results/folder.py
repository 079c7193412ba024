"""The folder of an export: what of it is read again, and whether it may be written; without what it
takes to write it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hpsearch.errors import SearchError

FORMAT = "hpsearch-export-1"
MODEL = "model.pt"
CONFIG = "config.json"
METRICS = "metrics.json"


def check_free(out: Path, what: str, *, is_ours: Callable[[Path], bool], replace: bool) -> None:
    """Refuses a folder that exists, unless it is one of ours that may be replaced.

    Args:
        what: it is to be: an "export", for example.
        is_ours: whether a folder that exists is one of these.

    Raises:
        SearchError: it does.
    """
    if not out.is_symlink() and (not out.exists() or (replace and is_ours(out))):
        return
    if out.is_symlink():
        hint = "it is a link"
    elif is_ours(out):
        hint = "replace it with --force, in Python with replace=True"
    else:
        hint = f"it is no {what} of ours"
    raise SearchError(f"{out} exists already ({hint}); name another folder with -o")
