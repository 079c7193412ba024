"""How the commands' help writes what they take, and what they say of options that there are not."""

from __future__ import annotations

import ast
import contextlib
import difflib
import functools
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from hpsearch.errors import HpsearchError

_UsageError: Any = typer.BadParameter.__base__
"""What typer raises for all that is wrong on a command line; it exports the class below only."""

HELP = {"help_option_names": ["--help", "-h"]}
"""Settings of an application whose commands all take them."""


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
        defaults = self.defaults()
        for param in self.get_params(ctx):
            if record := param.get_help_record(ctx):
                name, text = record
                default = defaults.get(param.name, "") if param.default is None else ""
                text += "" if default == "" else f"  [default: {default}]"
                records[param.param_type_name].append((name, text))
        arguments = [(name.partition(" <")[0], text) for name, text in records["argument"]]
        for title, rows in (("Arguments", arguments), ("Options", records["option"])):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def defaults(self) -> dict[str, Any]:
        """By name of an option what it is where it has no default of its own."""
        return {}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the arguments; of an option that there is not, says what may have been meant."""
        try:
            return super().parse_args(ctx, args)
        except _UsageError as error:
            if hasattr(error, "possibilities") and (hint := self._hint(error.option_name)):
                error.message, error.possibilities = f"{error.message} ({hint})", None
            raise

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; an error about what an option gave has the option's name."""
        try:
            return super().invoke(ctx)
        except HpsearchError as error:
            field, must, rest = str(error).removeprefix("data: ").partition(" must ")
            for param in self.params:
                if must and param.name == field and ctx.params.get(field) not in (None, [], ()):
                    raise type(error)(f"{param.opts[0]} must {rest}") from error
            raise

    def _hint(self, option: str) -> str:
        """How else to give what someone gave as `option`; empty: not known."""
        names = {name for param in self.params for name in param.opts}
        if "SRC" in {param.metavar for param in self.params} and option == "--data":
            return f"the data is named without an option: {self.name} SRC"
        if "--set" not in names or difflib.get_close_matches(option, names, n=1, cutoff=0.8):
            return ""
        from hpsearch.data.dataset import ImageShape
        from hpsearch.families import meant_parameter, whole_space

        families, shape = study_defaults()["family"].split(","), ImageShape(64, 64, 3)
        known = {name for family in families for name in whole_space(family, shape)}
        parameter = meant_parameter(option.lstrip("-"), known)
        return f"it is a parameter: --set {parameter}=VALUE" if parameter else ""


class StudyCommand(PlainCommand):
    """A command whose options change a study: those not given are as in a `StudySpec`."""

    def defaults(self) -> dict[str, Any]:
        """Those of the study."""
        return study_defaults()


@functools.cache
def study_defaults() -> dict[str, Any]:
    """The plain values that a `StudySpec` has by default, as options are written.

    They are read from its source: to import it takes seconds, which no help should take.
    """
    module = importlib.util.find_spec("hpsearch.engine.spec")
    source = Path(module.origin or "").read_text(encoding="utf-8") if module else ""
    fields: dict[str, Any] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.name == "StudySpec":
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and field.value is not None:
                    with contextlib.suppress(ValueError):  # it is no plain value
                        fields[ast.unparse(field.target)] = ast.literal_eval(field.value)
    return {**fields, "family": ",".join(fields["families"])}


class PlainTyper(typer.Typer):
    """An application of such commands."""

    def command(self, name: str | None = None, **options: Any) -> Callable[..., Any]:
        """As typer's."""
        return super().command(name, **{"cls": PlainCommand, **options})
