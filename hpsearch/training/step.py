"""One step of training: from a batch to changed weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hpsearch.config import Precision, TrainConfig
from hpsearch.data.batches import TrainBatch
from hpsearch.errors import ConfigError
from hpsearch.training.averaging import WeightAverage
from hpsearch.training.dropout import ScheduledDropout
from hpsearch.training.graph import GraphedStep
from hpsearch.training.losses import BatchLoss
from hpsearch.training.memory import is_out_of_memory
from hpsearch.training.model import StagedModel
from hpsearch.training.optimizers import base_lr, build_optimizer

StepResult = tuple[Tensor, Tensor]
"""The mean loss of a batch, (), and the predicted labels, int64 (n,); both on the device."""


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[Any]:
    """Automatic mixed precision where `precision` is "bf16", nothing otherwise."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


class Step:
    """Changes a model's weights by the gradient of a batch's loss; never waits for the device.

    Args:
        model: on `device` already, in the memory format of the configuration, frozen as it says.
        class_counts: int64 (classes,), how many training images each class has.

    Attributes:
        optimizer: over the parameters of the model that are trained.
        average: of the weights, where the configuration asks for one.

    Raises:
        ConfigError: an optimizer or loss that is unknown or has wrong options, or an optimizer that
            cannot be part of a CUDA graph where the configuration asks for one.
    """

    def __init__(
        self, model: StagedModel, config: TrainConfig, class_counts: Tensor, device: torch.device
    ) -> None:
        self._config = config
        self._device = device
        self._loss = BatchLoss(config, class_counts)
        self._forward: Callable[[Tensor], Tensor] = model
        graphed = config.execution == "graph" and device.type == "cuda"
        self._compiled = config.execution == "compile"
        if self._compiled:
            from torch import _dynamo  # imported late: it takes seconds

            # All models share their code: after some, torch would silently not compile any more.
            _dynamo.reset()
            self._forward = torch.compile(model)
        self.optimizer = build_optimizer(
            model, config.optimizer, batch_size=config.batch_size, capturable=graphed
        )
        self._trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.average = WeightAverage(model, config.ema) if config.ema else None
        self._graphs = GraphedStep(device) if graphed else None
        if graphed:
            for group in self.optimizer.param_groups:  # what a graph reads must stay where it is
                group["lr"] = torch.tensor(float(group["lr"]), device=device)
        if graphed or self._compiled:  # which would compile anew for each rate
            for module in model.modules():
                if isinstance(module, ScheduledDropout):
                    module.use_tensor(device)
        self.highest_lr = base_lr(config.optimizer, config.batch_size)

    def __call__(self, batch: TrainBatch, lr: float) -> StepResult:
        """Takes the step; `lr` is the learning rate of the last stage."""
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr * group["lr_scale"])
            else:
                group["lr"] = lr * group["lr_scale"]
        if self._graphs is not None:
            result = self._graphs(self._change_weights, batch)
        elif self._compiled:
            result = self._change_weights_compiled(batch)
        else:
            result = self._change_weights(batch)
        if self.average is not None:
            self.average.update()
        return result

    def load_optimizer(self, state: Mapping[str, Any]) -> None:
        """Goes on with the `state_dict` of an optimizer for the same model and configuration.

        Settings stay as they are here: on another device, those for CUDA graphs were others.
        """
        own = [dict(group) for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(dict(state))
        for group, settings in zip(self.optimizer.param_groups, own, strict=True):
            group.update(settings)

    def _change_weights_compiled(self, batch: TrainBatch) -> StepResult:
        from torch._dynamo.exc import TorchDynamoException

        try:
            return self._change_weights(batch)
        except TorchDynamoException as error:
            if is_out_of_memory(error):
                raise
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(
                f"execution compile does not work here ({reason[:200]}); use execution eager"
            ) from error

    def _change_weights(self, batch: TrainBatch) -> StepResult:
        self.optimizer.zero_grad(set_to_none=True)
        parts = batch.parts(self._config.micro_batch)
        if len(parts) == 1:
            loss, predicted = self._add_gradient(batch, None)
        else:
            whole = self._loss.weight(batch.labels, batch.other, batch.share)
            results = [self._add_gradient(part, whole) for part in parts]
            loss = torch.stack([part for part, _ in results]).sum()
            predicted = torch.cat([part for _, part in results])
        if self._config.grad_clip:
            nn.utils.clip_grad_norm_(self._trained, self._config.grad_clip)
        self.optimizer.step()
        return loss, predicted

    def _add_gradient(self, part: TrainBatch, whole: Tensor | None) -> StepResult:
        """Adds the gradient of a part's loss, weighted by its share of the `whole` batch's weight;
        of the batch itself where that is None.
        """
        with autocast(self._device, self._config.precision):
            logits = self._forward(part.images)
        loss = self._loss(logits, part.labels, part.other, part.share)
        if whole is not None:
            loss = loss * (self._loss.weight(part.labels, part.other, part.share) / whole)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), logits.detach().argmax(dim=1)
