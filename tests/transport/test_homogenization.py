"""Effective tensors against laminates, multipole values of regular arrays and other codes."""

from pathlib import Path

import numpy as np
import pytest
import ufl
from dolfinx import fem
from mpi4py import MPI

from fetopo.microstructure.mesh import regular_cell, voxel_cell
from fetopo.transport.bounds import wiener
from fetopo.transport.homogenization import CellProblem, conductivity_field, effective_conductivity

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"

#: Square array of discs and simple cubic array of spheres, matrix conductivity 1: Rayleigh's multipole method
#: in 50-digit arithmetic (Perrins, McKenzie and McPhedran 1979; McPhedran and McKenzie 1978).
DISCS = {(0.5, 0): 0.3246545, (0.5, 10): 2.4154674}
SPHERES = {(0.4, 10): 2.3644314}


def radius(f, dim):
    return (f / np.pi) ** 0.5 if dim == 2 else (3 * f / (4 * np.pi)) ** (1 / 3)


def layers(shape, axis, repeat):
    """Image of layers across an axis; layer i has label i mod `repeat`."""
    index = np.arange(shape[axis]) % repeat
    return np.broadcast_to(np.expand_dims(index, [a for a in range(len(shape)) if a != axis]), shape)


def laminate(tensors, axis):
    """Exact effective tensor of layers of equal thickness with normal along `axis`."""
    K = np.array(tensors)
    n, d = axis, K.shape[1]
    D = np.empty((d, d))
    D[n, n] = 1 / np.mean(1 / K[:, n, n])
    for i in range(d):
        if i != n:
            D[n, i] = D[i, n] = D[n, n] * np.mean(K[:, n, i] / K[:, n, n])
    for i in range(d):
        for j in range(d):
            if i != n and j != n:
                direct = np.mean(K[:, i, j] - K[:, i, n] * K[:, n, j] / K[:, n, n])
                D[i, j] = direct + D[n, i] * D[n, j] / D[n, n]
    return D


LAYERED = [((6, 4), 0), ((4, 6), 1), ((6, 3, 2), 0), ((2, 6, 3), 1), ((3, 2, 6), 2)]


