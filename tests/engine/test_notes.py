"""Notes for the dashboard: they say what happened, and names from outside stay names."""

from __future__ import annotations

import itertools
import math
import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest
from by_hand import make_record, make_trial
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from hpsearch import StudySpec
from hpsearch.data.dataset import ImageShape
from hpsearch.engine.notes import study_note, trial_note
from hpsearch.engine.place import Place
from hpsearch.engine.pruners import PRUNERS, make_pruner, why_pruned
from hpsearch.engine.pruning_words import PrunedTrial
from hpsearch.families import Parameter, space_of
from hpsearch.names import markdown, printable
from hpsearch.training.objectives import objective_info

ACCURACY, LOSS = objective_info("val_accuracy"), objective_info("val_loss")
SPEC = StudySpec(name="digits", families=("mlp", "cnn"), trials=8, epochs=4)
SPACE = (Parameter(name="lr", kind="float", low=1e-4, high=0.1, log=True, help="learning rate"),)
ANY = st.text(st.characters(exclude_categories=()))
HOSTILE = (
    "<script>alert(1)</script>",
    "a|b",
    "`code`",
    "two\nlines",
    "[x](javascript:alert(1))",
    "![x](http://example.org/x.png)",
    "**bold** _it_ ~~no~~",
    "\\|",
    "&lt;b&gt;",
    "# head",
    "a\\",
    "|---|",
)


def hostile(test: Any) -> Any:
    for text in HOSTILE:
        test = example(text)(test)
    return test


def parsed(note: str) -> list[Token]:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(note)


def structure(note: str) -> list[Any]:
    """All of a note but its texts."""
    return [
        (token.type, token.tag, [child.type for child in token.children or () if child.content])
        for token in parsed(note)
    ]


def texts(note: str) -> list[str]:
    """What a browser shows of each paragraph, heading and cell."""
    return [
        "".join(child.content for child in token.children or ())
        for token in parsed(note)
        if token.type == "inline"
    ]


def cells(note: str) -> dict[str, str]:
    """The first two cells of each row of all tables."""
    tokens, rows, row = parsed(note), {}, list[str]()
    for before, token in itertools.pairwise(tokens):
        if before.type == "tr_open":
            row = []
        if before.type in ("td_open", "th_open"):
            row.append("".join(child.content for child in token.children or ()))
        if token.type == "tr_close" and len(row) > 1:
            rows[row[0]] = row[1]
    return rows


def flat(text: str) -> str:
    return " ".join(text.split())


class TestTrials:
    def test_a_complete_one(self) -> None:
        trial = make_trial(7, device="cpu (2 threads)", host="box", peak_memory=512.4)
        note = trial_note(trial, spec=SPEC, space=SPACE)
        table = cells(note)
        assert table["validation accuracy"] == "75.00 %"
        assert table["best epoch"] == "1, of 2 from 0"
        assert table["time"] == "2.5 s, 1,000 images/s"
        assert table["device"] == "cpu (2 threads) of box"
        assert table["peak memory"] == "512 MiB"
        assert table["parameters of the model"] == "1,234"
        assert (table["lr"], table["optimizer"]) == ("0.003", "adamw, lr 0.001, stage_decay 1")
        assert table["augment"] == "rotate 10"
        assert "learning rate" in texts(note)
        assert "hpsearch export digits --trial mlp-7\n" in note
        assert "hpsearch retrain digits --trial mlp-7\n" in note

    @pytest.mark.parametrize(
        ("state", "failure", "words"),
        [
            ("failed", "the loss is infinite", "It failed after 2 epochs: the loss is infinite."),
            ("pruned", "the loss is infinite", "It stopped after 2 epochs: the loss is infinite."),
            ("infeasible", "too deep.", "It could not be trained, and is not counted: too deep."),
            ("duplicate", "mlp-1 has the same parameters", "mlp-1 has the same parameters."),
            ("failed", "", "It failed after 2 epochs."),
        ],
    )
    def test_why_it_has_no_score(self, state: str, failure: str, words: str) -> None:
        note = trial_note(make_trial(3, state, failure=failure), spec=SPEC)
        assert words in texts(note)[1]
        assert "hpsearch" not in note  # only complete ones can be trained again, or exported

    def test_one_that_never_began(self) -> None:
        bare = dict.fromkeys(
            ("value", "val_accuracy", "val_balanced_accuracy", "val_macro_f1", "val_loss", "config")
        )
        trial = make_trial(
            3,
            "failed",
            failure="no such file",
            reported={},
            params={},
            seconds=0.0,
            parameters=0,
            chosen_by="",
            **bare,
        )
        note = trial_note(trial, spec=SPEC)
        assert texts(note)[:2] == ["mlp-3: failed", "It failed: no such file."]
        assert "None" not in note

    def test_commands_find_the_place(self) -> None:
        trial = make_trial(place=Place(Path("/data/my runs")))
        assert "--trial mlp-0 --runs '/data/my runs'\n" in trial_note(trial, spec=SPEC)

    def test_no_password(self) -> None:
        place = Place(Path("runs"), "postgresql://me:s3_cr3t@db.example/searches")
        failure = "connection to postgresql://me:s3_cr3t@db.example/searches failed for s3_cr3t"
        note = trial_note(make_trial(0, "failed", place=place, failure=failure), spec=SPEC)
        assert "cr3t" not in note
        record, spec = make_record(
            place=place, data={"source": {"source": "https://me:other@host/x.zip"}}
        )
        note = study_note(record, "mlp", spec=spec, space=SPACE, studies={})
        assert "other" not in note
        assert "cr3t" not in note
        assert "db.example/searches" in note

    @hostile
    @given(text=ANY)
    def test_names_are_text(self, text: str) -> None:
        def note(name: str) -> str:
            trial = make_trial(
                2,
                "failed",
                failure=f"x {name} x",
                note=f"x {name} x",
                device="cpu",
                host=f"x{name}x",
                params={"weights": f"x{name}x"},
            )
            return trial_note(trial, spec=SPEC)

        assert structure(note(text)) == structure(note("x"))
        shown = flat(printable(f"x{text}x"))
        assert flat(cells(note(text))["weights"]) == shown
        assert flat(cells(note(text))["device"]) == f"cpu of {shown}"
        assert flat(printable(f"x {text} x")) in flat(texts(note(text))[1])


