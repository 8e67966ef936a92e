"""Conduction with linear elements on a regular grid: assembly without quadrature, multigrid of the voxels.

A mesh whose cells are voxels has elements that are all alike but for their conductivity, and a hierarchy of
coarser grids for nothing. :class:`ScaledElements` assembles its matrix, :class:`GridMultigrid` preconditions
it; :func:`conductivity` says whether a form is one of those.
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
from petsc4py import PETSc
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
from fetopo.transport.voxel import VoxelGrid
from fetopo.transport.voxel.blocks import Blocks
from fetopo.transport.voxel.operators import Operator

Array = npt.NDArray[Any]
#: Conductivity of a contact, relative to the largest there is.
CONTACT = 1e3

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


# ---- multigrid


class GridMultigrid:
    """A cycle of the voxels' multigrid as a PETSc preconditioner (`pc_type python`).

    The matrix stays the one that was assembled: it decides what is solved, this only how fast. Where the
    potential is given on a part of a face, the grid gets a layer of voxels beyond it: good conductors in
    front of that part, insulators elsewhere, and the potential given behind them.

    Args:
        problem: conduction that :meth:`suits`.
    """

    def __init__(self, problem: Conduction) -> None:
        cell, d = problem.cell, problem.cell.dim
        comm = cell.mesh.comm
        #: Whether the potential is given on parts of faces.
        self.contacts = bool(problem.contacts)
        layers, grid = _layered(problem)
        given = np.array(problem.fixed) | (layers > 0)
        self.operator = Operator(grid, "elements", fixed=[(bool(a), bool(b)) for a, b in given])
        self.kappa = CellValues(cell.mesh, problem.kappa)
        cells = self.kappa.space.tabulate_dof_coordinates()[: len(self.kappa.owned), :d]
        voxels = ((cells - cell.lower) / problem.spacing).astype(np.int64) + layers[:, 0]
        self._voxels = _Exchange(comm, np.arange(len(voxels)), voxels, len(voxels), grid.blocks)
        at = problem.index + layers[:, 0]
        inside = (at >= given[:, 0]) & (at <= np.array(grid.shape) - given[:, 1])
        free = inside.all(axis=1) & ~problem.held
        self._nodes = _Exchange(
            comm, np.flatnonzero(free), (at - given[:, 0])[free], len(at), self.operator.blocks
        )
        whole = np.zeros(grid.shape, dtype=bool)
        for (axis, side), contact in problem.contacts.items():
            place: list[Any] = [slice(a, m - b) for (a, b), m in zip(layers, grid.shape, strict=True)]
            place[axis] = -side
            whole[tuple(place)] = contact
        self._contacts = whole[grid.own]
        # Lengths of the operator are relative to the longest edge of a voxel.
        self._unit = float(problem.spacing.max()) ** (d - 2)
        self._scale = 1.0
        self._products = np.zeros(1)

    @staticmethod
    def suits(problem: Conduction) -> bool:
        """Whether potentials are given on faces or parts of them, and voxels enough for the ranks."""
        return not problem.elsewhere and not (problem.cell.mesh.comm.size > 1 and _layered(problem)[1].alone)

    def update(self) -> None:
        """Build the hierarchy of the present conductivity. Collective."""
        self.kappa.update()
        comm = self.operator.voxels.comm
        values = self._voxels.to_block(self.kappa.owned).reshape(self._contacts.shape)
        largest = comm.allreduce(float(values.max(initial=0.0)), MPI.MAX)
        # Levels are kept in single precision.
        largest = largest if 0 < largest < np.inf else 1.0
        self._scale = 1 / (largest * self._unit)
        self.operator.assign(np.where(self._contacts, CONTACT, values / largest))

    def apply(self, pc: Any, x: Any, y: Any) -> None:
        """y ≈ A⁻¹x; called by PETSc."""
        x.copy(y)
        size = x.norm(PETSc.NormType.INFINITY)
        if size == 0:
            return
        level = self.operator.level
        b = level.array("b")[0, 1:-1, 1:-1, 1:-1]
        np.multiply(self._nodes.to_block(x).reshape(b.shape), 1 / size, out=b, casting="same_kind")
        self.operator.hierarchy.cycle(self._products)
        found = level.array("x")[0, 1:-1, 1:-1, 1:-1] * np.float64(size * self._scale)
        self._nodes.from_block(found.reshape(-1), y)

    #: The cycle is symmetric.
    applyTranspose = apply


def _layered(problem: Conduction) -> tuple[Array, VoxelGrid]:
    """Layers of voxels to add at both ends of each axis, shape (d, 2), and the grid with them."""
    assert problem.cell.grid is not None
    layers = np.zeros((problem.cell.dim, 2), dtype=np.int64)
    for face in problem.contacts:
        layers[face] = 1
    shape = [int(m) for m in np.array(problem.cell.grid) + layers.sum(axis=1)]
    edges = [float(h) for h in problem.spacing]
    return layers, VoxelGrid(problem.cell.mesh.comm, shape, edges, periodic=problem.periodic)


class _Exchange:
    """Values of owned degrees of freedom to the blocks of a grid and back.

    Args:
        owned: local numbers of the degrees of freedom that are on the grid.
        index: where each is, shape (…, d).
        size: how many this rank owns.
        blocks: distribution of the grid.
    """

    def __init__(self, comm: MPI.Comm, owned: Array, index: Array, size: int, blocks: Blocks) -> None:
        flat = 3 - index.shape[1]
        index = np.concatenate([np.zeros((len(index), flat), dtype=np.int64), index], axis=1)
        at = [np.searchsorted(b, i, side="right") - 1 for b, i in zip(blocks.bounds, index.T, strict=True)]
        parts = [blocks.of(rank) for rank in range(comm.size)]
        first = np.array([[s.start for s in part] for part in parts])
        shape = np.array([[s.stop - s.start for s in part] for part in parts])
        begin = np.concatenate([[0], np.cumsum(shape.prod(axis=1))])
        rank = np.ravel_multi_index(at, blocks.parts)
        i, j, k = (index - first[rank]).T
        place = begin[rank] + (i * shape[rank, 1] + j) * shape[rank, 2] + k
        self._block = PETSc.Vec().createMPI((shape[comm.rank].prod(), begin[-1]), comm=comm)
        self._own = PETSc.Vec().createMPI((size, PETSc.DECIDE), comm=comm)
        start = self._own.getOwnershipRange()[0]
        sets = [PETSc.IS().createGeneral(v.astype(PETSc.IntType), comm=comm) for v in (owned + start, place)]
        self._scatter = PETSc.Scatter().create(self._own, sets[0], self._block, sets[1])

    def to_block(self, values: Any) -> Array:
        """Values of this rank's block; the array is used again. Collective."""
        if isinstance(values, np.ndarray):
            self._own.array[:] = values
            values = self._own
        # Places that belong to no degree of freedom.
        self._block.set(0.0)
        self._scatter.scatter(values, self._block, PETSc.InsertMode.INSERT, PETSc.ScatterMode.FORWARD)
        return np.asarray(self._block.array)

    def from_block(self, values: Array, into: Any) -> None:
        """Values of the block into a PETSc vector; entries that are not on the grid stay. Collective."""
        self._block.array[:] = values
        self._scatter.scatter(self._block, into, PETSc.InsertMode.INSERT, PETSc.ScatterMode.REVERSE)
