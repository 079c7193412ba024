"""Model families by their names: files of this folder, and files of the user's own."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path

from hpsearch.errors import SpaceError
from hpsearch.families._family import Family
from hpsearch.families._unknown import unknown_family

_PACKAGE = __name__.rpartition(".")[0]


def family_names() -> tuple[str, ...]:
    """The names of all families that come with hpsearch, sorted."""
    modules = pkgutil.iter_modules(sys.modules[_PACKAGE].__path__)
    return tuple(sorted(row.name for row in modules if not row.name.startswith("_")))


def get_family(name: str) -> Family:
    """The family called `name`; a path that ends in .py is a file of the user's own.

    Raises:
        SpaceError: there is none, or the file cannot be run or defines none.
    """
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            known = ", ".join(family_names())
            raise SpaceError(f"there is no family file {name}; known families: {known}")
        if path.stem in family_names():
            raise SpaceError(
                f"family file {name} is called as a family of hpsearch, {path.stem}; rename it"
            )
        return _from_file(str(path.resolve()), path.stat().st_mtime_ns)
    loaded = not name.startswith("_") and f"{_PACKAGE}.{name}" in sys.modules
    if not loaded and name not in family_names():
        raise unknown_family(name, family_names())
    family: Family = importlib.import_module(f"{_PACKAGE}.{name}").FAMILY
    return family


@functools.cache
def _from_file(path: str, changed: int) -> Family:
    spec = importlib.util.spec_from_file_location(f"hpsearch_family_{Path(path).stem}", path)
    if spec is None or spec.loader is None:
        raise SpaceError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for the names in their annotations
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())
        raise SpaceError(f"family file {path} raised {type(error).__name__}: {reason}") from error
    family = getattr(module, "FAMILY", None)
    if not isinstance(family, Family):
        raise SpaceError(f"family file {path} must set FAMILY = Family(...), but it is {family!r}")
    if not family.defaults:
        raise SpaceError(f"family file {path}: defaults must hold one setting known to work")
    return family
