"""Matrix products that propose, each with a proven bound of its error: of float32 rows, or of rows that were rounded.

A bfloat16 has 8 significant bits. Where the processor multiplies matrices of it, such a product takes a fifth of the
time of one in float32 (AMX of Intel's Xeons since 2023) or eight tenths (AMD since Zen 4). What the bound leaves open,
`kernels.exact` decides.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import numpy as np

from semdedup.arrays import Array, array_module, block_elements, numkong, scratch
from semdedup.dedup.kernels.exact import product_error


class Factor(Protocol):
    """The rows of one side of a product, ready to be multiplied.

    Attributes:
        deviation: the most by which a row, as it is multiplied, differs from the true row, in Euclidean length.
        longest: length of the longest true row, or a little more.
    """

    deviation: float
    longest: float

    def pack(self, start: int, stop: int) -> Any:
        """Rows [start, stop) as the right side of products."""

    def multiply(self, start: int, stop: int, packed: Any, out: Array) -> None:
        """``rows[start:stop] @ packed.T`` in float32, into `out` of shape (stop - start, packed rows), contiguous."""


@cache
def _blas() -> Any:
    """SciPy's BLAS: to import it takes a quarter of a second, which those who need no triangle are spared."""
    import scipy.linalg.blas

    return scipy.linalg.blas


class SinglePrecision:
    """float32 rows (n, d) as they are, NumPy or CuPy."""

    deviation = 0.0

    def __init__(self, rows: Array, longest: float = 1.0, *, passing: bool = False) -> None:
        self.rows, self.longest = rows, longest

    def pack(self, start: int, stop: int) -> Array:
        """See `Factor`."""
        return self.rows[start:stop]

    def multiply(self, start: int, stop: int, packed: Array, out: Array) -> None:
        """See `Factor`."""
        array_module(self.rows).matmul(self.rows[start:stop], packed.T, out=out)

    def triangle(self, start: int, stop: int, out: np.ndarray) -> None:
        """The products of rows [start, stop) with those before them and themselves, into (m, m) float32, contiguous.

        What lies above the diagonal keeps its values. NumPy only; its own product of a matrix with its transpose copies
        one half to the other, which takes a third of the time.
        """
        _blas().ssyrk(1.0, self.rows[start:stop].T, trans=1, c=out.T, overwrite_c=1)


