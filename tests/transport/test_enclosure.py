"""Guaranteed intervals: they contain what is known exactly, narrow at the rates of theory, and can fail."""

from dataclasses import replace

import numpy as np
import pytest
from dolfinx import fem
from dolfinx import mesh as dmesh
from hypothesis import given, settings
from hypothesis import strategies as st

from fetopo.microstructure.mesh import UnitCell, regular_cell, voxel_cell
from fetopo.transport.adaptive import enclose_adaptively, mark, refine_cell
from fetopo.transport.enclosure import enclose
from fetopo.transport.interval import between, flux_bound
from fetopo.transport.periodic import periodic_space

KINDS = ["triangle", "quadrilateral", "tetrahedron", "hexahedron"]


def square(x):
    return np.where((np.abs(x[:, :2] - 0.5) < 0.25).all(axis=1), 2, 1)


def checkerboard(x):
    return np.where((x[:, 0] < 0.5) ^ (x[:, 1] < 0.5), 2, 1)


def layers(x):
    return np.where(x[:, 0] < 0.5, 1, 2)


def tagged(comm, n, kind, where):
    dim = 2 if kind in ("triangle", "quadrilateral") else 3
    shape = (n, n) if dim == 2 else (n, n, 2)
    cell = regular_cell(comm, shape, (1.0,) * dim, kind)
    index = cell.cell_tags.indices
    middle = dmesh.compute_midpoints(cell.mesh, dim, index)
    return replace(cell, cell_tags=dmesh.meshtags(cell.mesh, dim, index, where(middle).astype(np.int32)))


def obnosov(k):
    """Square inclusion of side 1/2 in the unit square, and its insulating limit."""
    return np.sqrt((1 + 3 * k) / (3 + k))


def exact(where, k1, k2, dim):
    if where is layers:
        harmonic = 0.0 if 0 in (k1, k2) else 2 / (1 / k1 + 1 / k2)
        return np.diag([harmonic] + [(k1 + k2) / 2] * (dim - 1))
    in_plane = np.sqrt(k1 * k2) if where is checkerboard else k1 * obnosov(k2 / k1)
    share = 0.5 if where is checkerboard else 0.25
    out = [(1 - share) * k1 + share * k2] * (dim - 2)
    return np.diag([in_plane] * 2 + out)