@pytest.mark.mpi
class TestLaminates:
    @pytest.mark.parametrize(("shape", "axis"), LAYERED)
    @pytest.mark.parametrize("degree", [1, 2])
    @pytest.mark.parametrize("phases", [2, 3])
    def test_arithmetic_and_harmonic_mean(self, comm, shape, axis, degree, phases):
        k = [1.0, 20.0, 0.3][:phases]
        cell = voxel_cell(comm, layers(shape, axis, phases))
        D = effective_conductivity(cell, dict(enumerate(k)), degree=degree).tensor
        harmonic, arithmetic = wiener([1 / phases] * phases, k)
        expected = np.full(len(shape), arithmetic)
        expected[axis] = harmonic
        assert np.abs(D - np.diag(expected)).max() < 1e-8

    @pytest.mark.parametrize("kind", ["triangle", "tetrahedron"])
    def test_on_simplices(self, comm, kind):
        shape = (8, 3) if kind == "triangle" else (8, 2, 2)
        cell = regular_cell(comm, shape, (1.0,) * len(shape), kind)
        Q = fem.functionspace(cell.mesh, ("DG", 0))
        kappa = fem.Function(Q)
        kappa.interpolate(lambda x: np.where(np.floor(4 * x[0]) % 2 == 0, 1.0, 20.0))
        D = CellProblem(cell, kappa).solve()
        expected = [1 / (0.5 + 0.5 / 20)] + [10.5] * (len(shape) - 1)
        assert np.abs(D - np.diag(expected)).max() < 1e-8

    @pytest.mark.parametrize(("shape", "axis"), LAYERED)
    def test_tensors(self, comm, shape, axis):
        d = len(shape)
        rng = np.random.default_rng(3)
        A = [m @ m.T + 0.3 * np.eye(d) for m in rng.normal(size=(2, d, d))]
        cell = voxel_cell(comm, layers(shape, axis, 2))
        D = effective_conductivity(cell, {0: A[0], 1: A[1]}).tensor
        assert np.abs(D - laminate(A, axis)).max() < 1e-8

    def test_tensor_beside_a_number(self, comm):
        A = np.array([[2.0, 0.5], [0.5, 1.0]])
        cell = voxel_cell(comm, layers((6, 4), 0, 2))
        D = effective_conductivity(cell, {0: A, 1: 3.0}).tensor
        assert np.abs(D - laminate([A, 3 * np.eye(2)], 0)).max() < 1e-8

    @pytest.mark.parametrize(("shape", "axis"), LAYERED)
    @pytest.mark.parametrize("degree", [1, 2])
    def test_insulating_layer(self, comm, shape, axis, degree):
        cell = voxel_cell(comm, layers(shape, axis, 3))
        D = effective_conductivity(cell, {0: 0.0, 1: 2.0, 2: 5.0}, degree=degree).tensor
        expected = np.full(len(shape), 7 / 3)
        expected[axis] = 0
        assert np.abs(D - np.diag(expected)).max() < 1e-12 * 7 / 3 + 1e-10 * (expected[axis] != 0)
        assert abs(D[axis, axis]) < 1e-12

    def test_homogeneous(self, comm):
        A = np.array([[2.0, 0.5], [0.5, 1.0]])
        cell = regular_cell(comm, (4, 4))
        assert np.abs(effective_conductivity(cell, {1: A}).tensor - A).max() < 1e-12
        assert np.abs(effective_conductivity(cell, {1: 3.0}).tensor - 3 * np.eye(2)).max() < 1e-12

    def test_unit_of_length_and_box(self, comm):
        """Conductivity does not know the size of the cell, nor its aspect ratio where only layers count."""
        image = layers((6, 4), 0, 2)
        for size in (1e-6, (1e-6, 5e-6), 1e3):
            D = effective_conductivity(voxel_cell(comm, image, size), {0: 1.0, 1: 20.0}).tensor
            assert np.abs(D - np.diag([1 / 0.525, 10.5])).max() < 1e-8


@pytest.mark.mpi
def test_smooth_coefficient(comm):
    """κ = 1 + sin(2πx)/2: √3/2 across and 1 along. Not constant in a cell, so UFL chooses the quadrature."""
    cell = regular_cell(comm, (64, 2))
    x = ufl.SpatialCoordinate(cell.mesh)
    D = CellProblem(cell, 1 + 0.5 * ufl.sin(2 * ufl.pi * x[0]), degree=2).solve()
    assert D[0, 0] == pytest.approx(3**0.5 / 2, rel=1e-6)
    assert D[1, 1] == pytest.approx(1, rel=1e-6)


def random_cell(comm, shape=(12, 10), seed=2):
    return voxel_cell(comm, np.random.default_rng(seed).integers(0, 3, shape))


