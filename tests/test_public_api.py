"""What `import hpsearch` offers."""

import subprocess
import sys

import hpsearch
from hpsearch.engine.spec import StudySpec, load_study


def test_every_public_name_can_be_imported() -> None:
    assert set(hpsearch.__all__) == set(hpsearch._HOME)
    for name in hpsearch.__all__:
        assert getattr(hpsearch, name).__doc__


def test_search_stays_a_function_after_everything_was_imported() -> None:
    import hpsearch.cli.main
    import hpsearch.engine.search  # noqa: F401

    assert callable(hpsearch.search)
    assert callable(hpsearch.export)


def test_unknown_names_are_attribute_errors() -> None:
    assert not hasattr(hpsearch, "no_such_thing")


def test_the_command_line_starts_without_torch() -> None:
    code = (
        "import sys; import hpsearch.cli.main; "
        "sys.exit(str([m for m in ('torch', 'optuna', 'sklearn', 'matplotlib') if m in sys.modules]))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.strip() == "[]"


def test_the_default_study_file_says_what_the_defaults_are(studies_folder) -> None:
    assert load_study(studies_folder / "digits.py") == StudySpec()
