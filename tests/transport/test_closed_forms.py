"""Effective conductivities with a formula: neutral inclusions, corners, duality, laminates, rates."""

import numpy as np
import pytest
import ufl
from dolfinx import fem
from dolfinx import mesh as dmesh

from fetopo.microstructure.mesh import UnitCell, regular_cell, voxel_cell
from fetopo.transport.bounds import hashin_shtrikman
from fetopo.transport.homogenization import CellProblem, effective_conductivity
from fetopo.transport.state import global_sum

pytestmark = pytest.mark.mpi


def graded_cell(comm, n, power, phase, kind="quadrilateral"):
    """Unit square whose cells shrink towards the multiples of 1/2 as the distance to the `power`."""
    cell = regular_cell(comm, (n, n), (1.0, 1.0), kind)
    middle = dmesh.compute_midpoints(cell.mesh, 2, np.arange(len(cell.cell_tags.values), dtype=np.int32))
    tags = dmesh.meshtags(cell.mesh, 2, cell.cell_tags.indices, phase(middle).astype(np.int32))
    x = cell.mesh.geometry.x
    steps, rest = np.divmod(4 * x[:, :2], 1)
    # Four quarters: towards the lower end in the even ones, towards the upper end in the odd ones.
    x[:, :2] = (steps + np.where(steps % 2 == 0, rest**power, 1 - (1 - rest) ** power)) / 4
    return UnitCell(cell.mesh, tags, cell.lower, cell.upper)


def checkerboard(x):
    return (x[:, 0] > 0.5) ^ (x[:, 1] > 0.5)


def quarter(x):
    return (x[:, 0] < 0.5) & (x[:, 1] < 0.5)


class TestCorners:
    def errors(self, comm, phase, k, exact, sizes, power, degree=1):
        found = []
        for n in sizes:
            D = effective_conductivity(
                graded_cell(comm, n, power, phase), {0: 1.0, 1: k}, degree=degree
            ).tensor
            found.append(float(D[0, 0] / exact - 1))
        return found

    @pytest.mark.parametrize("degree", [1, 2])
    @pytest.mark.parametrize("k", [4.0, 100.0])
    def test_checkerboard_is_slow_on_uniform_meshes(self, comm, k, degree):
        """Energy converges as h^2λ, λ = (4/π) arctan k^(−1/2), whatever the degree: √(k₁k₂) from above."""
        errors = self.errors(comm, checkerboard, k, k**0.5, (16, 32, 64), 1, degree)
        rate = 8 / np.pi * np.arctan(k**-0.5)
        found = np.log2(errors[1] / errors[2])
        assert errors[2] > 0
        assert found == pytest.approx(rate, abs=0.12 if k == 4 else 0.2)

    def test_checkerboard_repaired(self, comm):
        """Graded with a power above 1/λ the full order of the degree returns."""
        linear = self.errors(comm, checkerboard, 4.0, 2.0, (16, 32, 64), 3)
        assert np.log2(linear[1] / linear[2]) == pytest.approx(2, abs=0.1)
        quadratic = self.errors(comm, checkerboard, 4.0, 2.0, (8, 16, 32), 4, 2)
        assert np.log2(quadratic[1] / quadratic[2]) > 3.5
        assert 0 < quadratic[2] < 1e-4

    @pytest.mark.parametrize("k", [0.0, 0.1, 10.0, np.inf])
    def test_square_inclusion(self, comm, k):
        """Obnosov: √((1 + 3k)/(3 + k)) for a square of half the cell's side, 1e-4 on a graded mesh."""
        exact = 3**0.5 if k == np.inf else ((1 + 3 * k) / (3 + k)) ** 0.5
        assert self.errors(comm, quarter, k, exact, (64,), 1)[0] > 1e-4
        assert abs(self.errors(comm, quarter, k, exact, (32,), 4, 2)[0]) < 1e-4


class TestDuality:
    """Keller (1964), Mendelson (1975): D(k₂, k₁) = k₁ k₂ Rᵀ D(k₁, k₂)⁻¹ R with the quarter turn R, in 2D."""

    def gap(self, D, interchanged, product):
        R = np.array([[0.0, -1.0], [1.0, 0.0]])
        dual = product * R.T @ np.linalg.inv(D) @ R
        return float(np.abs(interchanged / dual - 1)[np.diag_indices(2)].max())

    def test_any_image(self, comm):
        image = np.random.default_rng(7).integers(0, 2, (6, 6))
        gaps = []
        for n in (2, 4, 8):
            cell = voxel_cell(comm, np.kron(image, np.ones((n, n), int)))
            D, swapped = (
                effective_conductivity(cell, dict(enumerate(k)), degree=2).tensor
                for k in ((1.0, 3.0), (3.0, 1.0))
            )
            gaps.append(self.gap(D, swapped, 3.0))
        assert gaps[0] > 1.8 * gaps[1] > 1.8**2 * gaps[2] > 0
        assert gaps[2] < 2e-3

    def test_discs(self, comm):
        pytest.importorskip("gmsh", reason="Gmsh's Python module is not installed")
        from fetopo.microstructure.geometry import accurate_sizes, inclusion_cell

        balls = {"centers": [(0.3, 0.3), (0.62, 0.8)], "radii": [0.25, 0.15]}
        cell = inclusion_cell(comm, **balls, **accurate_sizes(**balls))
        pairs = [((1.0, 50.0), (50.0, 1.0), 50.0), ((1.0, 0.0), (1.0, np.inf), 1.0)]
        for one, other, product in pairs:
            D, swapped = (
                effective_conductivity(cell, {"matrix": k[0], "inclusion": k[1]}, degree=2).tensor
                for k in (one, other)
            )
            assert self.gap(D, swapped, product) < 2e-4


