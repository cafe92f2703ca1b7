"""What of ``cupyx`` stands in."""

import numpy as np


def empty_pinned(shape, dtype=float, order="C"):
    array = np.empty(shape, dtype, order)
    array.view(np.uint8).reshape(-1)[...] = 0xA5
    return array