class HalfPrecision:
    """float32 rows (n, d) rounded to bfloat16: 2·n·d bytes. NumPy only; see `precisions_for`.

    Those of a factor that is `passing` lie in scratch memory: the next such factor of the thread takes their place.
    They are multiplied once, and to measure by how much they differ would take longer than that: rounding to the
    nearest bounds it by 2**-8 of their length.
    """

    def __init__(self, rows: np.ndarray, longest: float = 1.0, *, passing: bool = False) -> None:
        self.longest = longest
        rows = np.require(rows, requirements=["C", "A"])  # what comes over the network may be at any address
        n, dim = rows.shape
        halves = scratch(np, "halves", rows.shape, np.uint16) if passing else np.empty(rows.shape, np.uint16)
        self.rows: Any = numkong.from_pointer(halves.ctypes.data, rows.shape, "bfloat16", owner=halves)
        numkong.astype(rows, "bfloat16", out=self.rows)
        if passing:
            self.deviation = 2.0**-8 * longest + dim * 2.0**-63
            return
        step = max(1, block_elements() // 8 // dim)
        rounded = scratch(np, "rounded", (min(step, n), dim), np.float32)
        square = 0.0
        for start in range(0, n, step):
            block = rows[start : start + step]
            difference = rounded[: len(block)]
            numkong.astype(self.rows[start : start + len(block)], "float32", out=difference)
            difference -= block  # exact
            square = max(square, float(np.einsum("ij,ij->i", difference, difference).max()))
        self.deviation = 1.01 * square**0.5 + dim * 2.0**-63  # 1.01 for float32 sums, the rest for squares that vanish

    def pack(self, start: int, stop: int) -> Any:
        """See `Factor`."""
        return numkong.dots_pack(self.rows[start:stop], dtype=numkong.bfloat16)

    def multiply(self, start: int, stop: int, packed: Any, out: np.ndarray) -> None:
        """See `Factor`."""
        numkong.dots_packed(self.rows[start:stop], packed, out=numkong.from_dlpack(out))


class BytePrecision:
    """float32 rows (n, d) stretched and rounded to int8: n·d bytes, and d at most `LONGEST_OF_BYTES`. NumPy only.

    Rows of a factor that is `passing` lie in scratch memory, as those of `HalfPrecision`, and are stretched one by one;
    those of another one all alike, and only it can be the right side of a product. Products of whole numbers are exact.
    """

    def __init__(self, rows: np.ndarray, longest: float = 1.0, *, passing: bool = False) -> None:
        self.longest = longest
        n, dim = rows.shape
        self.rows = scratch(np, "bytes", rows.shape, np.int8) if passing else np.empty(rows.shape, np.int8)
        largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
        if not passing:
            largest[...] = largest.max()
        factors = np.float32(127) / np.maximum(largest, np.float32(2.0**-60))
        self.scales = 1 / factors.astype(np.float64)
        step = max(1, block_elements() // 8 // dim)
        stretched, rounded = (scratch(np, name, (min(step, n), dim), np.float32) for name in ("stretched", "rounded"))
        squares = np.empty(n, dtype=np.float32)
        for start in range(0, n, step):
            chosen = slice(start, min(start + step, n))
            difference, whole = stretched[: chosen.stop - start], rounded[: chosen.stop - start]
            np.multiply(rows[chosen], factors[chosen, None], out=difference)
            np.rint(difference, out=whole)
            self.rows[chosen] = whole
            difference -= whole  # exact
            np.einsum("ij,ij->i", difference, difference, out=squares[chosen])
        # 1.01 for float32 sums; an element up to 127 is off by 127 * 2**-24 from stretching
        self.deviation = float(((1.01 * np.sqrt(squares) + 2.0**-16 * dim**0.5) * self.scales).max())

    def pack(self, start: int, stop: int) -> Any:
        """See `Factor`."""
        return numkong.dots_pack(self.rows[start:stop], dtype="int8"), self.scales[start]

    def multiply(self, start: int, stop: int, packed: Any, out: np.ndarray) -> None:
        """See `Factor`."""
        right, scale = packed
        whole = scratch(np, "whole", out.shape, np.int32)
        numkong.dots_packed(self.rows[start:stop], right, out=numkong.from_dlpack(whole))
        scales = (self.scales[start:stop, None] * scale).astype(np.float32)
        np.multiply(whole, scales, out=out, dtype=np.float32, casting="unsafe")


class WholeNumbers:
    """int8 rows (n, d) of elements up to 63 and square lengths up to 2**23: their doubled products are exact.

    NumKong multiplies them as int8, which is faster still than bfloat16; elsewhere float32 holds them.
    """

    def __init__(self, rows: Array) -> None:
        self._native = isinstance(rows, np.ndarray) and numkong is not None
        self._rows = rows if self._native else rows.astype(np.float32)
        self._packed = numkong.dots_pack(rows, dtype="int8") if self._native else None

    def squares(self) -> Array:
        """Square lengths, (n,) int32."""
        xp = array_module(self._rows)
        dtype = np.int32 if self._native else np.float32
        return xp.einsum("ij,ij->i", self._rows, self._rows, dtype=dtype).astype(np.int32)

    def doubled_products(self, positions: Array) -> Array:
        """Twice the products of some rows with all rows, (p, n) int32, in the scratch array ``products``."""
        xp = array_module(self._rows)
        rows = 2 * self._rows[positions]
        doubled = scratch(xp, "products", (len(rows), len(self._rows)), np.int32)
        if self._native:
            numkong.dots_packed(rows, self._packed, out=numkong.from_dlpack(doubled))
        else:
            doubled[...] = rows @ self._rows.T
        return doubled


def products_error(left: Factor, right: Factor, dim: int) -> float:
    """Bound on the difference of a product of two rows from the true x·y, for any two rows of the factors.

    With x' and y' for the rows as they are multiplied, ``x·y − x'·y' = (x − x')·y + x'·(y − y')``, which Cauchy and
    Schwarz bound by the deviations and lengths. The product x'·y' itself errs by
    ``gamma_2d |x'||y'|`` (see `exact.product_error`; 2d, for the units that multiply bfloat16 add
    pairs first; their products are exact in float32). One of int8 is exact, and rounded as it becomes float32: twice,
    and a third time where d > 1,040 lets it pass 2**24.
    """
    left_length, right_length = left.longest + left.deviation, right.longest + right.deviation
    rounding = left.deviation * right.longest + left_length * right.deviation
    terms = 2 * dim if left.deviation or right.deviation else dim
    return 1.001 * rounding + product_error(terms) * left_length * right_length


SMALLEST_DIM, SMALLEST_PRODUCT = 32, 1 << 16
"""Length of rows and elements of a product from which on rounding them first pays."""

LONGEST_OF_BYTES = 1 << 17
"""Length of rows up to which the products of int8 are below 2**31."""


def precisions_for(left: Array, right: Array) -> list[Callable[..., Factor]]:
    """In what precisions to multiply the rows of two matrices: the coarsest that pays first, each closer than the last.

    The last is float32 always.
    """
    coarse = _rounding_pays(left, right) and has_bfloat16_matrices()
    return [HalfPrecision, SinglePrecision] if coarse else [SinglePrecision]


def precisions_for_labels(left: Array, right: Array) -> list[Callable[..., Factor]]:
    """As `precisions_for`, where of each row only the largest product is asked for: mostly it is so by far.

    In int8 labels take half the time of float32 (AVX-512 VNNI, d = 512), and the products have eight times the error of
    bfloat16, which takes no less than float32 for them without AMX.
    """
    if _rounding_pays(left, right) and left.shape[1] <= LONGEST_OF_BYTES and has_byte_products():
        return [BytePrecision, SinglePrecision]
    return precisions_for(left, right)


def _rounding_pays(left: Array, right: Array) -> bool:
    large = left.shape[1] >= SMALLEST_DIM and len(left) * len(right) >= SMALLEST_PRODUCT
    return large and isinstance(left, np.ndarray)


def has_matrix_units() -> bool:
    """Whether this processor has units that multiply matrices of bfloat16, asked of NumKong: AMX."""
    return numkong is not None and bool(numkong.get_capabilities().get("sapphireamx"))


@cache
def has_byte_products() -> bool:
    """Whether this processor multiplies int8 fastest, asked of NumKong: with AVX-512 VNNI, where it has no AMX."""
    if numkong is None:
        return False
    return bool(numkong.get_capabilities().get("icelake")) and not has_matrix_units()


@cache
def has_bfloat16_matrices() -> bool:
    """Whether this processor multiplies bfloat16 faster than float32, asked of NumKong, which does it.

    AMX does, and AVX-512 BF16 where it does twice as many products as in float32: on AMD's processors. Intel's with
    that have float16 as well, and gain nothing by it.
    """
    if numkong is None:
        return False
    can = numkong.get_capabilities()
    return has_matrix_units() or bool(can.get("genoa") and not can.get("sapphire"))
