"""Conditions on the faces of a cell, perfect conductors, resistive interfaces: ordering, limits, layers."""

from itertools import pairwise

import numpy as np
import pytest
import ufl
from dolfinx import fem

from fetopo.microstructure.mesh import UnitCell, regular_cell, voxel_cell
from fetopo.microstructure.mesh.cell import _tag_all
from fetopo.transport.homogenization import CellProblem, conductivity_field, effective_conductivity

BOUNDARIES = ("uniform_flux", "periodic", "mixed", "linear")
KINDS = [("quadrilateral", 2), ("triangle", 2), ("hexahedron", 3), ("tetrahedron", 3)]


def tagged(comm, shape, kind, phase, lengths=None):
    """A regular cell whose phases a function of the midpoints gives."""
    from dolfinx import mesh as dmesh

    cell = regular_cell(comm, shape, lengths, kind)
    d = cell.dim
    here = _tag_all(cell.mesh, 1).indices
    middle = dmesh.compute_midpoints(cell.mesh, d, here)
    tags = dmesh.meshtags(cell.mesh, d, here, phase(middle).astype(np.int32))
    return UnitCell(cell.mesh, tags, cell.lower, cell.upper, {"matrix": 0, "inclusion": 1})


def blocks(dim):
    def phase(x):
        inside = np.all((x[:, :dim] > 0.2) & (x[:, :dim] < 0.6), axis=1)
        return inside | ((x[:, 0] > 0.7) & (x[:, 1] < 0.3))

    return phase


def solve_all(cell, k, **options):
    return {b: effective_conductivity(cell, k, boundary=b, **options) for b in BOUNDARIES}


@pytest.mark.mpi
class TestConditions:
    @pytest.mark.parametrize(("kind", "dim"), KINDS)
    @pytest.mark.parametrize("degree", [1, 2])
    @pytest.mark.parametrize("inner", [0.05, 20.0])
    def test_ordered_on_one_mesh_and_hill_mandel(self, comm, kind, dim, degree, inner):
        cell = tagged(comm, (10, 10) if dim == 2 else (5, 5, 5), kind, blocks(dim))
        found = solve_all(cell, {"matrix": 1.0, "inclusion": inner}, degree=degree)
        flux, periodic, mixed, linear = (found[b].tensor for b in BOUNDARIES)
        assert np.linalg.eigvalsh(periodic - flux).min() > 1e-6
        assert np.linalg.eigvalsh(linear - periodic).min() > 1e-6
        assert (np.diag(mixed) <= np.diag(linear) + 1e-9).all()
        assert (np.diag(mixed) >= 1 / np.diag(np.linalg.inv(flux)) - 1e-9).all()
        for result in found.values():
            # Mean of the dissipation against mean flux times mean gradient.
            assert np.abs(result.tensor - result.flux_tensor).max() < 1e-7
            assert np.array_equal(result.tensor, result.tensor.T)

    @pytest.mark.parametrize(("kind", "dim"), KINDS)
    def test_homogeneous_cells_do_not_know(self, comm, kind, dim):
        A = np.array([[2.0, 0.5, 0.1], [0.5, 1.0, 0.2], [0.1, 0.2, 3.0]])[:dim, :dim]
        cell = regular_cell(comm, (3,) * dim, cell_type=kind)
        for boundary in ("uniform_flux", "periodic", "linear"):
            D = effective_conductivity(cell, {1: A}, boundary=boundary).tensor
            assert np.abs(D - A).max() < 1e-8

    def test_laminate(self, comm):
        """Across and along, but for linear data where layers end at the faces."""
        image = np.repeat(np.arange(6)[:, None] % 2, 4, axis=1)
        cell, k = voxel_cell(comm, image), {0: 1.0, 1: 20.0}
        harmonic, arithmetic = 1 / 0.525, 10.5
        for boundary in ("periodic", "mixed"):
            D = effective_conductivity(cell, k, boundary=boundary).tensor
            assert np.abs(D - np.diag([harmonic, arithmetic])).max() < 1e-8
        D = effective_conductivity(cell, k, boundary="linear").tensor
        assert D[1, 1] == pytest.approx(arithmetic, rel=1e-8)
        assert D[0, 0] > harmonic * 1.1
        D = effective_conductivity(cell, k, boundary="uniform_flux").tensor
        assert D[0, 0] == pytest.approx(harmonic, rel=1e-8)
        assert D[1, 1] < arithmetic * 0.95

    def test_conditions_agree_in_large_windows(self, comm):
        """The gap between them falls as the window takes in more periods."""
        gaps = []
        for n in (1, 2, 4):
            image = np.tile(np.pad(np.ones((4, 4), int), 2), (n, n))
            cell = voxel_cell(comm, image)
            D = {
                b: effective_conductivity(cell, {0: 1.0, 1: 10.0}, boundary=b).tensor[0, 0]
                for b in BOUNDARIES
            }
            gaps.append(D["linear"] - D["uniform_flux"])
        assert gaps[0] > 1.5 * gaps[1] > 1.5**2 * gaps[2] > 0

    @pytest.mark.parametrize("boundary", ["linear", "mixed"])
    def test_insulator_at_the_faces(self, comm, boundary):
        image = np.zeros((8, 6), int)
        image[:, 3:] = 1
        D = effective_conductivity(voxel_cell(comm, image), {0: 2.0, 1: 0.0}, boundary=boundary).tensor
        assert D[0, 0] == pytest.approx(1.0, abs=1e-9)
        # Linear data drive the flux from the side faces; given potentials find nothing that connects them.
        assert D[1, 1] == pytest.approx(0.0, abs=1e-9) if boundary == "mixed" else D[1, 1] > 0

    def test_insulator_at_the_faces_and_uniform_flux(self, comm):
        cell = voxel_cell(comm, np.eye(6, dtype=int))
        with pytest.raises(ValueError, match="needs a boundary that conducts everywhere"):
            effective_conductivity(cell, {0: 1.0, 1: 0.0}, boundary="uniform_flux")
        image = np.zeros((6, 6), int)
        image[:, :2] = 1
        cell = voxel_cell(comm, image)
        with pytest.raises(ValueError, match="region at the boundary that nothing connects"):
            effective_conductivity(
                cell, {0: 1.0, 1: 1.0}, boundary="uniform_flux", interface_resistance={(0, 1): np.inf}
            )

    def test_same_on_one_rank(self, comm, alone):
        image = np.random.default_rng(1).integers(0, 3, (9, 8))
        k, R = {0: 1.0, 1: 30.0, 2: 0.2}, {(0, 1): 0.5, (1, 2): 2.0}
        for boundary in BOUNDARIES:
            here, there = (
                effective_conductivity(
                    voxel_cell(c, image), k, boundary=boundary, interface_resistance=R
                ).tensor
                for c in (comm, alone)
            )
            assert np.abs(here - there).max() < 1e-9