@pytest.mark.mpi
class TestContains:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        ("where", "k1", "k2"),
        [
            (layers, 1.0, 20.0),
            (layers, 1.0, 0.0),
            (square, 1.0, 10.0),
            (square, 1.0, 0.0),
            (square, 1.0, 1e6),
            (checkerboard, 1.0, 10.0),
            (checkerboard, 3.0, 300.0),
        ],
    )
    def test_exact_tensor(self, comm, kind, where, k1, k2):
        cell = tagged(comm, 8, kind, where)
        found = enclose(cell, {1: k1, 2: k2})
        D = exact(where, k1, k2, cell.dim)
        assert found.contains(D)
        assert found.contains(found.best_estimate)
        # The solver takes next to nothing off the bound.
        assert found.imbalance < 1e-7 * max(k1, k2)
        if where is layers:
            assert np.abs(found.upper_bound - found.lower_bound).max() < 1e-7 * D.max()
        else:
            assert not found.contains(1.2 * found.upper_bound)
            assert not found.contains(0.8 * found.lower_bound)

    @pytest.mark.parametrize("kind", KINDS)
    def test_between_two_faces(self, comm, kind):
        """By symmetry the square has the same conductivity between two faces as in a periodic cell."""
        cell = tagged(comm, 8, kind, square)
        for axis in (0, 1):
            found = enclose(cell, {1: 2.0, 2: 20.0}, axis=axis)
            assert found.lower_bound.shape == (1, 1)
            assert found.contains(2 * obnosov(10))
            assert found.width < 0.05

    def test_nothing_gets_through(self, comm):
        for kind in ("triangle", "quadrilateral"):
            found = enclose(tagged(comm, 8, kind, square), {1: 0.0, 2: 1.0})
            assert found.contains(np.zeros((2, 2)))
            assert np.abs(found.lower_bound).max() <= found.upper_bound.max() + 1e-9

    def test_tensors_on_simplices(self, comm):
        """Layers of anisotropic material, whose effective tensor is known in closed form."""
        K = [np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([[5.0, -1.0], [-1.0, 4.0]])]
        n = 1 / np.mean([1 / k[0, 0] for k in K])
        m = n * np.mean([k[0, 1] / k[0, 0] for k in K])
        t = np.mean([k[1, 1] - k[0, 1] ** 2 / k[0, 0] for k in K]) + m**2 / n
        found = enclose(tagged(comm, 4, "triangle", layers), {1: K[0], 2: K[1]})
        assert found.contains([[n, m], [m, t]], 1e-9)
        assert found.width < 1e-8

    def test_own_dual(self, comm):
        """In 2D the lower bound is the upper bound of the inverse: the checkerboard's middle is exact."""
        found = enclose(tagged(comm, 8, "triangle", checkerboard), {1: 1.0, 2: 100.0})
        assert np.abs(found.best_estimate - 10 * np.eye(2)).max() < 1e-7
        turned = enclose(tagged(comm, 8, "triangle", checkerboard), {1: 1.0, 2: 0.01})
        assert found.lower_bound[0, 0] == pytest.approx(1 / turned.upper_bound[1, 1], rel=1e-7)

    def test_polygons_in_a_square_array(self, comm):
        """Discs as polygons: their own interval holds the bounds of inscribed and circumscribed discs."""
        pytest.importorskip("gmsh", reason="Gmsh's Python module is not installed")
        from fetopo.microstructure.geometry import inclusion_cell

        cell = inclusion_cell(comm, [(0.5, 0.5)], (0.5 / np.pi) ** 0.5, mesh_size=0.03)
        for k, D in ((0.0, 0.3246545), (10.0, 2.4154674)):
            found = enclose(cell, {"matrix": 1.0, "inclusion": k})
            # The polygon has a little less area: the exact value of the disc is a little off the interval's.
            assert found.width < 0.02
            assert found.best_estimate[0, 0] == pytest.approx(D, rel=6e-3)
            assert found.lower_bound[0, 0] < found.upper_bound[0, 0]


@pytest.mark.mpi
class TestBound:
    @pytest.mark.parametrize("kind", ["triangle", "quadrilateral"])
    @pytest.mark.parametrize("rtol", [1e-1, 1e-2, 1e-4])
    def test_holds_whatever_the_solver_leaves(self, comm, kind, rtol):
        cell = tagged(comm, 12, kind, square)
        for axis in (None, 0):
            found = enclose(cell, {1: 1.0, 2: 10.0}, axis=axis, petsc_options={"ksp_rtol": rtol})
            assert found.contains(obnosov(10) * np.eye(len(found.lower_bound)))
            assert found.imbalance > 0

    def test_needs_the_imbalance(self):
        """Without what is unbalanced taken off, a flux that is no solution would pass for a bound."""
        M, C = np.array([[2.0]]), np.array([[1.0]])
        assert flux_bound(M, C, np.zeros(1))[0, 0] == pytest.approx(4)
        assert flux_bound(M, C, np.array([0.9]))[0, 0] <= (2 - 0.9) ** 2

    def test_local_gaps_add_up(self, comm):
        """Σ gap = |Y| tr(D_upper − 2M + C), and for the exact flux M = C = D_lower (Prager and Synge)."""
        found = enclose(tagged(comm, 8, "triangle", square), {1: 1.0, 2: 10.0})
        owned = found.gap.function_space.dofmap.index_map.size_local
        total = comm.allreduce(found.gap.x.array[:owned].sum())
        assert total == pytest.approx(np.trace(found.upper_bound - found.lower_bound), rel=1e-6)
        assert found.gap.x.array.min() >= 0

    @pytest.mark.parametrize("kind", ["triangle", "quadrilateral"])
    def test_narrows(self, comm, kind):
        """Order 2s at a corner with exponent s; for the square with k = 10, s = 0.71."""
        widths = [enclose(tagged(comm, n, kind, square), {1: 1.0, 2: 10.0}).width for n in (8, 16, 32)]
        order = np.log2(widths[1] / widths[2])
        assert order == pytest.approx(2 * corner_exponent(10), abs=0.05)

    def test_same_on_one_rank(self, comm, alone):
        for kind in ("triangle", "quadrilateral"):
            here, there = (enclose(tagged(c, 8, kind, square), {1: 1.0, 2: 10.0}) for c in (comm, alone))
            assert np.abs(here.lower_bound - there.lower_bound).max() < 1e-8
            assert np.abs(here.upper_bound - there.upper_bound).max() < 1e-8


