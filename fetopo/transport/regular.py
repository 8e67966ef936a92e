"""Conduction with linear elements on a regular grid: which forms those are, and assembly without quadrature.

A mesh whose cells are voxels has elements that are all alike but for their conductivity.
:func:`conductivity` reads that off a form, :class:`ScaledElements` assembles its matrix, and
:class:`fetopo.transport.regular_multigrid.GridMultigrid` preconditions it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem
from mpi4py import MPI
from ufl.algorithms.apply_algebra_lowering import apply_algebra_lowering
from ufl.algorithms.expand_indices import expand_indices
from ufl.constantvalue import ScalarValue, Zero
from ufl.corealg.map_dag import map_expr_dag
from ufl.corealg.multifunction import MultiFunction

from fetopo._compat import geometry_dofmap
from fetopo._compile import compiled
from fetopo.microstructure.mesh import UnitCell
from fetopo.transport.assembly import jit_options
from fetopo.transport.quadrature import is_piecewise_constant

Array = npt.NDArray[Any]
_SOURCE = Path(__file__).with_name("_elements.c")


@cache
def kernel() -> Any:
    """The compiled module, with `ffi` and `lib`."""
    text = _SOURCE.read_text(encoding="utf-8")
    functions = re.findall(r"^void .*?\)(?=\n\{)", text, re.DOTALL | re.MULTILINE)
    return compiled(_SOURCE, ";\n".join([*functions, ""]), name="elements", flags=("-O3", "-march=native"))


# ---- which forms


class _NotConduction(Exception):
    pass


class _Gradients(MultiFunction):
    """Puts constant vectors in place of the gradients of test and trial function."""

    expr = MultiFunction.reuse_if_untouched

    def __init__(self, vectors: Sequence[Any]) -> None:
        super().__init__()
        self.vectors = vectors

    def grad(self, o: Any) -> Any:
        operand = o.ufl_operands[0]
        return self.vectors[operand.number()] if isinstance(operand, ufl.Argument) else o

    def argument(self, o: Any) -> Any:
        raise _NotConduction


def conductivity(a: ufl.Form) -> Any | None:
    """κ of a form ∫ κ ∇u·∇v dx over all cells, as a UFL scalar; None for every other form."""
    integrals = a.integrals()
    everywhere = ("everywhere", "otherwise")
    if len(a.arguments()) != 2 or any(
        i.integral_type() != "cell" or i.subdomain_id() not in (*everywhere, (everywhere[1],))
        for i in integrals
    ):
        return None
    expanded = ufl.algorithms.expand_derivatives(a)
    d = a.ufl_domains()[0].topological_dimension()
    unit = [ufl.as_vector([float(i == j) for j in range(d)]) for i in range(d)]

    def entry(i: int, j: int) -> Any:
        rule = _Gradients((unit[i], unit[j]))
        parts = [apply_algebra_lowering(part.integrand()) for part in expanded.integrals()]
        parts = [expand_indices(map_expr_dag(rule, part)) for part in parts]
        return sum(parts[1:], parts[0])

    try:
        D = {(i, j): entry(i, j) for i in range(d) for j in range(d)}
    except _NotConduction:
        return None
    if any(D[i, j] != D[0, 0] if i == j else not isinstance(D[i, j], Zero) for i, j in D):
        return None
    return D[0, 0]


class CellValues:
    """A UFL scalar at the midpoint of every cell of a mesh.

    Attributes:
        values: one per local cell after :meth:`update`.
    """

    def __init__(self, mesh: Any, expression: Any) -> None:
        self._dg = fem.Function(fem.functionspace(mesh, ("DG", 0)))
        self.space = self._dg.function_space
        self._constant = float(expression) if isinstance(expression, ScalarValue) else None
        if self._constant is None:
            middle = np.full((1, mesh.topology.dim), 0.5)
            self._expression = fem.Expression(expression, middle, jit_options=jit_options())
        self._cells = self.space.dofmap.list.reshape(-1)

    @property
    def owned(self) -> Array:
        """Values of the degrees of freedom this rank owns."""
        return self._dg.x.array[: self.space.dofmap.index_map.size_local]

    @property
    def by_cell(self) -> Array:
        """Values of this rank's cells."""
        return self._dg.x.array[self._cells]

    def update(self) -> None:
        """Evaluate with the present coefficients."""
        if self._constant is not None:
            self._dg.x.array[:] = self._constant
        else:
            self._dg.interpolate(self._expression)