class TestStudies:
    def test_it_says_what_the_study_is(self) -> None:
        trials = [make_trial(n) for n in range(3)]
        trials += [make_trial(3, "pruned"), make_trial(0, family="cnn", reported={0: 0.9, 1: 0.95})]
        record, spec = make_record(trials, pruner_options={"n_warmup_steps": 2})
        space = space_of("mlp", ImageShape(8, 8, 1))
        note = study_note(record, "mlp", spec=spec, space=space, studies={"mlp": 4, "cnn": 9})
        shown, table = texts(note), cells(note)
        assert "The best is mlp-0, with a validation accuracy of 75.00 %" in shown[1]
        assert "Trials that ended: 3 complete, 1 pruned." in shown
        assert "[digits/cnn](/dashboard/studies/9)" in note
        families = [text for text in shown if text in ("mlp", "cnn")]
        assert families == ["cnn", "mlp"]  # the better one first
        assert table["classes"] == "2: zero, one"
        assert table["test images"].startswith("20, sealed")
        assert table["lr"] == "0.0001 to 0.5"
        assert table["trials"] == "4 of the search's 8"
        assert table["epochs of a trial"] == "4"
        assert table["pruner"].startswith("median (n_warmup_steps 2): stops a trial")
        assert table["sampler"].startswith("tpe: ")
        for command in ("worker digits", "report digits", "export digits", "retrain digits"):
            assert f"    hpsearch {command}" in note

    def test_before_the_first_trial(self) -> None:
        record, spec = make_record()
        note = study_note(record, "cnn", spec=spec, space=SPACE, studies={})
        assert "No trial is complete yet." in note
        assert "Trials that ended: none." in note

    @pytest.mark.parametrize(
        ("spec", "space", "words"),
        [
            ({"objective": "val_loss,params"}, SPACE, "none: by several objectives"),
            (
                {"overrides": {"epochs": (2, 4)}},
                (Parameter(name="epochs", kind="int", low=2, high=4),),
                "none: trials of different lengths",
            ),
        ],
    )
    def test_where_nothing_is_pruned(self, spec: Any, space: Any, words: str) -> None:
        record, asked = make_record(**spec)
        note = study_note(record, "mlp", spec=asked, space=space, studies={})
        assert cells(note)["pruner"].startswith(words)

    @hostile
    @given(text=ANY)
    def test_names_are_text(self, text: str) -> None:
        def note(name: str) -> str:
            data = {
                "name": f"x{name}x",
                "classes": ["one", f"x{name}x"],
                "notes": [f"x{name}x"],
                "source": {"source": f"x{name}x"},
            }
            record, spec = make_record([make_trial()], data=data)
            return study_note(record, "mlp", spec=spec, space=SPACE, studies={"mlp": 1})

        assert structure(note(text)) == structure(note("x"))
        shown = flat(printable(f"x{text}x"))
        assert flat(cells(note(text))["classes"]) == f"2: one, {shown}"
        assert flat(cells(note(text))["name"]) == shown


