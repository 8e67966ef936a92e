"""Symmetries: what they leave unchanged, their transpose, and which domains do not have them."""

import itertools

import basix.ufl
import numpy as np
import pytest

from fetopo._compat import create_mesh
from fetopo.design.exchange import Exchange
from fetopo.design.functionals import distance_to
from fetopo.design.initial import cell_positions, random_field
from fetopo.design.model import CellModel
from fetopo.design.regions import midpoints
from fetopo.design.symmetry import Symmetry
from fetopo.microstructure.mesh import regular_cell, to_image
from fetopo.transport.voxel import VoxelGrid

pytestmark = pytest.mark.mpi

#: Shape and kind; odd counts have cells on the planes.
CASES = [
    ((8, 6), "x"),
    ((7, 6), "y"),
    ((8, 5), "xy"),
    ((7, 7), "square"),
    ((8, 8), "square"),
    ((4, 5, 6), "z"),
    ((4, 5, 6), "xz"),
    ((5, 4, 6), "xyz"),
    ((6, 6, 6), "cubic"),
    ((5, 5, 5), "cubic"),
]


def images(array, kind):
    """All images of an array under the group, by NumPy."""
    d = array.ndim
    axes = range(d) if kind in ("square", "cubic") else ["xyz".index(a) for a in kind]
    found = [array]
    for axis in axes:
        found += [np.flip(a, axis) for a in found]
    if kind in ("square", "cubic"):
        found = [a.transpose(p) for a in found for p in itertools.permutations(range(d))]
    return found


def domains(comm, shape):
    return regular_cell(comm, shape), VoxelGrid(comm, shape, 1 / max(shape), periodic=True)


def image_of(domain, values):
    if isinstance(domain, VoxelGrid):
        return domain.gather(values.reshape(domain.own_shape))
    return to_image(domain, values)


def field(domain):
    return random_field(domain, seed=4) + np.sin(
        cell_positions(domain) @ np.array([37.0, 91.0, 53.0])[: domain.dim]
    )


@pytest.mark.parametrize(("shape", "kind"), CASES)
def test_mean_over_the_images(comm, shape, kind):
    for domain in domains(comm, shape):
        S, x = Symmetry(domain, kind), field(domain)
        all_images = images(image_of(domain, x), kind)
        expected = np.mean(all_images, axis=0)
        assert image_of(domain, S.forward(x)) == pytest.approx(expected, abs=1e-12)
        numbered = np.arange(expected.size, dtype=float).reshape(shape)
        orbits = np.unique(np.min(images(numbered, kind), axis=0)).size
        assert S.orbits == orbits


@pytest.mark.parametrize(("shape", "kind"), CASES)
def test_projection_and_transpose(comm, shape, kind):
    for domain in domains(comm, shape):
        S, x = Symmetry(domain, kind), field(domain)
        y = np.cos(3 * x)
        once = S.forward(x)
        assert S.forward(once) == pytest.approx(once, abs=1e-13)
        sums = np.array([y @ once, S.vjp(y) @ x, x.sum(), once.sum()])
        c = domain.blocks.comm if isinstance(domain, VoxelGrid) else comm
        forward, back, before, after = c.allreduce(sums)
        assert forward == pytest.approx(back, rel=1e-12)
        assert before == pytest.approx(after, rel=1e-12, abs=1e-12)


def test_mesh_of_triangles(comm):
    """With all diagonals the same way."""
    cell = regular_cell(comm, (6, 6), cell_type="triangle")
    with pytest.raises(ValueError, match=r"the mesh is not symmetric \('x'\): \d+ cells"):
        Symmetry(cell, "x")
    with pytest.raises(ValueError, match="not symmetric"):
        Symmetry(cell.mesh, "square")


def test_mesh_of_gmsh(comm):
    pytest.importorskip("gmsh", reason="Gmsh's Python module is not installed")
    from fetopo.microstructure.geometry import inclusion_cell

    with pytest.raises(ValueError, match="not symmetric"):
        Symmetry(inclusion_cell(comm, [(0.4, 0.5)], 0.2, mesh_size=0.1), "x")


