"""Functions of the effective tensor, written in UFL, at tensors that are NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem
from dolfinx import mesh as dmesh
from mpi4py import MPI

from fetopo._mpi import on_every_rank
from fetopo.design.functionals import TensorFunction
from fetopo.transport.state import assemble_dual

Array = npt.NDArray[np.float64]


class TensorValue:
    """A scalar function of a d×d tensor and its derivative, J(D) and ∂J/∂D, without a mesh of the cell.

    The function becomes a form on a mesh of one interval that every rank has for itself, compiled once.

    Args:
        comm: communicator; all of its ranks make the object together.
        function: J as a function that takes D as a UFL d×d tensor and returns a UFL scalar, e.g.
            `lambda D: ufl.tr(ufl.inv(D))`.
        dim: d.
    Attributes:
        shift: d×d tensor that is added to D wherever the function is evaluated, zero unless set.
    Raises:
        ValueError: `function` does not return a scalar.
    """

    def __init__(self, comm: MPI.Comm, function: TensorFunction, dim: int) -> None:
        self.dim = dim
        self.shift: Array = np.zeros((dim, dim))
        mesh = dmesh.create_interval(MPI.COMM_SELF, 1, [0.0, 1.0])
        self._D = fem.Constant(mesh, np.eye(dim))
        D = ufl.variable(ufl.as_matrix([[self._D[i, j] for j in range(dim)] for i in range(dim)]))
        J = ufl.as_ufl(function(D))
        if J.ufl_shape != ():
            raise ValueError(f"a functional of the tensor must be a scalar, found shape {J.ufl_shape}")
        derivative = ufl.diff(J, D)
        entries = [J, *(derivative[i, j] for i in range(dim) for j in range(dim))]
        # The integral over an interval of length 1 of what is constant there is its value.
        test = ufl.TestFunction(fem.functionspace(mesh, ("DG", 0, (len(entries),))))
        dx = ufl.dx(mesh, metadata={"quadrature_degree": 0})
        form = ufl.inner(ufl.as_vector(entries), test) * dx
        # Rank 0 compiles and the others find the result: they would wait for it, but not for long.
        for turn in (True, False):
            with on_every_rank(comm):
                if (comm.rank == 0) is turn:
                    self._form = fem.form(form)
        self._at: Array | None = None
        self._entries: Array = np.zeros(len(entries))

    def _evaluate(self, D: Array) -> Array:
        D = D + self.shift
        if self._at is None or not np.array_equal(self._at, D):
            self._D.value = D
            self._entries = assemble_dual(self._form).array.copy()
            self._at = np.array(D)
        return self._entries

    def value(self, D: Any) -> float:
        """J(D + shift)."""
        return float(self._evaluate(np.asarray(D, dtype=float))[0])

    def derivative(self, D: Any) -> Array:
        """∂J/∂Dᵢⱼ there, shape (d, d), every entry of D on its own."""
        return self._evaluate(np.asarray(D, dtype=float))[1:].reshape(self.dim, self.dim).copy()
