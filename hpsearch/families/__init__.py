"""Model families: one file each, found by its name. To add one, add a file; see `_family.py`."""

from __future__ import annotations

from hpsearch.families._configs import known_config, suggest_config
from hpsearch.families._describe import (
    default_config,
    describe_families,
    describe_model,
    describe_space,
)
from hpsearch.families._family import Family, Start, Suggestion, ask_start
from hpsearch.families._family_space import (
    check_overrides,
    does_not_exist,
    families_with,
    own_overrides,
    space_of,
    suggestion_of,
    whole_space,
)
from hpsearch.families._first import First, check_first, first_params
from hpsearch.families._known_good import default_params, known_good
from hpsearch.families._model import build_model, initial_model, resolve_config, weights_of
from hpsearch.families._parameter import (
    SEARCH,
    Override,
    Parameter,
    ParamValue,
    Range,
    condition_text,
    format_list,
    parse_override,
)
from hpsearch.families._recipe import suggest_training
from hpsearch.families._registry import family_names, get_family
from hpsearch.families._space import (
    Explorer,
    Suggester,
    TrialLike,
    explore,
    settle,
    space_fingerprint,
)
from hpsearch.families._unknown import meant_parameter
from hpsearch.families._weights import resolve_weights

__all__ = [
    "SEARCH",
    "Explorer",
    "Family",
    "First",
    "Override",
    "ParamValue",
    "Parameter",
    "Range",
    "Start",
    "Suggester",
    "Suggestion",
    "TrialLike",
    "ask_start",
    "build_model",
    "check_first",
    "check_overrides",
    "condition_text",
    "default_config",
    "default_params",
    "describe_families",
    "describe_model",
    "describe_space",
    "does_not_exist",
    "explore",
    "families_with",
    "family_names",
    "first_params",
    "format_list",
    "get_family",
    "initial_model",
    "known_config",
    "known_good",
    "meant_parameter",
    "own_overrides",
    "parse_override",
    "resolve_config",
    "resolve_weights",
    "settle",
    "space_fingerprint",
    "space_of",
    "suggest_config",
    "suggest_training",
    "suggestion_of",
    "weights_of",
    "whole_space",
]
