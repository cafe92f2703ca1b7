"""The seeds of k-means that are chosen among rows drawn together, by one kernel: the host does not wait for each."""

from __future__ import annotations

import numpy as np

from semdedup.arrays import Array, array_module
from semdedup.dedup.kernels.gpu.compiled import contiguous, launch

THREADS = 1024


class ChosenByKernel:
    """What `kernels.chosen.Chosen` is; `among` is one launch, after which the host waits once."""

    def __init__(self, first: int, n_clusters: int, squares: Array, nearest: Array) -> None:
        xp = array_module(squares)
        self.squares, self.nearest = contiguous(squares, np.int32), contiguous(nearest, np.int32)
        self._chosen = xp.full(n_clusters, first, dtype=np.int64)
        self.number, self.total = 1, int(nearest.sum(dtype=np.int64))
        self._state = xp.asarray(np.array([self.number, self.total]))

    def among(self, drawn: Array, share: Array, products: Array, trials: int) -> None:
        """See `Chosen.among`. There is room for 128 trials and 1,024 rows drawn, more than `kmeans.seeds` ever asks."""
        rows = contiguous(products, np.int32), contiguous(share, np.int64), contiguous(drawn, np.int64)
        sizes = np.int32(len(drawn)), np.int64(len(self.squares)), np.int32(trials), np.int64(len(self._chosen))
        held = self.squares, self.nearest, self._chosen, self._state
        launch(array_module(drawn), "choose", 1, THREADS, *rows, *sizes, *held)
        self.number, self.total = self._state.get().tolist()

    def positions(self) -> np.ndarray:
        """Those that are chosen, (number,) int64."""
        return self._chosen.get()[: self.number]
