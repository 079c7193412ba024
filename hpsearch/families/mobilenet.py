"""MobileNets (V2: Sandler et al., arXiv 1801.04381; V3: Howard et al., arXiv 1905.02244), from
torchvision.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from hpsearch.checks import Options, check_choice
from hpsearch.data.dataset import ImageShape
from hpsearch.families._family import Family, Suggestion, ask_start
from hpsearch.families._space import Suggester
from hpsearch.families._zoo import ZooOptions, build_zoo
from hpsearch.families._zoo_space import (
    ask_architecture,
    suggest_zoo,
    usual_weights,
    zoo_defaults,
)
from hpsearch.training.model import StagedModel

VERSIONS = ("v2", "v3_small", "v3_large")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetOptions(ZooOptions):
    """`version` is one of `VERSIONS`; the others are those of all models of torchvision."""

    family: ClassVar[str] = "mobilenet"

    version: str = "v2"

    def __post_init__(self) -> None:
        check_choice("mobilenet: version", self.version, VERSIONS)
        super().__post_init__()

    @property
    def model(self) -> str:
        """Torchvision's name of it."""
        return _model(self.version)


def _model(version: str) -> str:
    return f"mobilenet_{version}"


def suggest(s: Suggester, shape: ImageShape) -> Suggestion:
    """Version; head, pool and stem are there for an override.

    Raises:
        InfeasibleError: a stem or pool that does not fit.
    """
    start = ask_start(s, shape, pretrained=usual_weights(shape))
    if start.options is None:
        version = s.categorical("version", VERSIONS, help="small and large are V3's")
        models = [_model(choice) for choice in s.choices("version")]
        architecture = ask_architecture(s, start, _model(version))
        options = MobileNetOptions(version=version, **architecture)
    else:
        options = MobileNetOptions.from_dict(start.options)
        models = [options.model]
    return suggest_zoo(s, start, options, options.model, models)


def build(options: Options, shape: ImageShape, n_classes: int) -> StagedModel:
    """The stem, four stages of inverted residual blocks, and the head; V3 has a fully connected
    layer in front of it.

    Raises:
        InfeasibleError: V3 with a flat pool.
        ConfigError: a wrong option.
    """
    o = MobileNetOptions.from_dict(options)
    return build_zoo(o.model, o, shape, n_classes)


FAMILY = Family(
    summary="MobileNet V2, V3 small and V3 large: small and quick, pretrained or not",
    suggest=suggest,
    build=build,
    defaults=zoo_defaults(version="v2"),
    published=lambda options: MobileNetOptions.from_dict(options).model,
)
