"""Perfectly conducting phases: each connected part of one has one potential, and one degree of freedom.

Under a macroscopic gradient e the potential of a periodic medium is u = e·x + w with a periodic w, so that
in a conductor w is a constant less e·x, with x counted along the conductor through the faces of the cell.
Whether there is such a w, and which, the problem of the conductor alone answers: it finds the w of least
∫ |e + ∇w|², which is zero if the conductor is an island of the periodic medium and positive if it goes on for
ever along e.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem

from fetopo.transport.components import label_components, lowest_numbers, on_every_copy
from fetopo.transport.periodic import merged_space
from fetopo.transport.state import LinearSolver, assemble_dual, global_sum, zero_on_boundary

#: Energy of the conductor alone, relative to its volume, below which it does not conduct along e.
PERCOLATES = 1e-10


class Conductors:
    """A space in which every connected part of the conducting phases is one degree of freedom.

    Args:
        V: scalar space, periodic, broken, or neither.
        inside: DG0 indicator of the conductors.
        cells: local cells that conduct perfectly.
    """

    def __init__(self, V: Any, inside: fem.Function, cells: npt.NDArray[np.int32]) -> None:
        self._full, self._inside, self._cells = V, inside, cells
        imap = V.dofmap.index_map
        self._count, self._component = label_components(V, cells)
        self._lowest = lowest_numbers(V, self._count, self._component)
        first, owned = int(imap.local_range[0]), imap.size_local
        masters = np.arange(first, first + owned, dtype=np.int64)
        held = np.flatnonzero(self._component[:owned] >= 0)
        masters[held] = self._lowest[self._component[held]]
        #: The space, and the local index in it of each degree of freedom of V.
        self.V, self.local = merged_space(V, masters)

    @property
    def count(self) -> int:
        """Number of connected parts."""
        return self._count

    def lift(self, e: Any, fixed: npt.NDArray[np.int32] | None = None) -> tuple[fem.Function, float]:
        """The w in the space V with e + ∇w = 0 in the conductors, zero at all other degrees of freedom.

        Args:
            e: macroscopic gradient, UFL vector.
            fixed: degrees of freedom of V where w is zero, on every rank that has them.
        Returns:
            The function, and 1/|C| ∫_C |e + ∇w|² of the conductors C: zero to round-off if there is such a w.
        """
        V, comm = self._full, self._full.mesh.comm
        imap = V.dofmap.index_map
        size = imap.size_local + imap.num_ghosts
        known = self._component < 0
        held = np.zeros(self._count, dtype=np.int64)
        if fixed is not None:
            known[fixed] = True
            of_fixed = self._component[fixed]
            held[of_fixed[of_fixed >= 0]] = 1
        comm.Allreduce(held.copy(), held)
        # A part that nothing holds is held at one degree of freedom.
        numbers = imap.local_to_global(np.arange(size, dtype=np.int32))
        known |= np.isin(numbers, self._lowest[held == 0])
        w = fem.Function(V)
        bcs = [fem.dirichletbc(0.0, np.flatnonzero(known).astype(np.int32), V)]
        u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
        solver = LinearSolver(
            self._inside * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx,
            bcs,
            petsc_options={"ksp_rtol": 1e-13},
            petsc_options_prefix="fetopo_conductors_",
        )
        solver.assemble()
        b = assemble_dual(fem.form(-self._inside * ufl.inner(e, ufl.grad(v)) * ufl.dx))
        zero_on_boundary(b, bcs)
        solver.solve(b, w)
        field = e + ufl.grad(w)
        energy = global_sum(fem.form(self._inside * ufl.inner(field, field) * ufl.dx))
        volume = global_sum(fem.form(self._inside * ufl.dx))
        return w, energy / volume

    def on_merged(self, marked: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Degrees of freedom of the merged space, on every rank, in which some of V have gone up."""
        size = self.V.dofmap.index_map.size_local + self.V.dofmap.index_map.num_ghosts
        there = np.zeros(size, dtype=bool)
        there[self.local[marked]] = True
        return np.flatnonzero(on_every_copy(self.V, there)).astype(np.int32)