def test_mirrored_mesh(comm):
    """A mesh of triangles no two of which are alike, and its mirror image: matched by position."""
    n = 6
    i, j = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    x = (i / n + 0.03 * np.sin(5 * j) * np.sin(np.pi * i / n)).reshape(-1)
    y = (j / n + 0.03 * np.sin(7 * i) * np.sin(np.pi * j / n)).reshape(-1)
    points = np.concatenate([np.column_stack([x, y]), np.column_stack([-x, y])])
    number = lambda a, b: a * (n + 1) + b
    cells = [
        triangle
        for a in range(n)
        for b in range(n)
        for triangle in (
            (number(a, b), number(a + 1, b), number(a + 1, b + 1)),
            (number(a, b), number(a, b + 1), number(a + 1, b + 1)),
        )
    ]
    right = np.array(cells)
    left = right + len(x)
    joined = np.concatenate([right, left])
    # Points on the plane are one.
    twin = np.arange(len(points))
    twin[len(x) :][x == 0] = np.flatnonzero(x == 0)
    joined = twin[joined]
    kept, joined = np.unique(joined, return_inverse=True)
    element = basix.ufl.element("Lagrange", "triangle", 1, shape=(2,))
    share = np.array_split(joined.reshape(-1, 3), comm.size)[comm.rank].astype(np.int64)
    own = np.array_split(points[kept], comm.size)[comm.rank]
    mesh = create_mesh(comm, share, own, element)
    S = Symmetry(mesh, "x")
    assert S.orbits == len(right)
    p = midpoints(mesh)
    assert S.forward(p[1]) == pytest.approx(p[1], abs=1e-12)
    assert np.abs(S.forward(p[0])).max(initial=0) < 1e-12
    with pytest.raises(ValueError, match="not symmetric"):
        Symmetry(mesh, "y")


@pytest.mark.parametrize("kind", ["", "z", "xx", "xw", "cubic", "squares"])
def test_kind_refused(comm, kind):
    for domain in domains(comm, (4, 4)):
        with pytest.raises(ValueError, match=f"{kind!r}"):
            Symmetry(domain, kind)


def test_axes_that_differ(comm):
    for domain in domains(comm, (6, 4)):
        with pytest.raises(ValueError, match="axes that change places need the same"):
            Symmetry(domain, "square")
    with pytest.raises(ValueError, match=r"the same voxels: found .* of edges \(1\.0, 2\.0\)"):
        Symmetry(VoxelGrid(comm, (6, 6), (1.0, 2.0)), "square")


def test_model(comm):
    """The density is symmetric, whatever the design variables are; so is the derivative."""
    for domain in domains(comm, (12, 12)):
        model = CellModel(domain, 0.25, symmetry="square")
        x = field(domain)
        model.density.forward(0.5 + 0.4 * np.tanh(x))
        rho = model.image(model.density.values)
        assert np.ptp(images(rho, "square"), axis=0).max() < 1e-6
        assert np.ptp(rho) > 0.01
        state = model.state((0.01, 1.0))
        state.solve()
        assert state.tensor == pytest.approx(state.tensor[0, 0] * np.eye(2), abs=1e-5)
        J = model.tensor_functional(state, distance_to([[0.3, 0.1], [0.1, 0.2]]))
        dual = model.image(model.density.vjp(J.derivative()))
        assert np.ptp(images(dual, "square"), axis=0).max() < 1e-6 * np.abs(dual).max()


def test_exchange(comm):
    """Any value from any rank, more than once or never; the transpose adds up."""
    n = 3 + comm.rank
    starts = np.cumsum([0, *[3 + r for r in range(comm.size)]])
    total = int(starts[-1])
    wanted = (np.arange(7) * (comm.rank + 2)) % total
    owner = np.searchsorted(starts, wanted, side="right") - 1
    E = Exchange(comm, n, owner, wanted - starts[owner])
    values = np.arange(starts[comm.rank], starts[comm.rank] + n, dtype=float)
    assert np.array_equal(E.forward(values), wanted)
    counts = comm.allreduce(np.bincount(wanted, minlength=total))
    assert np.array_equal(E.transpose(np.ones(7)), counts[starts[comm.rank] : starts[comm.rank + 1]])