class TestNeutralInclusions:
    """Hashin: a coated ball in a matrix of its own effective conductivity changes nothing outside."""

    @pytest.mark.parametrize(
        ("dim", "core", "shell"),
        [(2, 10.0, 1.0), (2, 0.0, 3.0), (2, np.inf, 1.0), (2, 0.1, 2.0), (3, 10.0, 1.0)]
        + [pytest.param(3, *k, marks=pytest.mark.slow) for k in ((0.0, 3.0), (np.inf, 1.0), (0.1, 2.0))],
    )
    def test_coated(self, comm, dim, core, shell):
        pytest.importorskip("gmsh", reason="Gmsh's Python module is not installed")
        from fetopo.microstructure.geometry import gmsh_cell

        inner, outer, size = 0.25, 0.4, 0.05 if dim == 2 else 0.13

        def build(model):
            occ = model.occ
            at = (0.5,) * dim + (0.0,) * (3 - dim)
            if dim == 2:
                box = occ.addRectangle(0, 0, 0, 1, 1)
                balls = [occ.addDisk(*at, r, r) for r in (outer, inner)]
            else:
                box = occ.addBox(0, 0, 0, 1, 1, 1)
                balls = [occ.addSphere(*at, r) for r in (outer, inner)]
            occ.fragment([(dim, box)], [(dim, ball) for ball in balls])
            occ.synchronize()
            # By their volumes: the core, the shell, the matrix.
            tags = sorted((tag for _, tag in model.getEntities(dim)), key=lambda tag: occ.getMass(dim, tag))
            names = {"core": None, "shell": None, "matrix": None}
            unit = np.pi if dim == 2 else 4 * np.pi / 3
            volumes = {"core": unit * inner**dim, "shell": unit * (outer**dim - inner**dim)}
            volumes["matrix"] = 1 - unit * outer**dim
            for number, name in enumerate(names, start=1):
                tag = min(tags, key=lambda tag: abs(occ.getMass(dim, tag) - volumes[name]))
                model.addPhysicalGroup(dim, [tag], number, name)

        cell = gmsh_cell(comm, build, mesh_size=size, order=2, periodic=True)
        f = (inner / outer) ** dim
        beta = 1.0 if core == np.inf else (core - shell) / (core + (dim - 1) * shell)
        neutral = shell * (1 + (dim - 1) * beta * f) / (1 - beta * f)
        k = {"core": core, "shell": shell, "matrix": neutral}
        for boundary in ("periodic", "linear", "uniform_flux"):
            result = effective_conductivity(cell, k, boundary=boundary, degree=2)
            assert np.abs(result.tensor / neutral - np.eye(dim)).max() < (2e-5 if dim == 2 else 2e-3)
        if boundary == "uniform_flux" and core > 0:
            # Outside the field is the one applied.
            problem = result.problem
            field = problem.local_fields()[0] - ufl.as_vector([1.0] + [0.0] * (dim - 1))
            outside = fem.Function(fem.functionspace(cell.mesh, ("DG", 0)))
            outside.x.array[cell.cell_tags.find(cell.tag("matrix"))] = 1
            off = global_sum(fem.form(outside * ufl.inner(field, field) * ufl.dx)) ** 0.5
            assert off < (2e-3 if dim == 2 else 3e-2)


def test_rank_2_laminate_attains_the_bound(comm):
    """Two thirds of k₁ in layers across x with k₂, and those in equal layers across y with k₂ again."""
    k1, k2 = 1.0, 20.0
    first = voxel_cell(comm, np.repeat(np.array([0, 0, 1])[:, None], 2, axis=1))
    inner = effective_conductivity(first, {0: k1, 1: k2}).tensor
    second = voxel_cell(comm, np.repeat(np.array([0, 1])[None, :], 2, axis=0))
    D = effective_conductivity(second, {0: inner, 1: k2}).tensor
    bound = hashin_shtrikman([1 / 3, 2 / 3], [k1, k2], 2)[1]
    assert np.abs(D - bound * np.eye(2)).max() < 1e-8


class TestRates:
    """κ = a(x) b(y): the corrector of direction x depends on x alone, χ′ = 1/(a ⟨1/a⟩) − 1."""

    @pytest.mark.parametrize("degree", [1, 2])
    @pytest.mark.parametrize(
        ("kind", "sizes"),
        [
            ("quadrilateral", (16, 32)),
            ("triangle", (16, 32)),
            ("hexahedron", (12, 24)),
            ("tetrahedron", (12, 24)),
        ],
    )
    def test_manufactured(self, comm, kind, sizes, degree):
        dim = 2 if kind in ("quadrilateral", "triangle") else 3
        gradients, tensors = [], []
        for n in sizes:
            cell = regular_cell(comm, (n, n) if dim == 2 else (n, n, 1), (1.0,) * dim, kind)
            x = ufl.SpatialCoordinate(cell.mesh)
            a = 1 + 0.5 * ufl.sin(2 * ufl.pi * x[0])
            b = 1 + 0.6 * ufl.cos(2 * ufl.pi * x[1])
            problem = CellProblem(cell, a * b, degree=degree)
            D = problem.solve()
            exact = ufl.as_vector([0.75**0.5 / a] + [0.0] * (dim - 1))
            off = problem.local_fields()[0] - exact
            gradients.append(global_sum(fem.form(ufl.inner(off, off) * ufl.dx)) ** 0.5)
            tensors.append(np.diag(D)[:2] - [0.75**0.5, 0.8])
        assert np.log2(gradients[0] / gradients[1]) == pytest.approx(degree, abs=0.12)
        assert np.log2(tensors[0] / tensors[1]) == pytest.approx(2 * degree, abs=0.35)
        assert (tensors[1] > 0).all()