@pytest.mark.mpi
class TestFields:
    def test_ufl_function_and_callable(self, comm):
        """κ = 1 + sin(2πx)/2 in every way it can be written: √3/2 across, 1 along."""
        cell = regular_cell(comm, (48, 2))
        x = ufl.SpatialCoordinate(cell.mesh)
        smooth = 1 + 0.5 * ufl.sin(2 * ufl.pi * x[0])
        nodal = fem.Function(fem.functionspace(cell.mesh, ("Lagrange", 2)))
        nodal.interpolate(lambda x: 1 + 0.5 * np.sin(2 * np.pi * x[0]))
        for given in (smooth, nodal, lambda x: 1 + 0.5 * ufl.sin(2 * ufl.pi * x[0])):
            D = effective_conductivity(cell, {1: given}, degree=2).tensor
            assert np.abs(D - np.diag([3**0.5 / 2, 1])).max() < 2e-6

    @pytest.mark.parametrize("boundary", ["periodic", "linear", "mixed"])
    def test_insulator_beside_a_field_on_the_whole_mesh(self, comm, boundary):
        """A UFL field keeps the insulator in the mesh; a number lets it be left out. The same tensor."""
        image = np.random.default_rng(4).integers(0, 3, (9, 8))
        cell = voxel_cell(comm, image)
        constant = fem.Constant(cell.mesh, 3.0)
        D = [
            effective_conductivity(cell, {0: 1.0, 1: value, 2: 0.0}, boundary=boundary).tensor
            for value in (3.0, constant, lambda x: 3.0 + 0 * x[0], constant * ufl.Identity(2))
        ]
        assert np.abs(np.array(D) - D[0]).max() < 1e-9

    def test_shape(self, comm):
        cell = regular_cell(comm, (3, 3))
        with pytest.raises(ValueError, match=r"phase 1 must be a scalar or a 2×2 tensor, found shape \(2,\)"):
            effective_conductivity(cell, {1: lambda x: x})


