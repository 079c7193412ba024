"""Augmentations: a table, and their application to a whole batch on its device.

Each image draws its own randomness. Whatever moves pixels (turns, flips, crops, the cut to the
model's input) is one matrix for each image, and the batch is resampled once. Colours and single
pixels are changed in what comes out of that; mixing takes the finished batch and its labels. To
add an augmentation, write one function and append one row to the table in `_table.py`.
"""

from hpsearch.data.augment._batch import Mixed, augment_batch, mix_batch
from hpsearch.data.augment._geometry import centre_of
from hpsearch.data.augment._rows import Augmentation
from hpsearch.data.augment._table import AUGMENTATIONS, augmentation, check_augmentations

__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "Mixed",
    "augment_batch",
    "augmentation",
    "centre_of",
    "check_augmentations",
    "mix_batch",
]