def corner_exponent(k):
    """Smallest s with u ~ rˢ at a right-angled corner of conductivity k in a matrix of 1."""
    from scipy.optimize import brentq

    ratio = (k - 1) / (k + 1)
    return (
        brentq(lambda s: np.sin(s * np.pi / 2) * ratio - np.sin(s * np.pi), 1e-3, 1 - 1e-9) if k > 1 else 1.0
    )


@pytest.mark.mpi
class TestAdaptive:
    def test_regains_the_rate(self, comm):
        """A checkerboard with k = 10: uniform meshes gain little, adapted ones N⁻¹."""
        steps = enclose_adaptively(
            tagged(comm, 8, "triangle", checkerboard), {1: 1.0, 2: 10.0}, width=8e-3, max_cells=20_000
        )
        assert steps[-1].enclosure.width < 8e-3
        assert all(step.enclosure.contains(np.sqrt(10) * np.eye(2)) for step in steps)
        last = [s for s in steps if s.cells > 1000]
        slope = np.polyfit(np.log([s.cells for s in last]), np.log([s.enclosure.width for s in last]), 1)[0]
        assert slope < -0.9
        coarse, fine = (
            enclose(tagged(comm, n, "triangle", checkerboard), {1: 1.0, 2: 10.0}).width for n in (16, 32)
        )
        uniform = np.log(fine / coarse) / np.log(4)
        assert uniform > -0.45

    def test_insulating_square_between_faces(self, comm):
        steps = enclose_adaptively(tagged(comm, 8, "triangle", square), {1: 1.0, 2: 0.0}, axis=0, width=5e-3)
        assert all(step.enclosure.contains(obnosov(0)) for step in steps)
        assert steps[-1].cells < 2500

    @pytest.mark.parametrize("kind", ["triangle", "tetrahedron"])
    def test_faces_stay_alike_and_tags_go_over(self, comm, kind):
        """Cells at one face are refined twice: the face across must follow."""
        dim = 2 if kind == "triangle" else 3
        cell = tagged(comm, 4, kind, square)
        for _ in range(2):
            tdim = cell.mesh.topology.dim
            imap = cell.mesh.topology.index_map(tdim)
            index = np.arange(imap.size_local + imap.num_ghosts, dtype=np.int32)
            middle = dmesh.compute_midpoints(cell.mesh, tdim, index)
            cell = refine_cell(cell, (middle[:, 0] < 0.2) & (middle[:, 1] > 0.4))
            V = fem.functionspace(cell.mesh, ("Lagrange", 1))
            periodic_space(V, cell.lower, cell.upper)
        index = cell.cell_tags.indices
        assert np.array_equal(cell.cell_tags.values, square(dmesh.compute_midpoints(cell.mesh, dim, index)))
        volume = fem.assemble_scalar(fem.form(fem.Constant(cell.mesh, 1.0) * _dx(cell)))
        assert comm.allreduce(volume) == pytest.approx(1, rel=1e-12)

    def test_marks_the_fewest(self, comm, alone):
        cell = tagged(comm, 4, "triangle", square)
        owned = cell.mesh.topology.index_map(2).size_local
        first = comm.exscan(owned) or 0
        gap = np.zeros(len(cell.cell_tags.values))
        gap[:owned] = 2.0 ** -np.arange(first, first + owned)
        chosen = mark(cell, gap, 0.9)[:owned]
        assert comm.allreduce(int(chosen.sum())) == 4  # 1 + ½ + ¼ + ⅛ of 2

    @pytest.mark.parametrize("fraction", [0.0, 1.5])
    def test_refused(self, comm, fraction):
        with pytest.raises(ValueError, match=rf"fraction {fraction}"):
            enclose_adaptively(tagged(comm, 4, "triangle", square), {1: 1.0, 2: 2.0}, fraction=fraction)
        with pytest.raises(NotImplementedError, match="found quadrilateral"):
            enclose_adaptively(tagged(comm, 4, "quadrilateral", square), {1: 1.0, 2: 2.0})