@pytest.mark.mpi
class TestPerfectConductors:
    @pytest.mark.parametrize(("kind", "dim"), KINDS)
    @pytest.mark.parametrize("boundary", ["uniform_flux", "periodic", "mixed"])
    def test_limit_of_good_conductors(self, comm, kind, dim, boundary):
        def phase(x):  # an island that crosses the seam
            return np.all(np.abs(x[:, :dim] - 0.1 - (x[:, :dim] > 0.5)) < 0.3, axis=1)

        cell = tagged(comm, (10, 10) if dim == 2 else (5, 5, 5), kind, phase)
        exact = effective_conductivity(cell, {0: 1.0, 1: np.inf}, boundary=boundary).tensor
        errors = []
        for k in (1e3, 1e5):
            D = effective_conductivity(cell, {0: 1.0, 1: k}, boundary=boundary).tensor
            errors.append(np.abs(D - exact).max())
        assert errors[1] < 1e-3 * np.abs(exact).max() < 1
        assert errors[0] / errors[1] == pytest.approx(100, rel=0.1)

    def test_layers(self, comm):
        image = np.repeat((np.arange(6) % 3 == 1)[:, None].astype(int), 4, axis=1)
        D = effective_conductivity(voxel_cell(comm, image), {0: 2.0, 1: np.inf}).tensor
        assert D[0, 0] == pytest.approx(2 / (4 / 6), rel=1e-10)
        assert np.isposinf(D[1, 1])
        assert D[0, 1] == 0

    def test_percolation_is_told_from_islands(self, comm):
        """A staircase that returns to itself after one period goes on for ever, one with a gap does not."""
        image = np.zeros((8, 8), int)
        for i in range(8):
            image[i, i] = image[i, (i + 1) % 8] = 1
        D = effective_conductivity(voxel_cell(comm, image), {0: 1.0, 1: np.inf}).tensor
        assert np.isposinf(np.diag(D)).all()
        image[3, :] = 0
        D = effective_conductivity(voxel_cell(comm, image), {0: 1.0, 1: np.inf}).tensor
        assert np.isfinite(D).all()

    def test_linear_data_at_a_conductor(self, comm):
        image = np.zeros((6, 6), int)
        image[0, 2] = 1
        cell = voxel_cell(comm, image)
        D = effective_conductivity(cell, {0: 1.0, 1: np.inf}, boundary="linear").tensor
        assert np.isfinite(D[0, 0])
        assert np.isposinf(D[1, 1])

    def test_beside_an_insulator(self, comm):
        image = np.zeros((9, 9), int)
        image[2:4, 2:4] = 1
        image[4, 2:7] = image[2:7, 6] = 2
        cell = voxel_cell(comm, image)
        exact = effective_conductivity(cell, {0: 1.0, 1: np.inf, 2: 0.0}).tensor
        nearly = effective_conductivity(cell, {0: 1.0, 1: 1e6, 2: 0.0}).tensor
        assert np.abs(exact - nearly).max() < 1e-4

    def test_nothing_but_conductors_and_insulators(self, comm):
        image = np.zeros((6, 6), int)
        image[:, 2] = 1
        D = effective_conductivity(voxel_cell(comm, image), {0: 0.0, 1: np.inf}).tensor
        assert np.isposinf(D[0, 0])
        assert abs(D[1, 1]) < 1e-12


