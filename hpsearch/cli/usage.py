"""How the commands' help writes what they take."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand


class PlainCommand(TyperCommand):
    """A command whose help writes arguments as manuals do: EXPORT PATH..., where typer has
    {EXPORT} {PATH}... and a second time PATH <list[str]>.
    """

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The parts of the line with the usage."""
        return [re.sub(r"^\{(.+)\}", r"\1", piece) for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Writes the arguments and the options."""
        records: dict[str, list[tuple[str, str]]] = {"argument": [], "option": []}
        for param in self.get_params(ctx):
            if record := param.get_help_record(ctx):
                records[param.param_type_name].append(record)
        arguments = [(name.partition(" <")[0], text) for name, text in records["argument"]]
        for title, rows in (("Arguments", arguments), ("Options", records["option"])):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class PlainTyper(typer.Typer):
    """An application of such commands."""

    def command(self, name: str | None = None, **options: Any) -> Callable[..., Any]:
        """As typer's."""
        return super().command(name, **{"cls": PlainCommand, **options})
