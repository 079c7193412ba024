"""The walls of the design: who may import whom, and who may open the test split."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hpsearch"
LAYERS = {
    "errors": 0,
    "checks": 0,
    "config": 0,
    "names": 0,
    "files": 0,
    "data": 1,
    "training": 2,
    "families": 3,
    "figures": 4,
    "engine": 5,
    "dashboard": 6,
    "results": 6,
    "cli": 7,
}
FILES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem != "__init__"
)


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def test_every_part_of_the_package_has_a_layer() -> None:
    assert {part_of(path) for path in FILES} == set(LAYERS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = part_of(path)
    for name in imported_modules(path):
        parts = name.split(".")
        if parts[0] != "hpsearch":
            continue
        assert len(parts) > 1, f"{path} imports the public package from inside of it"
        other = parts[1]
        allowed = other == own or LAYERS[other] < LAYERS[own]
        assert allowed or (LAYERS[other] == 0 == LAYERS[own]), f"{path} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_results_reach_the_test_split(path: Path) -> None:
    imports_seal = any(name.startswith("hpsearch.data.sealed") for name in imported_modules(path))
    assert not imports_seal or part_of(path) == "results"
    if path.name not in ("splits.py", "sealed.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        reads = [
            n.lineno for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr == "test"
        ]
        assert not reads, f"{path}: reads .test in lines {reads}"


def test_the_seal_is_where_the_test_above_looks_for_it() -> None:
    assert any(
        name == "hpsearch.data.sealed.open_test_split"
        for name in imported_modules(PACKAGE / "results" / "export.py")
    )


@pytest.mark.parametrize("part", ["data", "training", "families", "figures"])
def test_below_the_engine_nothing_knows_optuna(part: str) -> None:
    for path in (PACKAGE / part).rglob("*.py"):
        assert not [name for name in imported_modules(path) if name.split(".")[0] == "optuna"]


def test_spaces_know_no_trainer() -> None:
    for path in (PACKAGE / "families").rglob("*.py"):
        assert not [n for n in imported_modules(path) if n.startswith("hpsearch.training.trainer")]


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.py")), ids=lambda p: p.name)
def test_studies_use_the_public_interface_only(path: Path) -> None:
    names = [n for n in imported_modules(path) if n.split(".")[0] == "hpsearch"]
    assert names
    assert all(name.count(".") == 1 for name in names)


def test_nothing_imports_the_scripts() -> None:
    for path in [*FILES, *(ROOT / "studies").glob("*.py")]:
        assert not [n for n in imported_modules(path) if n.split(".")[0] in ("scripts", "tests")]
