"""What chooses the next trial's parameters.

A new sampler is one row of `SAMPLERS`. All of them are replayable: see `replayable.py`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.samplers import RandomSampler

from hpsearch.engine.policy_options import AMPLE, Budget, Setting, Values, find_row, settle
from hpsearch.engine.replayable import (
    GenerationSampler,
    ProcessSampler,
    ReplayableSampler,
    tpe_sampler,
)
from hpsearch.engine.space_filling import GridSampler, QMCSampler
from hpsearch.engine.study_sampler import StudySampler
from hpsearch.errors import SearchError
from hpsearch.families import ParamValue
from hpsearch.training.seeds import derive_seed

DEFAULT_SAMPLER = "tpe"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplerInfo:
    """One row of `SAMPLERS`.

    Attributes:
        name: as the user gives it.
        help: for people.
        make: the sampler, of the values of all its settings and a seed.
        most_objectives: how many objectives it can be for.
    """

    name: str
    help: str
    settings: tuple[Setting, ...] = ()
    make: Callable[[Values, int], StudySampler]
    most_objectives: float = math.inf


_STARTUP = Setting(
    name="n_startup_trials",
    help="trials drawn at random before the first that a model proposes",
    kind=int,
    default=lambda budget: budget.startup_trials,
    usual="a quarter of the family's trials, 3 to 10",
    low=1,
)

SAMPLERS: tuple[SamplerInfo, ...] = (
    SamplerInfo(
        name="tpe",
        help="tree-structured Parzen estimator, which models what good and bad trials have in "
        "common (Bergstra et al. 2011); for spaces of all kinds",
        settings=(
            _STARTUP,
            Setting(
                name="n_ei_candidates",
                help="candidates of which the most promising is tried",
                kind=int,
                default=24,
                low=1,
            ),
            Setting(
                name="multivariate",
                help="model parameters together, in groups that exist together",
                kind=bool,
                default=True,
            ),
            Setting(
                name="constant_liar",
                help="keep away from what running trials try",
                kind=bool,
                default=True,
            ),
        ),
        make=lambda values, seed: ReplayableSampler(
            lambda draw: tpe_sampler(draw, **values), seed=seed
        ),
    ),
    SamplerInfo(
        name="gp",
        help="Gaussian process; for small spaces of numbers, where it needs the fewest trials; "
        "parameters that only some trials have are drawn at random; about a second a trial",
        settings=(
            _STARTUP,
            Setting(
                name="n_modelled_trials",
                help="at most so many trials are modelled, the best and the newest",
                kind=int,
                default=200,
                low=10,
                high=2000,
            ),
        ),
        make=lambda values, seed: ReplayableSampler(
            lambda draw: ProcessSampler(draw, **values), seed=seed
        ),
        most_objectives=4,
    ),
    SamplerInfo(
        name="random",
        help="every trial by itself: what others are to be compared with",
        make=lambda _, seed: ReplayableSampler(
            lambda draw: RandomSampler(seed=draw.seed), seed=seed
        ),
    ),
    SamplerInfo(
        name="qmc",
        help="as random, but spread more evenly, over a scrambled Sobol' sequence (Bergstra and "
        "Bengio 2012)",
        settings=(
            Setting(
                name="scramble",
                help="the digits of the points are shuffled, so that each seed has its own",
                kind=bool,
                default=True,
            ),
        ),
        make=lambda values, seed: QMCSampler(seed=seed, scramble=values["scramble"]),
    ),
    SamplerInfo(
        name="grid",
        help="every combination once, in an order that follows from the seed",
        settings=(
            Setting(
                name="points",
                help="of a range, how many values are tried",
                kind=int,
                default=3,
                low=1,
                high=1000,
            ),
        ),
        make=lambda values, seed: GridSampler(seed=seed, points=values["points"]),
    ),
    SamplerInfo(
        name="nsga2",
        help="a genetic algorithm for several objectives (NSGA-II, Deb et al. 2002); only complete "
        "trials become parents",
        settings=(
            Setting(
                name="population_size",
                help="complete trials to a generation",
                kind=int,
                default=lambda budget: min(50, max(5, budget.share // 5)),
                usual="a fifth of the family's trials, 5 to 50",
                low=2,
            ),
            Setting(
                name="crossover_prob",
                help="how often a trial has two parents and not one",
                kind=float,
                default=0.9,
                low=0,
                high=1,
            ),
        ),
        make=lambda values, seed: ReplayableSampler(
            lambda draw: GenerationSampler(draw, **values), seed=seed
        ),
    ),
)


def exhausted(study: optuna.Study, *, running: bool = False) -> bool:
    """Whether nothing is left to try in a study, as its sampler has it.

    Args:
        running: count what running trials try as tried: nothing is left to begin.
    """
    sampler = study.sampler
    return isinstance(sampler, StudySampler) and sampler.exhausted(study, running=running)


def check_sampler(name: str, options: Mapping[str, ParamValue], *, objectives: int = 1) -> None:
    """Refuses a sampler or settings that cannot be made.

    Args:
        objectives: how many the search has.

    Raises:
        SearchError: there is no such sampler or setting, a value is not allowed, or the objectives
            are too many for it.
    """
    _settled(name, options, AMPLE, objectives)


def make_sampler(
    name: str = DEFAULT_SAMPLER,
    options: Mapping[str, ParamValue] | None = None,
    *,
    seed: int,
    family: str,
    share: int,
    objectives: int = 1,
) -> StudySampler:
    """The sampler of one family's study.

    Args:
        name: of a row of `SAMPLERS`.
        options: some of its settings by name; the others are as by default.
        seed: of the search.
        family: its label: each draws by itself.
        share: how many of the search's trials are the family's.
        objectives: how many the search has.

    Raises:
        SearchError: as `check_sampler`.
    """
    budget = Budget(share=share, epochs=AMPLE.epochs)
    row, values = _settled(name, options or {}, budget, objectives)
    return row.make(values, derive_seed(seed, family))


def _settled(
    name: str, options: Mapping[str, ParamValue], budget: Budget, objectives: int
) -> tuple[SamplerInfo, dict[str, Any]]:
    row = find_row("sampler", SAMPLERS, name)
    values = settle("sampler", row, options, budget)
    if objectives > row.most_objectives:
        raise SearchError(
            f"sampler {name} is for at most {row.most_objectives:g} objectives, but the search has "
            f"{objectives}; use {DEFAULT_SAMPLER} or nsga2"
        )
    return row, values