@dataclass(frozen=True)
class Conduction:
    """A conduction form with linear elements on a regular grid, and what conditions hold of it.

    Attributes:
        cell: the cell.
        V: the space.
        kappa: conductivity, UFL.
        index: grid indices of the nodes this rank owns, shape (owned, d).
        periodic: whether opposite faces are one.
        held: whether the potential of such a node is given.
        fixed: per axis, whether it is given on all of the first and of the last face.
        contacts: for faces where it is given in part, by (axis, side), the voxels all of whose nodes on the
            face are held.
        elsewhere: whether it is given at other nodes too.
    """

    cell: UnitCell
    V: Any
    kappa: Any
    index: Array
    periodic: bool
    held: Array
    fixed: tuple[tuple[bool, bool], ...]
    contacts: dict[tuple[int, int], Array]
    elsewhere: bool

    @property
    def spacing(self) -> Array:
        """Edge lengths of a voxel."""
        assert self.cell.grid is not None
        return np.asarray(self.cell.lengths / np.array(self.cell.grid))


def recognise(a: ufl.Form, bcs: Sequence[Any], cell: UnitCell | None) -> Conduction | None:
    """The problem as conduction on the grid of a cell, if it is one. Collective."""
    if cell is None or cell.grid is None or not cell.complete:
        return None
    arguments = a.arguments()
    V = arguments[0].ufl_function_space()
    element = V.ufl_element()
    linear = element.family_name == "P" and element.degree == 1 and element.reference_value_shape == ()
    if not linear or V.mesh is not cell.mesh or any(arg.ufl_function_space() != V for arg in arguments):
        return None
    n, nodes = np.array(cell.grid), V.dofmap.index_map.size_global
    if nodes not in (np.prod(n), np.prod(n + 1)):
        return None
    kappa = conductivity(a)
    if kappa is None:
        return None
    periodic = bool(nodes == np.prod(n))
    owned, d = V.dofmap.index_map.size_local, cell.dim
    x = V.tabulate_dof_coordinates()[:owned, :d]
    index = np.rint((x - cell.lower) / (cell.lengths / n)).astype(np.int64)
    if periodic:
        index %= n
    held = np.zeros(owned, dtype=bool)
    for bc in bcs:
        dofs = bc.dof_indices()[0]
        held[dofs[dofs < owned]] = True
    on = np.stack([index == 0, index == n], axis=-1) & (not periodic)
    counts = cell.mesh.comm.allreduce((on & held[:, None, None]).sum(axis=0))
    full = np.prod(n + 1) // (n + 1)
    fixed = (counts == full[:, None]) & (not periodic)
    rest = held & ~(on & fixed).any(axis=(1, 2))
    contacts = {}
    for axis, side in np.argwhere(cell.mesh.comm.allreduce((on & rest[:, None, None]).sum(axis=0)) > 0):
        others = [a for a in range(d) if a != axis]
        here = held & on[:, axis, side]
        face = np.zeros(n[others] + 1, dtype=bool)
        face[tuple(index[here][:, others].T)] = True
        cell.mesh.comm.Allreduce(MPI.IN_PLACE, face, op=MPI.LOR)
        corners = [tuple(slice(c, c + m) for c, m in zip(corner, n[others], strict=True))
                   for corner in np.ndindex((2,) * (d - 1))]  # fmt: skip
        voxels = np.all([face[corner] for corner in corners], axis=0)
        covered = np.zeros_like(face)
        for corner in corners:
            covered[corner] |= voxels
        contacts[int(axis), int(side)] = voxels
        rest[here] &= ~covered[tuple(index[here][:, others].T)]
    elsewhere = bool(cell.mesh.comm.allreduce(int(rest.sum())))
    pairs = tuple((bool(first), bool(last)) for first, last in fixed)
    return Conduction(cell, V, kappa, index, periodic, held, pairs, contacts, elsewhere)


# ---- assembly


