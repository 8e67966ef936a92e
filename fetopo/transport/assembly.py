"""Forms compiled for this machine, and matrices that are assembled straight into the arrays of PETSc."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem, la
from dolfinx.fem import petsc as fem_petsc
from petsc4py import PETSc

from fetopo._compile import processor

#: Sums in any order and several at a time; what is not finite stays so, unlike with -ffast-math.
FLAGS = (
    "-O3", "-march=native", "-g0", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros",
    "-fassociative-math",
)  # fmt: skip


@cache
def _native() -> tuple[str, ...]:
    # Compiled forms are kept by what they are compiled with. Other processors must not find these.
    found = hashlib.sha256(processor().encode()).hexdigest()[:16]
    return (*FLAGS, f"-DFETOPO_PROCESSOR_{found}")


def jit_options() -> dict[str, Any]:
    """Options for compiling forms: for this processor, or DOLFINx's own where `FETOPO_NATIVE=0` is set."""
    if os.environ.get("FETOPO_NATIVE", "1") == "0":
        return {}
    return {"cffi_extra_compile_args": list(_native())}


def form(a: ufl.Form) -> Any:
    """Compile a form for this machine."""
    return fem.form(a, jit_options=jit_options())


class Matrix:
    """The matrix of a bilinear form.

    On one rank PETSc works on the arrays that the form is assembled into; on several it gets a copy of the
    rows this rank owns. Forms of vector-valued spaces are assembled by PETSc.

    Args:
        a: compiled form, square.
        bcs: Dirichlet conditions; their rows and columns become those of the identity.
        elements: assembles in place of the form, see :class:`fetopo.transport.regular.ScaledElements`.
    Attributes:
        petsc: the PETSc matrix.
    """

    def __init__(self, a: Any, bcs: Sequence[Any] = (), elements: Any = None) -> None:
        self.a, self.bcs, self.elements = a, list(bcs), elements
        self.native: Any = None
        if all(space.dofmap.bs == 1 for space in a.function_spaces):
            self.native = fem.create_matrix(a)
        if self.native is None or a.mesh.comm.size > 1:
            self.petsc = fem_petsc.create_matrix(a)
        else:
            size = self.native.index_map(0).size_local
            rows = self.native.indptr.astype(PETSc.IntType)
            columns = self.native.indices.astype(PETSc.IntType, copy=False)
            # PETSc gets no copy of these.
            self._arrays = (rows, columns, self.native.data)
            self.petsc = PETSc.Mat().createAIJWithArrays((size, size), self._arrays, comm=a.mesh.comm)
        if self.native is not None and a.mesh.comm.size > 1:
            owned = self.native.index_map(0).size_local
            self._rows = self.native.indptr[: owned + 1].astype(PETSc.IntType)
            local = self.native.indices[: self._rows[-1]]
            self._columns = self.native.index_map(1).local_to_global(local).astype(PETSc.IntType)
        if elements is not None:
            elements.prepare(self.native, self.bcs)

    def assemble(self) -> None:
        """Assemble with the present coefficients. Collective."""
        if self.native is None:
            self.petsc.zeroEntries()
            fem_petsc.assemble_matrix(self.petsc, self.a, self.bcs)
            self.petsc.assemble()
            return
        self.native.data[:] = 0.0
        if self.elements is not None:
            self.elements.assemble(self.native.data)
        else:
            fem.assemble_matrix(self.native, self.a, self.bcs)
        if self.a.mesh.comm.size > 1:
            self.native.scatter_reverse()
            values = self.native.data[: self._rows[-1]]
            self.petsc.setValuesCSR(self._rows, self._columns, values)
        self.petsc.assemble()
        # What PETSc derives from the values is out of date; it did not see them change.
        self.petsc.stateIncrease()


class Pairing:
    """The matrix B of a bilinear form between two scalar spaces, kept for products with it and its transpose.

    Args:
        a: form with the columns' space as trial and the rows' as test function; its coefficients are those
            of now.
    """

    def __init__(self, a: ufl.Form) -> None:
        compiled = form(a)
        self._kept = fem.create_matrix(compiled)
        fem.assemble_matrix(self._kept, compiled)
        # What this rank's cells give, rows of ghosts included: vectors are summed instead.
        self._matrix = self._kept.to_scipy(ghosted=True)
        self._transposed = self._matrix.T
        self._rows = compiled.function_spaces[0].dofmap.index_map
        columns = compiled.function_spaces[1].dofmap.index_map
        self._local = columns.size_local + columns.num_ghosts

    def times(self, x: npt.NDArray[np.float64]) -> la.Vector:
        """B x, owned entries complete, for the local values of a function. Collective."""
        b = la.vector(self._rows, 1)
        full = np.zeros(self._matrix.shape[1])
        full[: self._local] = x
        b.array[:] = self._matrix @ full
        b.scatter_reverse(la.InsertMode.add)
        return b

    def transposed_times(self, y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """What this rank's cells give to Bᵀ y, for the local values of a function, ghosts up to date."""
        return np.asarray((self._transposed @ y)[: self._local])
