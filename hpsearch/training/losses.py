"""Losses: a table of functions that give the loss of each image, and their mean over a batch.

To add one, write a function of the logits, the labels, the label smoothing and the loss's own
options, and append a row. Class weights, mixed images and spaces follow from the table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hpsearch.checks import look_up
from hpsearch.config import LossConfig, TrainConfig
from hpsearch.training.options import OptionInfo, read_options


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss:
    """One row.

    Attributes:
        each: (logits float32 (n, classes), labels int64 (n,), label smoothing, options) -> the
            loss of each image, float32 (n,).
    """

    name: str
    help: str
    each: Callable[[Tensor, Tensor, float, Mapping[str, Any]], Tensor]
    options: Mapping[str, OptionInfo] = dataclasses.field(default_factory=dict)


def _cross_entropy(
    logits: Tensor, labels: Tensor, smoothing: float, _: Mapping[str, Any]
) -> Tensor:
    return F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")


def _focal(logits: Tensor, labels: Tensor, smoothing: float, options: Mapping[str, Any]) -> Tensor:
    log_p = -F.cross_entropy(logits, labels, reduction="none")
    # 1 - p, precise where p is almost 1. The slope of a power below 1 is infinite at 0.
    missing = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).eps)
    focus: Tensor = missing ** options["gamma"]
    return focus * _cross_entropy(logits, labels, smoothing, options)


def _mse(logits: Tensor, labels: Tensor, smoothing: float, _: Mapping[str, Any]) -> Tensor:
    classes = logits.shape[1]
    target = F.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
    return (logits - target).square().mean(dim=1)


LOSSES: tuple[Loss, ...] = (
    Loss(name="cross_entropy", help="of the softmax of the outputs", each=_cross_entropy),
    Loss(
        name="focal",
        help="cross-entropy, smoothed or not, times (1 - p) ** gamma, p the probability of the "
        "label: images that are learnt already count less (Lin et al., arXiv 1708.02002)",
        each=_focal,
        options={
            "gamma": OptionInfo(
                help="0 is cross-entropy", default=2.0, low=0.5, high=5.0, limits=(0.0, 20.0)
            )
        },
    ),
    Loss(
        name="mse",
        help="squared difference of the outputs, without softmax, and 1 for the label, 0 for the "
        "other classes; mean over the classes (Hui and Belkin, arXiv 2006.07322)",
        each=_mse,
    ),
)

_BY_NAME = {row.name: row for row in LOSSES}


def loss_info(name: str) -> Loss:
    """The row called `name`.

    Raises:
        ConfigError: there is none.
    """
    return look_up("loss", name, _BY_NAME)


def check_loss(config: LossConfig) -> None:
    """Raises `ConfigError` where the loss or an option is unknown, or an option is out of its
    limits.
    """
    _options(loss_info(config.name), config)


def _options(row: Loss, config: LossConfig) -> dict[str, Any]:
    return read_options(f"loss {row.name!r}", row.options, config.options)


def class_weights(counts: Tensor) -> Tensor:
    """All images / (classes * images of the class): float32 (classes,), 1 where all are as many.

    Args:
        counts: int64 (classes,), how many training images each class has.
    """
    return counts.sum() / (len(counts) * counts.clamp_min(1).float())


class BatchLoss:
    """The loss that a configuration trains with.

    Args:
        counts: int64 (classes,), how many training images each class has: for class weights.

    Raises:
        ConfigError: an unknown loss or option, or an option out of its limits.
    """

    def __init__(self, config: TrainConfig, counts: Tensor) -> None:
        self._row = loss_info(config.loss.name)
        self._options = _options(self._row, config.loss)
        self._smoothing = config.label_smoothing
        self._weights = class_weights(counts) if config.balance == "weights" else None

    def __call__(
        self,
        logits: Tensor,
        labels: Tensor,
        other: Tensor | None = None,
        share: Tensor | None = None,
    ) -> Tensor:
        """Mean loss of a batch, weighted by class where the configuration says so (each image's
        loss times its label's weight, divided by the sum of these weights, as torch does).

        Args:
            logits: (n, classes), taken as float32.
            labels: int64 (n,).
            other, share: where images are mixed, the label int64 (n,) that has the rest of each
                image, and the share float32 (n,) of `labels`: both losses count by their shares.
        """
        logits = logits.float()
        if self._row.each is _cross_entropy and self._weights is None and share is None:
            return F.cross_entropy(logits, labels, label_smoothing=self._smoothing)
        loss = self._weighted(logits, labels)
        if other is not None and share is not None:
            loss = share * loss + (1 - share) * self._weighted(logits, other)
        return loss.sum() / self.weight(labels, other, share)

    def weight(
        self, labels: Tensor, other: Tensor | None = None, share: Tensor | None = None
    ) -> Tensor:
        """(), what the mean loss of these images counts among others: the sum of their weights."""
        if self._weights is None:
            return torch.tensor(float(len(labels)))
        weight = self._weights[labels]
        if other is not None and share is not None:
            weight = share * weight + (1 - share) * self._weights[other]
        return weight.sum()

    def _weighted(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Of each image the loss times the weight of its label."""
        loss = self._row.each(logits, labels, self._smoothing, self._options)
        return loss if self._weights is None else loss * self._weights[labels]
