"""Which tensors of a model weights are taken over for, and which of the weights' fit there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from hpsearch.errors import CheckpointError
from hpsearch.names import listed
from hpsearch.training.model import StagedModel

_SHOWN = 3
_OTHER_NETWORK = "the options must be those of the network that the weights were trained in"
_GRAY_MODEL = "they were trained on images of 3 channels: set the input's channels to 3"
_GRAY_WEIGHTS = "they were trained on gray images: read the data as gray images"
_OTHER_STEM = "set stem=standard, or weights=none to train from scratch"


def without_head(model: StagedModel) -> dict[str, Tensor]:
    """The tensors of `model` that weights are taken over for: all but those of its last stage, the
    head. Of this only what `model.published` names in front of its last layer, such as ConvNeXt's
    norm.
    """
    state = model.state_dict()
    head = f"stages.{model.stage_names[-1]}."
    last = next((name for name in reversed(state) if name.startswith(head)), head)
    classifier = f"{last.rpartition('.')[0]}."
    return {
        name: tensor
        for name, tensor in state.items()
        if not name.startswith(head)
        or (name in model.published and not name.startswith(classifier))
    }


def matching(
    state: Mapping[str, Tensor], names: Mapping[str, str], wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors of `state` for those `wanted` of a model, by the model's names.

    Args:
        names: what the tensors of the model are called in `state`.

    Raises:
        CheckpointError: `state` lacks one, has it in another shape or type, or it is not finite.
    """
    found: dict[str, Tensor] = {}
    missing: list[str] = []
    others: list[str] = []
    hints: list[str] = []  # the first layer that does not fit says most
    for name, tensor in wanted.items():
        given = state.get(names.get(name, ""))
        if given is None and name.endswith("num_batches_tracked"):
            continue  # older files do not count batches; nothing that is used here depends on it
        if name not in names:
            missing.append(name)
            hints.append(_OTHER_STEM)
        elif given is None:
            missing.append(names[name])
            hints.append(_OTHER_NETWORK)
        elif given.shape != tensor.shape:
            others.append(f"{names[name]} is {_sizes(given)} instead of {_sizes(tensor)}")
            hints.append(_shape_hint(given.shape, tensor.shape))
        elif given.is_floating_point() != tensor.is_floating_point():
            others.append(f"{names[name]} is {given.dtype} instead of {tensor.dtype}")
            hints.append(_OTHER_NETWORK)
        elif not given.isfinite().all():
            others.append(f"{names[name]} has values that are not finite")
            hints.append("use other weights")
        else:
            found[name] = given
    if not hints:
        return found
    problems = [f"they have no {listed(missing, _SHOWN)}"] if missing else []
    if missing and not found:
        problems.append(f"but {listed(list(state), _SHOWN)}")
    problems += [listed(others, _SHOWN)] if others else []
    raise CheckpointError(f"the weights do not fit the model: {', '.join(problems)}; {hints[0]}")


def _shape_hint(given: Sequence[int], wanted: Sequence[int]) -> str:
    if len(given) == len(wanted) == 4:
        if (given[1], wanted[1]) == (3, 1):
            return _GRAY_MODEL
        if (given[1], wanted[1]) == (1, 3):
            return _GRAY_WEIGHTS
    return _OTHER_NETWORK


def _sizes(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"
