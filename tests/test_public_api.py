"""What `import hpsearch` offers."""

import subprocess
import sys
from pathlib import Path

import hpsearch
from hpsearch.engine.spec import StudySpec
from hpsearch.engine.study_file import load_study


def test_every_public_name_can_be_imported() -> None:
    assert set(hpsearch.__all__) == set(hpsearch._HOME)
    for name in hpsearch.__all__:
        assert getattr(hpsearch, name).__doc__


def test_search_stays_a_function_after_everything_was_imported() -> None:
    import hpsearch.cli.main
    import hpsearch.engine.search

    assert callable(hpsearch.search)
    assert callable(hpsearch.export)


def test_unknown_names_are_attribute_errors() -> None:
    assert not hasattr(hpsearch, "no_such_thing")


def test_the_command_line_starts_without_torch() -> None:
    code = (
        "import sys; import hpsearch.cli.main; "
        "heavy = {'torch', 'optuna', 'sklearn', 'matplotlib'}; "
        "sys.exit(str(sorted(heavy & set(sys.modules))))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.strip() == "[]"


def test_the_default_study_file_says_what_the_defaults_are() -> None:
    assert load_study(Path(__file__).parent.parent / "studies" / "digits.py") == StudySpec()
