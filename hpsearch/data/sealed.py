"""The seal on the test split: the one function that hands it out.

Only `hpsearch.results` imports this module (a test checks it), and what it does there is
recorded in the study first.
"""

from __future__ import annotations

from hpsearch.data.dataset import ImageDataset, ImagePart
from hpsearch.data.splits import Split


def open_test_split(dataset: ImageDataset, split: Split) -> ImagePart:
    """The test images of `dataset`."""
    return dataset.part(split.test)