@hostile
@given(text=ANY)
def test_markdown_shows_a_text_as_it_is(text: str) -> None:
    assert flat("".join(texts(f"x{markdown(text)}x"))) == flat(f"x{printable(text)}x")


VALUES = st.dictionaries(st.integers(0, 3), st.floats(0, 1) | st.just(math.nan), max_size=4)


class TestPruning:
    @pytest.mark.parametrize("name", ["median", "percentile", "threshold"])
    @pytest.mark.parametrize("objective", [ACCURACY, LOSS])
    @given(reported=VALUES.filter(bool), others=st.lists(VALUES.filter(bool), min_size=1))
    def test_a_reason_is_given_where_optuna_prunes(
        self, name: str, objective: Any, reported: Any, others: Any
    ) -> None:
        options: dict[str, Any] = {"n_warmup_steps": 0}
        options |= {"lower": 0.3, "upper": 0.8} if name == "threshold" else {"n_startup_trials": 0}
        study = optuna.create_study(direction=objective.direction)
        for values in others:
            study.add_trial(optuna.trial.create_trial(value=0.0, intermediate_values=values))
        trial = optuna.trial.create_trial(
            state=optuna.trial.TrialState.PRUNED, intermediate_values=reported
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's, where nothing is a number
            pruned = make_pruner(name, options, epochs=4, share=9).prune(study, trial)
        reason = why_pruned(
            name,
            options,
            PrunedTrial(objective=objective, reported=reported, others=others),
            epochs=4,
            share=9,
        )
        assert bool(reason) == pruned

    @pytest.mark.parametrize(
        ("name", "options", "words"),
        [
            (
                "median",
                {},
                "after epoch 2 its best validation accuracy so far, 60.00 %, was below 75.00 %, "
                "the median of 3 complete trials at that epoch",
            ),
            (
                "percentile",
                {"percentile": 25.0},
                "after epoch 2 its best validation accuracy so far, 60.00 %, was below 80.00 %, "
                "what the best 25 % of 3 complete trials at that epoch had",
            ),
            (
                "patient",
                {"patience": 1},
                "it had not got better for 2 epochs, and after epoch 2 its best validation "
                "accuracy so far, 60.00 %, was below 75.00 %, the median of 3 complete trials at "
                "that epoch",
            ),
            (
                "halving",
                {},
                "after epoch 2, a step of successive halving, with its validation accuracy of "
                "55.00 % it was not among the best of the trials that had come there: one in 3 "
                "goes on",
            ),
            ("halving", {"bootstrap_count": 2}, ""),
            (
                "threshold",
                {"lower": 0.58},
                "after epoch 2 its validation accuracy, 55.00 %, was below the threshold of "
                "58.00 %",
            ),
            ("none", {}, ""),
        ],
    )
    def test_in_words(self, name: str, options: Any, words: str) -> None:
        trial = PrunedTrial(
            objective=ACCURACY,
            reported={0: 0.6, 1: 0.4, 2: 0.55},
            others=[{0: 0.3, 2: 0.7}, {2: 0.75}, {2: 0.85}, {0: 0.9}],
        )
        assert why_pruned(name, options, trial, epochs=9, share=9) == words
        if words:
            note = trial_note(make_trial(1, "pruned"), spec=SPEC, why=words)
            assert f"It was stopped early: {words}." in texts(note)[1]

    def test_where_it_is_not_known_no_reason_is_made_up(self) -> None:
        # By now a worse trial is complete.
        trial = PrunedTrial(objective=ACCURACY, reported={0: 0.5}, others=[{0: 0.1}])
        assert why_pruned("median", {}, trial, epochs=9, share=9) == ""
        assert "It was stopped early, after 2 epochs." in trial_note(
            make_trial(1, "pruned"), spec=SPEC
        )

    def test_each_pruner_can_say_something_of_what_is_no_number(self) -> None:
        trial = PrunedTrial(objective=LOSS, reported={0: math.nan}, others=[])
        for row in PRUNERS:
            options = {"upper": 1.0} if row.name == "threshold" else {}
            reason = why_pruned(row.name, options, trial, epochs=9, share=9)
            assert ("not a number" in reason) is (row.name != "none")