@pytest.mark.mpi
class TestInvariants:
    K = {0: 1.0, 1: 30.0, 2: 0.2}  # noqa: RUF012

    @pytest.mark.parametrize("shape", [(12, 10), (6, 5, 4)])
    @pytest.mark.parametrize("insulator", [False, True])
    def test_energy_form_is_flux_form(self, comm, shape, insulator):
        k = self.K | ({2: 0.0} if insulator else {})
        result = effective_conductivity(random_cell(comm, shape), k)
        assert np.abs(result.tensor - result.flux_tensor).max() < 1e-8
        assert np.array_equal(result.tensor, result.tensor.T)
        lower, upper = wiener([1 / 3] * 3, list(k.values()))
        assert np.linalg.eigvalsh(result.tensor).min() > 0
        assert result.iterations > 0
        assert np.linalg.eigvalsh(result.tensor).max() < 1.3 * upper
        assert np.linalg.eigvalsh(result.tensor).min() > 0.7 * lower

    def test_energy_form_is_an_upper_bound_whatever_the_correctors(self, comm):
        """Here those of one Jacobi step; the flux form has another value then, and no side."""
        cell = random_cell(comm, (24, 20))
        exact = effective_conductivity(cell, self.K).tensor
        rough = effective_conductivity(
            cell, self.K, petsc_options={"ksp_type": "preonly", "pc_type": "jacobi"}
        )
        assert np.linalg.eigvalsh(rough.tensor - exact).min() > 1e-3
        assert np.array_equal(rough.tensor, rough.tensor.T)
        flux = 0.5 * (rough.flux_tensor + rough.flux_tensor.T)
        assert np.abs(flux - rough.tensor).max() > 1e-3

    @pytest.mark.parametrize("shape", [(12, 10), (6, 5, 4)])
    def test_same_on_one_rank(self, comm, alone, shape):
        here, there = (effective_conductivity(random_cell(c, shape), self.K).tensor for c in (comm, alone))
        assert np.abs(here - there).max() < 1e-9

    def test_shifted_image(self, comm):
        """Where the cell is cut does not matter, insulators across the seam included."""
        image = np.random.default_rng(5).integers(0, 3, (10, 8))
        k = self.K | {2: 0.0}
        D = [
            effective_conductivity(voxel_cell(comm, np.roll(image, shift, (0, 1))), k).tensor
            for shift in ((0, 0), (3, 5))
        ]
        assert np.abs(D[0] - D[1]).max() < 1e-8

    def test_turned_image(self, comm):
        image = np.random.default_rng(6).integers(0, 3, (6, 5, 4))
        D = effective_conductivity(voxel_cell(comm, image), self.K).tensor
        order = [2, 0, 1]
        turned = effective_conductivity(voxel_cell(comm, image.transpose(order)), self.K).tensor
        assert np.abs(turned - D[np.ix_(order, order)]).max() < 1e-8

    def test_duality_in_two_dimensions(self, comm):
        """Dykhne: det D of a checkerboard is k₁k₂; elements give more, and less with refinement."""
        image = np.array([[0, 1], [1, 0]])
        values = []
        for n in (4, 8, 16):
            cell = voxel_cell(comm, np.kron(image, np.ones((n, n), int)))
            values.append(effective_conductivity(cell, {0: 1.0, 1: 4.0}).tensor[0, 0])
        assert values[0] > values[1] > values[2] > 2
        assert values[2] == pytest.approx(2, rel=0.01)


@pytest.mark.mpi
@pytest.mark.parametrize("shape", [(2, 2), (3, 3), (7, 7), (9, 9), (2, 2, 2), (3, 3, 3)])
@pytest.mark.parametrize("k", [10.0, 1e3, 1e5])
def test_cells_of_a_few_voxels(comm, shape, k):
    """A singular matrix of a few rows must not be eliminated by the preconditioner."""
    image = np.zeros(shape, dtype=int)
    image[(0,) * (len(shape) - 1) + (1,)] = 1
    result = effective_conductivity(voxel_cell(comm, image), {0: 1.0, 1: k})
    assert np.abs(result.tensor - result.flux_tensor).max() < 1e-8 * k
    assert 1 < result.tensor[0, 0] < wiener((1 - 1 / image.size, 1 / image.size), (1.0, k))[1]


