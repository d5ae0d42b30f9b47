"""Sparse matrices on numpy arrays: compressed sparse rows, and their products with dense ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gristmill import _core
from gristmill.dense import Epilogue, PackedConv, PackedLinear, conv2d, linear
from gristmill.errors import ArgumentError, DTypeError, ShapeError

if TYPE_CHECKING:
    import scipy.sparse

__all__ = ["CsrMatrix", "spmm"]

_Array: TypeAlias = npt.NDArray[Any]
_Format: TypeAlias = Literal["quads", "blocks", "singles"]


class CsrMatrix:
    """An immutable matrix of int8 or float32 in compressed sparse rows.

    Row r holds entries ``indptr[r]`` to ``indptr[r + 1] - 1``; entry e is element ``(r, indices[e])`` with the value
    ``data[e]``. Everything is checked: columns lie inside the matrix and rise within a row, each at most once. Explicit
    zeros are allowed.

    Args:
        indptr: int32 or int64, one more than there are rows.
        indices: int32 or int64, the column of each entry.
        data: int8 or float32, the value of each entry.
        shape: Rows and columns.

    Raises:
        GristmillError: The arrays are not a valid matrix; ``.node`` names the one at fault.

    Example:
        >>> import numpy as np
        >>> a = CsrMatrix(np.array([0, 1, 3]), np.array([2, 0, 1]), np.array([5, -1, 2], np.int8), (2, 3))
        >>> a
        <CsrMatrix 2x3, int8, 3 entries (50.0 %)>
        >>> a.to_dense()
        array([[ 0,  0,  5],
               [-1,  2,  0]], dtype=int8)
    """

    __slots__ = ("_core", "_packed")

    def __init__(self, indptr: _Array, indices: _Array, data: _Array, shape: tuple[int, int]) -> None:
        self._core = _core.CsrMatrix(indptr, indices, data, shape)
        self._packed: dict[tuple[str, str, str], PackedConv | PackedLinear] = {}

    @classmethod
    def _from_core(cls, core: _core.CsrMatrix) -> CsrMatrix:
        matrix = cls.__new__(cls)
        matrix._core = core
        matrix._packed = {}
        return matrix

    @classmethod
    def from_dense(cls, array: _Array) -> CsrMatrix:
        """Return the nonzero elements of an int8 or float32 array.

        Of an array with more than two axes, such as a convolution's weights, the first gives the rows and all others
        the columns.

        Example:
            >>> import numpy as np
            >>> CsrMatrix.from_dense(np.array([[0, 2], [0, 0]], np.int8)).nnz
            1
        """
        return cls._from_core(_core.CsrMatrix.from_dense(array))

    @classmethod
    def from_scipy(cls, matrix: scipy.sparse.sparray | scipy.sparse.spmatrix) -> CsrMatrix:
        """Return a scipy sparse matrix or array of any layout as a CsrMatrix; duplicates are summed."""
        if not hasattr(matrix, "tocsr"):
            raise DTypeError(f"expected a scipy sparse matrix, got {type(matrix).__name__}", node="matrix")
        csr = matrix.tocsr()
        if not csr.has_canonical_format:
            csr = csr.copy()
            csr.sum_duplicates()
        return cls(csr.indptr, csr.indices, csr.data, csr.shape)

    def to_dense(self) -> _Array:
        """Return all elements as an array."""
        return self._core.to_dense()

    def to_scipy(self) -> scipy.sparse.csr_array:
        """Return a ``scipy.sparse.csr_array`` with the same entries."""
        from scipy.sparse import csr_array

        indptr, indices, data = self._core.arrays()
        return csr_array((data, indices, indptr), shape=self.shape)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._core.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type: int8 or float32."""
        return np.dtype(self._core.dtype)

    @property
    def nnz(self) -> int:
        """Entries, explicit zeros included."""
        return self._core.nnz

    @property
    def density(self) -> float:
        """Entries as a share of all elements; 0 for a matrix without any.

        Example:
            >>> import numpy as np
            >>> CsrMatrix.from_dense(np.eye(4, dtype=np.float32)).density
            0.25
        """
        rows, columns = self.shape
        return self.nnz / (rows * columns) if rows and columns else 0.0

    @property
    def indptr(self) -> _Array:
        """A copy of where rows begin, int64."""
        return self._core.arrays()[0]

    @property
    def indices(self) -> _Array:
        """A copy of the entries' columns, int32."""
        return self._core.arrays()[1]

    @property
    def data(self) -> _Array:
        """A copy of the entries' values."""
        return self._core.arrays()[2]

    def __matmul__(self, x: _Array) -> _Array:
        """Return ``spmm(self, x)``."""
        return spmm(self, x) if isinstance(x, np.ndarray) else NotImplemented

    def __repr__(self) -> str:
        rows, columns = self.shape
        return f"<CsrMatrix {rows}x{columns}, {self.dtype}, {self.nnz} entries ({100 * self.density:.1f} %)>"

    def __reduce__(self) -> tuple[type[CsrMatrix], tuple[Any, ...]]:
        return CsrMatrix, (*self._core.arrays(), self.shape)

    def _packed_as(self, kind: Literal["conv", "linear"], format_name: str | None) -> PackedConv | PackedLinear:
        """The matrix packed for the active level, kept for the next product."""
        key = (kind, str(format_name), _core.get_isa())
        if key not in self._packed:
            self._packed[key] = (PackedConv if kind == "conv" else PackedLinear)(self, format=format_name)
        return self._packed[key]