def _dx(cell):
    import ufl

    return ufl.Measure("dx", domain=cell.mesh)


@pytest.mark.mpi
class TestVoxels:
    def test_islands_and_rods(self, comm):
        """Regions that lead nowhere, and two rods that do, in one periodic image."""
        image = np.zeros((6, 6, 5), dtype=np.int32)
        image[:, 1, 1] = image[:, 4, 3] = 1
        image[2:4, 2:4, 0] = image[0, 3, 4] = 1
        found = enclose(voxel_cell(comm, image), {0: 0.0, 1: 3.0})
        D = np.diag([3.0 * 2 / 30, 0, 0])
        assert np.abs(found.lower_bound - D).max() < 1e-8
        assert found.contains(D, 1e-8)

    def test_many_phases_between_faces(self, comm):
        """Layers of unequal conductivity and flat voxels."""
        image = np.broadcast_to(np.array([1, 2, 3, 3])[:, None, None], (4, 3, 2)).copy()
        cell = voxel_cell(comm, image, (1e-6, 2e-6, 3e-6))
        found = enclose(cell, {1: 1.0, 2: 10.0, 3: 0.1}, axis=0)
        assert found.lower_bound[0, 0] == pytest.approx(4 / (1 + 0.1 + 20), rel=1e-9)
        assert found.upper_bound[0, 0] == pytest.approx(4 / (1 + 0.1 + 20), rel=1e-9)

    def test_refused(self, comm):
        cell = voxel_cell(comm, np.pad(np.ones((2, 2), dtype=int), 1))
        with pytest.raises(ValueError, match="connects the faces of axis 0"):
            enclose(cell, {0: 0.0, 1: 1.0}, axis=0)
        with pytest.raises(ValueError, match="axis 2 is out of range"):
            enclose(cell, {0: 1.0, 1: 1.0}, axis=2)
        with pytest.raises(NotImplementedError, match="numbers"):
            enclose(cell, {0: np.eye(2), 1: 1.0})
        bare = UnitCell(cell.mesh, cell.cell_tags, cell.lower, cell.upper)
        with pytest.raises(NotImplementedError, match="no flux in exact balance on quadrilateral"):
            enclose(bare, {0: 1.0, 1: 1.0})


class TestBetween:
    @settings(max_examples=50, deadline=None)
    @given(st.integers(0, 10_000), st.floats(0, 1))
    def test_never_outside(self, seed, weight):
        rng = np.random.default_rng(seed)
        a, b = rng.normal(size=(2, 3, 3))
        A = a @ a.T
        B = A + b @ b.T
        M = between(A, B, weight)
        assert np.linalg.eigvalsh(M - A).min() > -1e-9 * np.trace(B)
        assert np.linalg.eigvalsh(B - M).min() > -1e-9 * np.trace(B)

    def test_numbers(self):
        assert between(1.0, 4.0) == pytest.approx(2)
        assert between(1.0, 4.0, 0.0) == pytest.approx(1)
        assert between(0.0, 0.0) == 0
        assert between(-1e-15, 1.0) == 0