@pytest.mark.mpi
class TestSquareInclusion:
    def test_converges_from_above(self, comm):
        """Obnosov: √((1 + 3k)/(3 + k)) for a square of half the cell's side."""
        exact = ((1 + 30) / 13) ** 0.5
        errors = []
        for n in (8, 16, 32):
            image = np.zeros((n, n), dtype=int)
            image[n // 4 : 3 * n // 4, n // 4 : 3 * n // 4] = 1
            D = effective_conductivity(voxel_cell(comm, image), {0: 1.0, 1: 10.0}).tensor
            assert abs(D[0, 0] - D[1, 1]) < 1e-9
            errors.append(D[0, 0] / exact - 1)
        assert errors[0] > errors[1] > errors[2] > 0
        assert errors[2] < 5e-3


def disc_error(comm, f, k, size, center=(0.5, 0.5)):
    from fetopo.microstructure.geometry import inclusion_cell

    cell = inclusion_cell(comm, [center], radius(f, 2), mesh_size=size)
    D = effective_conductivity(cell, {"matrix": 1.0, "inclusion": k}).tensor
    assert abs(D[0, 1]) < 1e-3
    return max(abs(D[0, 0] / DISCS[f, k] - 1), abs(D[1, 1] / DISCS[f, k] - 1))


@pytest.mark.mpi
class TestDiscs:
    @pytest.fixture(autouse=True)
    def _gmsh(self):
        pytest.importorskip("gmsh", reason="Gmsh's Python module is not installed")

    @pytest.mark.parametrize("k", [0, 10])
    def test_half_within_a_thousandth_and_second_order(self, comm, k):
        errors = [disc_error(comm, 0.5, k, size) for size in (0.04, 0.02, 0.01)]
        assert errors[-1] < 1e-3
        assert np.log2(errors[0] / errors[-1]) / 2 > 1.8

    @pytest.mark.parametrize("k", [0, 10])
    @pytest.mark.parametrize("center", [(0.0, 0.0), (0.9, 0.05), (0.37, 0.98)])
    def test_cut_by_the_faces(self, comm, k, center):
        assert disc_error(comm, 0.5, k, 0.02, center) < 2.5e-3

    def test_degree_2_on_an_array_of_two(self, comm):
        """Two discs in a cell of two squares are the same array."""
        from fetopo.microstructure.geometry import inclusion_cell

        r = radius(0.5, 2)
        cell = inclusion_cell(comm, [(0.0, 0.5), (1.0, 0.5)], r, mesh_size=0.02, lengths=(2.0, 1.0))
        D = effective_conductivity(cell, {"matrix": 1.0, "inclusion": 10.0}, degree=2).tensor
        assert np.abs(D / DISCS[0.5, 10] - np.eye(2)).max() < 2e-3


def sphere_error(comm, size, center=(0.5, 0.5, 0.5), order=1):
    from fetopo.microstructure.geometry import inclusion_cell

    cell = inclusion_cell(comm, [center], radius(0.4, 3), mesh_size=size, order=order)
    D = effective_conductivity(cell, {"matrix": 1.0, "inclusion": 10.0}, degree=order).tensor
    return float(np.abs(np.diag(D) / SPHERES[0.4, 10] - 1).max())


class TestSpheres:
    @pytest.fixture(autouse=True)
    def _gmsh(self):
        pytest.importorskip("gmsh", reason="Gmsh's Python module is not installed")

    @pytest.mark.mpi
    @pytest.mark.parametrize("center", [(0.5, 0.5, 0.5), (0.0, 0.0, 0.0), (0.95, 0.4, 0.1)])
    def test_two_percent(self, comm, center):
        """Linear elements overestimate; no loss of volume makes up for a part of it."""
        assert sphere_error(comm, 0.07, center) < 0.017

    @pytest.mark.mpi
    def test_curved_and_quadratic(self, comm):
        """A tenth of that error with cells twice as long."""
        assert sphere_error(comm, 0.14, order=2) < 0.002

    @pytest.mark.slow
    @pytest.mark.mpi
    def test_second_order(self, comm):
        errors = [sphere_error(comm, size) for size in (0.1, 0.05, 0.025)]
        assert errors[-1] < 2.5e-3
        assert np.log2(errors[0] / errors[-1]) / 2 > 1.7
        assert sphere_error(comm, 0.07, order=2) < 3e-4


@pytest.mark.mpi
class TestIslands:
    """Conducting regions that nothing connects carry no flux and leave the rest alone."""

    K = {0: 0.0, 1: 1.0, 2: 5.0}  # noqa: RUF012

    def channels(self):
        image = np.zeros((12, 12), dtype=int)
        image[:, 1:3] = 1
        return image

    def test_beside_a_channel(self, comm):
        image = self.channels()
        image[3:6, 5:7] = 2
        image[8, 9] = 1
        image[0, 5] = image[11, 5] = 2  # one island across the seam
        D = effective_conductivity(voxel_cell(comm, image), self.K).tensor
        assert np.abs(D - np.diag([2 / 12, 0])).max() < 1e-10

    def test_two_channels(self, comm):
        """Components that carry flux beside each other."""
        image = self.channels()
        image[:, 6:9] = 2
        D = effective_conductivity(voxel_cell(comm, image), self.K).tensor
        assert np.abs(D - np.diag([2 / 12 + 5 * 3 / 12, 0])).max() < 1e-10

    def test_only_islands(self, comm):
        image = np.zeros((12, 12), dtype=int)
        image[2:5, 3:6] = 1
        image[7:9, 8:11] = 2
        D = effective_conductivity(voxel_cell(comm, image), self.K).tensor
        assert np.abs(D).max() < 1e-10

    def test_in_three_dimensions(self, comm):
        image = np.zeros((6, 7, 8), dtype=int)
        image[1:3, 1:3, :] = 1
        image[4, 4, 4] = image[4, 6, 1] = 2
        D = effective_conductivity(voxel_cell(comm, image), self.K).tensor
        assert np.abs(D - np.diag([0, 0, 4 / 42])).max() < 1e-10

    @pytest.mark.parametrize("seed", range(3))
    def test_same_on_one_rank(self, comm, alone, seed):
        """Many islands, some of them divided between ranks."""
        image = (np.random.default_rng(seed).random((20, 20)) < 0.4).astype(int)
        here, there = (effective_conductivity(voxel_cell(c, image), {0: 0.0, 1: 1.0}) for c in (comm, alone))
        assert np.abs(here.tensor - there.tensor).max() < 1e-9

    def test_energy_form_is_flux_form(self, comm):
        rng = np.random.default_rng(11)
        image = (rng.random((24, 24)) < 0.55).astype(int)
        result = effective_conductivity(voxel_cell(comm, image), {0: 0.0, 1: 1.0})
        assert np.abs(result.tensor - result.flux_tensor).max() < 1e-8

    def test_random_image_is_the_limit_of_a_poor_conductor(self, comm):
        rng = np.random.default_rng(12)
        cell = voxel_cell(comm, (rng.random((16, 16)) < 0.6).astype(int))
        exact = effective_conductivity(cell, {0: 0.0, 1: 1.0}).tensor
        nearly = effective_conductivity(cell, {0: 1e-7, 1: 1.0}).tensor
        assert np.abs(exact - nearly).max() < 1e-5


@pytest.mark.mpi
@pytest.mark.parametrize("seed", [0, 1])
def test_same_as_with_constraints(alone, comm, seed):
    """dolfinx_mpc eliminates the periodic degrees of freedom; the dofmap here never had them."""
    mpc_module = pytest.importorskip("dolfinx_mpc", reason="dolfinx_mpc is not installed")
    from dolfinx.fem import petsc as fem_petsc  # noqa: F401
    from petsc4py import PETSc

    n = 10
    cell = voxel_cell(comm, np.random.default_rng(seed).integers(0, 2, (n, n)), 1 / n)
    kappa = conductivity_field(cell, {0: np.array(1.0), 1: np.array(25.0)})
    V = fem.functionspace(cell.mesh, ("Lagrange", 1))
    pin = fem.dirichletbc(
        0.0, fem.locate_dofs_geometrical(V, lambda x: np.isclose(x[0], 0.5) & np.isclose(x[1], 0.5)), V
    )
    mpc = mpc_module.MultiPointConstraint(V)

    def move(*axes):
        def relation(x):
            y = x.copy()
            y[list(axes)] -= 1.0
            return y

        return relation

    right, top = (lambda x: np.isclose(x[0], 1)), (lambda x: np.isclose(x[1], 1))
    mpc.create_periodic_constraint_geometrical(V, lambda x: right(x) & ~top(x), move(0), [pin])
    mpc.create_periodic_constraint_geometrical(V, lambda x: top(x) & ~right(x), move(1), [pin])
    mpc.create_periodic_constraint_geometrical(V, lambda x: top(x) & right(x), move(0, 1), [pin])
    mpc.finalize()
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    a = fem.form(kappa * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx)
    A = mpc_module.assemble_matrix(a, mpc, bcs=[pin])
    ksp = PETSc.KSP().create(comm)
    ksp.setOperators(A)
    ksp.setType("preonly")
    ksp.getPC().setType("lu")
    ksp.getPC().setFactorSolverType("mumps")
    fields = []
    for i in range(2):
        e = ufl.as_vector([float(i == j) for j in range(2)])
        b = mpc_module.assemble_vector(fem.form(-kappa * ufl.inner(e, ufl.grad(v)) * ufl.dx), mpc)
        b.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
        with b.localForm() as local:
            local.array_w[pin.dof_indices()[0]] = 0.0
        chi = fem.Function(mpc.function_space)
        solution = b.duplicate()
        ksp.solve(b, solution)
        size = mpc.function_space.dofmap.index_map.size_local
        chi.x.array[:size] = solution.array_r[:size]
        chi.x.scatter_forward()
        mpc.backsubstitution(chi)
        fields.append(e + ufl.grad(chi))
    expected = np.array(
        [
            [comm.allreduce(fem.assemble_scalar(fem.form(kappa * ufl.inner(f, g) * ufl.dx))) for g in fields]
            for f in fields
        ]
    )
    D = effective_conductivity(cell, {0: 1.0, 1: 25.0}, petsc_options={"ksp_rtol": 1e-12}).tensor
    assert np.abs(D - expected).max() < 1e-10 * 25


@pytest.mark.mpi
class TestRefused:
    @pytest.mark.parametrize(
        ("conductivity", "message"),
        [
            ({1: 1.0}, r"the cell has tags \[0, 1, 2\], found \[1\]"),
            ({0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}, r"found \[0, 1, 2, 3\]"),
            ({0: 1.0, 1: -1.0, 2: 1.0}, "phase 1 must not be negative, found -1.0"),
            ({0: 1.0, 1: np.nan, 2: 1.0}, "phase 1 must be a number or a 2×2 tensor"),
            ({0: 1.0, 1: np.eye(3), 2: 1.0}, "2×2 tensor"),
            ({0: 1.0, 1: [[1, 2], [0, 1]], 2: 1.0}, "symmetric positive definite"),
            ({0: 1.0, 1: [[1, 2], [2, 1]], 2: 1.0}, "symmetric positive definite"),
            ({0: 0.0, 1: 0.0, 2: 0.0}, "no phase conducts"),
            ({"solid": 1.0}, "no phase 'solid'"),
        ],
    )
    def test_conductivity(self, comm, conductivity, message):
        with pytest.raises(ValueError, match=message):
            effective_conductivity(random_cell(comm), conductivity)

    def test_shape_of_kappa(self, comm):
        cell = regular_cell(comm, (3, 3))
        with pytest.raises(ValueError, match=r"found shape \(3, 3\)"):
            CellProblem(cell, fem.Constant(cell.mesh, np.eye(3)))

    def test_solver_that_does_not_converge(self, comm):
        with pytest.raises(RuntimeError, match="without converging"):
            effective_conductivity(
                random_cell(comm), TestInvariants.K, petsc_options={"pc_type": "none", "ksp_max_it": 1}
            )
        assert comm.allreduce(1) == comm.size


@pytest.mark.slow
def test_cast_iron():
    """Column for a gradient along axis 2 from an independent assembly, which chfem's result confirms."""
    path = DATA / "cast_iron_100x100x100_uint8.raw"
    if not path.is_file():
        pytest.skip(f"real image {path.name} is not in ../shared/data")
    labels = np.fromfile(path, dtype=np.uint8).reshape(100, 100, 100)
    cell = voxel_cell(MPI.COMM_WORLD, labels)
    result = effective_conductivity(cell, {87: 129.0, 182: 80.4}, petsc_options={"ksp_rtol": 1e-8})
    assert result.tensor[:, 2] == pytest.approx((-0.0270, 0.0431, 85.2493), abs=1e-4)