@pytest.mark.mpi
class TestInterfaces:
    @pytest.mark.parametrize(("kind", "dim"), KINDS)
    @pytest.mark.parametrize("degree", [1, 2])
    @pytest.mark.parametrize("boundary", ["periodic", "mixed", "uniform_flux"])
    def test_laminate(self, comm, kind, dim, degree, boundary):
        """(Σ fᵢ/kᵢ + Σ R/L)⁻¹ across, the arithmetic mean along; one interface is the seam."""
        shape = (4, 3) if dim == 2 else (4, 2, 2)
        cell = tagged(comm, shape, kind, lambda x: x[:, 0] > 0.5, (1.0,) * dim)
        D = effective_conductivity(
            cell, {0: 1.0, 1: 5.0}, boundary=boundary, degree=degree, interface_resistance={(1, 0): 0.3}
        ).tensor
        crossed = 2 if boundary == "periodic" else 1
        assert D[0, 0] == pytest.approx(1 / (0.5 + 0.1 + crossed * 0.3), rel=1e-8)
        if boundary != "uniform_flux":
            assert np.diag(D)[1:] == pytest.approx(3.0, rel=1e-8)

    def test_three_phases_two_resistances(self, comm):
        cell = voxel_cell(comm, np.repeat(np.array([0, 1, 2, 2])[:, None], 3, axis=1), 0.25)
        R = {(0, 1): 0.1, (2, 1): 0.4}
        D = effective_conductivity(cell, {0: 1.0, 1: 2.0, 2: 5.0}, interface_resistance=R).tensor
        assert D[0, 0] == pytest.approx(1 / (0.25 + 0.125 + 0.1 + 0.5), rel=1e-8)
        assert D[1, 1] == pytest.approx(13 / 4, rel=1e-8)

    def test_conductors_and_resistances(self, comm):
        cell = voxel_cell(comm, np.repeat(np.array([0, 0, 1, 1])[:, None], 3, axis=1), 0.25)
        for boundary in ("periodic", "mixed"):
            D = effective_conductivity(
                cell, {0: 1.0, 1: np.inf}, boundary=boundary, interface_resistance={(0, 1): 0.3}
            ).tensor
            crossed = 2 if boundary == "periodic" else 1
            assert D[0, 0] == pytest.approx(1 / (0.5 + crossed * 0.3), rel=1e-8)

    @pytest.mark.parametrize("degree", [1, 2])
    @pytest.mark.parametrize("shape", [(12, 10), (6, 5, 4)])
    def test_from_continuous_to_insulating(self, comm, degree, shape):
        image = np.zeros(shape, int)
        image[2:4] = 1
        image[..., 0] = image[:, 0] = 0
        cell = voxel_cell(comm, image)
        k = {0: 1.0, 1: 10.0}

        def tensor(R):
            return effective_conductivity(cell, k, degree=degree, interface_resistance={(0, 1): R}).tensor

        values = [tensor(R) for R in (0.0, 1e-6, 1e-2, 1.0, 1e2, 1e7, np.inf)]
        assert all(np.linalg.eigvalsh(a - b).min() > -1e-9 for a, b in pairwise(values))
        assert np.abs(values[0] - effective_conductivity(cell, k, degree=degree).tensor).max() < 1e-12
        assert np.abs(values[0] - values[1]).max() < 1e-4
        insulating = effective_conductivity(cell, {0: 1.0, 1: 0.0}, degree=degree).tensor
        assert np.abs(values[-2] - insulating).max() < 1e-4
        assert np.abs(values[-1] - insulating).max() < 1e-9

    def test_seam_is_an_interface_like_any_other(self, comm):
        image = np.random.default_rng(3).integers(0, 3, (8, 7))
        k, R = {0: 1.0, 1: 30.0, 2: 0.2}, {(0, 1): 0.5, (1, 2): 2.0}
        D = [
            effective_conductivity(
                voxel_cell(comm, np.roll(image, s, (0, 1))), k, interface_resistance=R
            ).tensor
            for s in ((0, 0), (3, 5))
        ]
        assert np.abs(D[0] - D[1]).max() < 1e-8

    @pytest.mark.parametrize(
        ("resistances", "message"),
        [
            ({(0, 0): 1.0}, "two different phases"),
            ({(0, 7): 1.0}, r"tags \[0, 1\]"),
            ({(0, 1): -1.0}, "must not be negative, found -1.0"),
            ({(0, 1): np.nan}, "must not be negative"),
            ({(0, 1): 1.0, (1, 0): 2.0}, "two resistances, 1.0 and 2.0"),
            ({0: 1.0}, "named by its two phases"),
        ],
    )
    def test_refused(self, comm, resistances, message):
        cell = voxel_cell(comm, np.eye(4, dtype=int))
        with pytest.raises(ValueError, match=message):
            effective_conductivity(cell, {0: 1.0, 1: 2.0}, interface_resistance=resistances)

    def test_boundary_refused(self, comm):
        cell = regular_cell(comm, (3, 3))
        with pytest.raises(ValueError, match="boundary is 'kubc'"):
            effective_conductivity(cell, {1: 1.0}, boundary="kubc")
        with pytest.raises(ValueError, match="expected 'periodic', 'linear' or 'mixed'"):
            CellProblem(cell, conductivity_field(cell, {1: np.array(1.0)}), boundary="uniform_flux")