def spmm(
    a: CsrMatrix,
    x: _Array,
    *,
    x_zero_point: int = 0,
    epilogue: Epilogue | None = None,
    out: _Array | None = None,
    threads: int | None = None,
    format: _Format | None = None,  # noqa: A002
) -> _Array:
    """Multiply a sparse matrix by a dense one: ``a @ x``, then the epilogue.

    The first product packs ``a`` for the active level and keeps that with ``a``.

    Args:
        a: The sparse matrix, (M, K).
        x: uint8 or int8 for an int8 matrix, float32 for a float32 matrix; (K, P), or (K,) for one column.
        x_zero_point: Zero point of x.
        epilogue: What becomes of the sums, rows of ``a`` being its channels; without one, int8 matrices yield int32.
        out: An array for the result, in C order.
        threads: Threads to use; by default those of :func:`gristmill.get_num_threads`. Results do not depend on it.
        format: How ``a`` is multiplied: see :class:`PackedConv`.

    Returns:
        (M, P), or (M,) for one column.

    Example:
        >>> import numpy as np
        >>> a = CsrMatrix.from_dense(np.array([[0, 2, 0], [1, 0, -1]], np.int8))
        >>> x = np.array([[1, 2], [3, 4], [5, 6]], np.uint8)
        >>> spmm(a, x)
        array([[ 6,  8],
               [-4, -4]], dtype=int32)
        >>> a @ x[:, 0]
        array([ 6, -4], dtype=int32)
    """
    if not isinstance(a, CsrMatrix):
        raise DTypeError(f"expected a CsrMatrix, got {type(a).__name__}", node="a")
    if not isinstance(x, np.ndarray) or x.ndim not in (1, 2):
        raise ShapeError(f"expected an array of rank 1 or 2, got {getattr(x, 'shape', type(x).__name__)}", node="x")
    if epilogue is not None and epilogue.residual is not None:
        raise ArgumentError("a product adds no residual", node="epilogue")
    if x.shape[0] != a.shape[1]:
        raise ShapeError(f"expected {a.shape[1]} rows, as the matrix has columns, got {x.shape[0]}", node="x")
    if x.ndim == 1 or 0 in a.shape:
        return _product_by_rows(a, x, x_zero_point, epilogue, out, threads, format)
    weights = a._packed_as("conv", format)
    y = conv2d(
        x[np.newaxis, :, np.newaxis, :],
        weights,  # type: ignore[arg-type]
        x_zero_point=x_zero_point,
        epilogue=epilogue,
        out=None if out is None else _expanded(out, 2)[np.newaxis, :, np.newaxis, :],
        threads=threads,
    )
    return y[0, :, 0, :] if out is None else out


def _product_by_rows(
    a: CsrMatrix,
    x: _Array,
    x_zero_point: int,
    epilogue: Epilogue | None,
    out: _Array | None,
    threads: int | None,
    format_name: _Format | None,
) -> _Array:
    """A product as a linear layer, of which the columns of x are the rows."""
    columns = x.T if x.ndim == 2 else x[np.newaxis, :]
    weights = a._packed_as("linear", format_name)
    y = linear(columns, weights, x_zero_point=x_zero_point, epilogue=epilogue, threads=threads)  # type: ignore[arg-type]
    result: _Array = y[0] if x.ndim == 1 else y.T
    if out is None:
        return result
    if _expanded(out, x.ndim).shape != result.shape or out.dtype != result.dtype:
        raise ShapeError(f"expected {result.dtype} of shape {result.shape}, got {out.dtype} {out.shape}", node="out")
    out[...] = result
    return out


def _expanded(out: _Array, rank: int) -> _Array:
    if not isinstance(out, np.ndarray) or out.ndim != rank:
        raise ShapeError(f"expected an array of rank {rank}", node="out")
    return out
