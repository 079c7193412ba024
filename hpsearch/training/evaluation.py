"""What a model gives for images: in batches, in evaluation mode, in its precision."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from hpsearch.config import MemoryFormat, Precision
from hpsearch.data.batches import eval_batches
from hpsearch.data.preprocessing import Preprocessing
from hpsearch.data.resident import ResidentImages
from hpsearch.training.memory import is_out_of_memory
from hpsearch.training.step import autocast

EVAL_BATCH_SIZE = 512
"""On a CPU, where larger batches gain nothing."""

_EVAL_BYTES = {"cpu": 2**26, "cuda": 2**28}
"""Of a batch of images at most: what a model makes of them is many times as large."""


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """Outputs for a set of images: logits float32 (N, classes) on the CPU, and the accuracy."""

    logits: Tensor
    accuracy: float


def evaluate(
    model: nn.Module,
    images: ResidentImages,
    preprocessing: Preprocessing,
    precision: Precision,
    memory_format: MemoryFormat,
) -> Evaluation:
    """What `outputs` gives, on the CPU, and how many of the images it gets right."""
    logits = outputs(model, images, preprocessing, precision, memory_format)
    correct = (logits.argmax(dim=1) == images.labels).sum().item()
    return Evaluation(logits.cpu(), correct / len(images))


def outputs(
    model: nn.Module,
    images: ResidentImages,
    preprocessing: Preprocessing,
    precision: Precision,
    memory_format: MemoryFormat,
) -> Tensor:
    """Logits float32 (N, classes), in the order of `images` and on their device, where the model
    must be; it is left in evaluation mode. Where memory is short, the batches become smaller.
    """
    device = images.labels.device
    model.eval()
    size = _eval_batch_size(device, preprocessing)
    while True:
        try:
            with torch.inference_mode(), autocast(device, precision):
                return torch.cat(
                    [
                        model(batch).float()
                        for batch, _ in eval_batches(images, preprocessing, size, memory_format)
                    ]
                )
        except Exception as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        size //= 2


def _eval_batch_size(device: torch.device, preprocessing: Preprocessing) -> int:
    fitting = _EVAL_BYTES[device.type] // (4 * preprocessing.shape.nbytes)  # as float32
    return max(1, fitting if device.type == "cuda" else min(fitting, EVAL_BATCH_SIZE))
