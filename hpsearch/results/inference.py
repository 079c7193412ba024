"""A checkpoint's model, and what it gives for images."""

from __future__ import annotations

import torch

from hpsearch.data.dataset import ImagePart
from hpsearch.data.preprocessing import resized_part
from hpsearch.data.resident import ResidentImages
from hpsearch.families import build_model
from hpsearch.training.checkpoint import Checkpoint
from hpsearch.training.evaluation import Evaluation, evaluate
from hpsearch.training.model import StagedModel, place


def restore_model(checkpoint: Checkpoint) -> StagedModel:
    """The model of a checkpoint, in evaluation mode, on the CPU."""
    model = build_model(checkpoint.config, checkpoint.preprocessing.shape, len(checkpoint.classes))
    model.load_state_dict(dict(checkpoint.state))
    return model.eval()


def run_model(
    model: StagedModel, checkpoint: Checkpoint, part: ImagePart, device: torch.device
) -> Evaluation:
    """The model's outputs for all images of `part`, computed as in training: in the size that the
    checkpoint's preprocessing brings images to, cut to their centre where it says so.

    Args:
        part: in the size of the data set.
    """
    config = checkpoint.config
    model = place(model, device, config.memory_format)
    images = ResidentImages.of(resized_part(part, checkpoint.preprocessing.full_size), device)
    return evaluate(model, images, checkpoint.preprocessing, config.precision, config.memory_format)
