"""How much of some data a model knows already."""

from __future__ import annotations

import dataclasses

import numpy as np

from hpsearch.data.dataset import PARTS, Int8Array, Int64Array
from hpsearch.families._start_images import StartOverlap
from hpsearch.results.intervals import Truths


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Overlap:
    """How much of some data a model knows.

    Attributes:
        parts: int8 (N,): as `KnownImages.parts_of`.
        fitted: the parts of the search that it was trained on.
        start: what the weights had seen of it that the model started from; None: it started from
            none.
    """

    parts: Int8Array
    fitted: tuple[str, ...]
    start: StartOverlap | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many of the images are in each part of the search."""
        return {part: int((self.parts == number).sum()) for number, part in enumerate(PARTS)}

    @property
    def only_start(self) -> int:
        """How many images only the weights had seen that the model started from."""
        return int((self._by_start & ~self._by_search).sum())

    @property
    def new(self) -> Int64Array:
        """int64 (n,): the rows of the images that nothing was fitted or chosen by. Those of the
        test split are among them.
        """
        rows: Int64Array = np.flatnonzero(~(self._by_search | self._by_start))
        return rows

    @property
    def _by_search(self) -> Truths:
        """(N,): the images that the search trained on or chose by."""
        return np.isin(self.parts, [PARTS.index("train"), PARTS.index("val")])

    @property
    def _by_start(self) -> Truths:
        """(N,): the images that the weights had seen that the model started from."""
        return np.zeros(len(self.parts), dtype=np.bool_) if self.start is None else self.start.seen

    @property
    def warnings(self) -> tuple[str, ...]:
        """What it means for a score, in sentences."""
        counts, total = self.counts, len(self.parts)
        trained = sum(counts[part] for part in self.fitted)
        chosen = sum(counts[part] for part in ("train", "val") if part not in self.fitted)
        what = [f"{trained:,} were trained on"] if trained else []
        what += [f"{chosen:,} the model was chosen by (validation)"] if chosen else []
        if self.only_start and self.start is not None:
            what.append(
                f"{self.only_start:,} the weights had seen that it started from "
                f"({self.start.weights})"
            )
        warnings = []
        if what:
            meaning = "so this says nothing about new ones"
            if len(self.new):
                meaning = "the score without them is the one to believe"
            told = " and ".join(filter(None, (", ".join(what[:-1]), what[-1])))
            warnings.append(f"of {total:,} images {told}: {meaning}")
        if counts["test"]:
            warnings.append(
                f"of {total:,} images {counts['test']:,} are test images of the model's search: "
                "this look at them is not counted there, so choose nothing by it"
            )
        return (*warnings, *(() if self.start is None else self.start.doubts))
