"""Sparse matrices of device arrays, as far as semdedup needs them."""

import cupy
import numpy as np
import scipy.sparse
from cupy import unwrap_array, wrap


class _Sparse:
    def __init__(self, matrix):
        self.matrix = matrix

    @property
    def T(self):
        return _Sparse(self.matrix.T)

    def __matmul__(self, other):
        return wrap(self.matrix @ unwrap_array(other))


class csr_matrix(_Sparse):
    """Of (values, columns, starts). Columns outside of the shape are an error here; on a GPU they write anywhere."""

    def __init__(self, arg1, shape=None, dtype=None, copy=False):
        values, columns, starts = map(unwrap_array, arg1)
        if values.dtype.char not in "?fdFD":
            raise ValueError("Only bool, float32, float64, complex64 and complex128 are supported")
        if columns.size and not 0 <= columns.min() <= columns.max() < shape[1]:
            raise cupy.Refused(f"columns {columns.min()} to {columns.max()} of a matrix of shape {shape}")
        super().__init__(scipy.sparse.csr_matrix((values, columns, np.asarray(starts)), shape=shape))