class ScaledElements:
    """Assembles ∫ κ ∇u·∇v dx with κ constant in each cell: κ times the matrix of one voxel.

    Args:
        problem: what to assemble.
    """

    def __init__(self, problem: Conduction) -> None:
        self.problem = problem
        self.kappa = CellValues(problem.cell.mesh, problem.kappa)
        mesh = problem.cell.mesh
        self._cells = mesh.topology.index_map(mesh.topology.dim).size_local

    @staticmethod
    def suits(problem: Conduction) -> bool:
        """Whether κ is constant in cells, which all have their corners in the same order. Collective."""
        mesh, d = problem.cell.mesh, problem.cell.dim
        alike = is_piecewise_constant(problem.kappa)
        nodes = geometry_dofmap(mesh)[: mesh.topology.index_map(d).size_local]
        if alike and len(nodes):
            x, h = mesh.geometry.x[:, :d], problem.spacing
            first = x[nodes[0]] - x[nodes[0][0]]
            base = x[nodes[:, 0]]
            alike = all(
                np.allclose(x[nodes[:, k]] - base, first[k], rtol=0, atol=1e-6 * h.min())
                for k in range(nodes.shape[1])
            )
        return bool(mesh.comm.allreduce(alike, MPI.LAND))

    def prepare(self, matrix: Any, bcs: Sequence[Any]) -> None:
        """Find the places of the entries in a `dolfinx.la.MatrixCSR`."""
        mesh, V = self.problem.cell.mesh, self.problem.V
        d, indptr, columns = self.problem.cell.dim, matrix.indptr, matrix.indices
        dofs = np.ascontiguousarray(V.dofmap.list[: self._cells], dtype=np.int32)
        self._element: Array = np.zeros((dofs.shape[1],) * 2)
        if self._cells:
            corners = mesh.geometry.x[geometry_dofmap(mesh)[0], :d] - self.problem.cell.lower
            self._element = element_matrix(corners, self.problem.spacing)
        self._position = np.empty((*dofs.shape, dofs.shape[1]), dtype=np.int32)
        ffi, lib = kernel().ffi, kernel().lib
        lib.positions(
            self._cells, dofs.shape[1], ffi.from_buffer("int32_t[]", dofs),
            ffi.from_buffer("int64_t[]", np.ascontiguousarray(indptr, dtype=np.int64)),
            ffi.from_buffer("int32_t[]", np.ascontiguousarray(columns, dtype=np.int32)),
            ffi.from_buffer("int32_t[]", self._position),
        )  # fmt: skip
        # More columns than V has degrees of freedom here: those get their values from other ranks.
        imap, right = V.dofmap.index_map, matrix.index_map(1)
        held = np.zeros(right.size_local + right.num_ghosts, dtype=bool)
        for bc in bcs:
            held[bc.dof_indices()[0]] = True
        rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
        self._held = np.flatnonzero(held[rows] | held[columns])
        diagonal = self._held[rows[self._held] == columns[self._held]]
        self._diagonal = diagonal[rows[diagonal] < imap.size_local]

    def assemble(self, values: Array) -> None:
        """Add to the values of the matrix; rows of ghosts are left to be summed."""
        self.kappa.update()
        factor = np.ascontiguousarray(self.kappa.by_cell[: self._cells])
        ffi, lib = kernel().ffi, kernel().lib
        lib.add_scaled(
            self._cells, self._element.size, ffi.from_buffer("int32_t[]", self._position),
            ffi.from_buffer("double[]", self._element), ffi.from_buffer("double[]", factor),
            ffi.from_buffer("double[]", values),
        )  # fmt: skip
        values[self._held] = 0.0
        values[self._diagonal] = 1.0


def element_matrix(corners: Array, spacing: Array) -> Array:
    """∫ ∇φᵢ·∇φⱼ dx over a voxel with these corners in this order, shape (2^d, 2^d)."""
    corners = np.rint((corners - corners.min(axis=0)) / spacing)
    same = corners[:, None] == corners[None]
    stiffness = np.where(same, 1.0, -1.0) / spacing
    mass = np.where(same, 1 / 3, 1 / 6) * spacing
    d = len(spacing)
    total = np.zeros(same.shape[:2])
    for axis in range(d):
        total += np.prod([stiffness[..., a] if a == axis else mass[..., a] for a in range(d)], axis=0)
    return total
