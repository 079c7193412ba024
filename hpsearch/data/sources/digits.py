"""The embedded data: handwritten digits that come with scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hpsearch.data.catalog import Catalog, make_catalog
from hpsearch.data.readers import ArrayReader
from hpsearch.data.sources._source import DataSource
from hpsearch.data.spec import DataSpec


def _digits(_spec: DataSpec, _options: Mapping[str, Any]) -> Catalog:
    """1,797 handwritten digits of 8x8 pixels and 17 gray levels, from scikit-learn.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
    """
    from sklearn.datasets import load_digits  # imported late: it takes half a second

    bunch = load_digits()
    images = np.rint(bunch.images * (255.0 / 16.0)).astype(np.uint8)[..., np.newaxis]
    return make_catalog(
        name="digits",
        names=[str(number) for number in range(len(images))],
        label_names=[str(bunch.target_names[label]) for label in bunch.target],
        images=ArrayReader(images),
    )


DIGITS = DataSource(
    usage="digits",
    help="1,797 handwritten digits, 8x8 gray, 10 classes (comes with scikit-learn)",
    accepts=lambda spec: spec.source == "digits",
    catalog=_digits,
    is_path=False,
)
