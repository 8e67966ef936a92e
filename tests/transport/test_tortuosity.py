"""Through-feature transport: cases with a known answer, conventions, a real electrode."""

import logging
import math
from pathlib import Path

import numpy as np
import pytest
from dolfinx import fem

from fetopo.transport.tortuosity import tortuosity

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def porous(shape, share=0.7, seed=0):
    return np.random.default_rng(seed).random(shape) < share


@pytest.mark.mpi
class TestExact:
    @pytest.mark.parametrize("shape", [(6, 5), (5, 4, 3)])
    def test_straight_channel(self, comm, shape):
        mask = np.zeros(shape, dtype=bool)
        mask[:, 1:3] = True
        (result,) = tortuosity(comm, mask, [0])
        assert result.porosity == pytest.approx(mask.mean())
        assert result.relative_diffusivity == pytest.approx(mask.mean(), rel=1e-12)
        assert result.tortuosity_factor == pytest.approx(1, rel=1e-12)
        assert result.bruggeman_exponent == pytest.approx(1, rel=1e-12)
        assert result.percolating_fraction == 1

    @pytest.mark.parametrize("shape", [(4, 4), (3, 4, 5)])
    def test_empty_space(self, comm, shape):
        for result in tortuosity(comm, np.ones(shape)):
            assert result.relative_diffusivity == pytest.approx(1, rel=1e-12)
            assert result.bruggeman_exponent is None

    def test_isolated_pores_count_in_porosity_only(self, comm):
        """τ takes the total porosity: half of the pores here lead nowhere."""
        mask = np.zeros((6, 6), dtype=bool)
        mask[:, 1] = True
        mask[1:4, 3] = mask[1:4, 5] = True
        (result,) = tortuosity(comm, mask, [0])
        assert result.percolating_fraction == pytest.approx(0.5)
        assert result.relative_diffusivity == pytest.approx(1 / 6, rel=1e-12)
        assert result.tortuosity_factor == pytest.approx(2, rel=1e-12)

    def test_corner_is_no_connection(self, comm):
        mask = np.eye(4, dtype=bool)
        (result,) = tortuosity(comm, mask, [0])
        assert result.relative_diffusivity == 0

    def test_sides_are_closed(self, comm):
        """A path that needs the periodic image does not count."""
        mask = np.zeros((6, 6), dtype=bool)
        mask[:3, 0] = mask[3:, 5] = True
        assert tortuosity(comm, mask, [0])[0].relative_diffusivity == 0


@pytest.mark.mpi
def test_nothing_percolates(comm, caplog):
    mask = np.zeros((5, 5, 5), dtype=bool)
    mask[:3] = True
    with caplog.at_level(logging.WARNING, logger="fetopo"):
        results = tortuosity(comm, mask)
    assert [r.axis for r in results] == [0, 1, 2]
    first = results[0]
    assert first.relative_diffusivity == 0
    assert math.isinf(first.tortuosity_factor)
    assert math.isinf(first.bruggeman_exponent)
    assert first.percolating_fraction == 0
    assert first.solution is None
    assert results[1].relative_diffusivity == pytest.approx(0.6)
    told = [r.getMessage() for r in caplog.records]
    assert told == (["the phase does not connect the faces of axis 0"] if comm.rank == 0 else [])


@pytest.mark.mpi
class TestRandom:
    def test_flux_balance_and_bounds(self, comm):
        for result in tortuosity(comm, porous((10, 9, 8))):
            assert result.flux_imbalance < 1e-5
            assert 0 < result.relative_diffusivity < result.porosity
            assert result.tortuosity_factor == pytest.approx(result.porosity / result.relative_diffusivity)
            exponent = math.log(result.relative_diffusivity) / math.log(result.porosity)
            assert result.bruggeman_exponent == pytest.approx(exponent)
            assert result.iterations > 0

    def test_same_on_one_rank(self, comm, alone):
        mask = porous((10, 9, 8))
        for here, there in zip(tortuosity(comm, mask), tortuosity(alone, mask), strict=True):
            assert here.relative_diffusivity == pytest.approx(there.relative_diffusivity, rel=1e-8)

    def test_axes_turn_with_the_image(self, comm):
        mask = porous((9, 8, 7))
        order = (2, 0, 1)
        values = [r.relative_diffusivity for r in tortuosity(comm, mask)]
        turned = [r.relative_diffusivity for r in tortuosity(comm, mask.transpose(order))]
        assert turned == pytest.approx([values[a] for a in order], rel=1e-8)

    def test_concentration(self, comm):
        """1 on the first face, 0 on the last, between them inside."""
        (result,) = tortuosity(comm, porous((10, 9)), [1], solution=True)
        c = result.solution
        x = c.function_space.tabulate_dof_coordinates()[:, 1]
        n = c.x.array.size
        assert np.allclose(c.x.array[np.isclose(x[:n], 0)], 1)
        assert np.allclose(c.x.array[np.isclose(x[:n], 9)], 0)
        assert c.x.array.min(initial=1) > -1e-9
        assert c.x.array.max(initial=0) < 1 + 1e-9
        assert isinstance(c, fem.Function)
        assert result.cell.grid == (10, 9)


@pytest.mark.mpi
class TestVoxelSize:
    def test_only_ratios_matter(self, comm):
        mask = porous((8, 7, 6))
        values = [
            tortuosity(comm, mask, [0], voxel_size=size)[0].relative_diffusivity
            for size in (1.0, 1e-6, (3e-6,) * 3)
        ]
        assert values == pytest.approx([values[0]] * 3, rel=1e-8)

    def test_flat_voxels(self, comm):
        """Voxels of 2×1 are pairs of cubes; the finer mesh lowers the energy a little."""
        mask = porous((10, 10), 0.75, seed=4)
        flat = tortuosity(comm, mask, voxel_size=(2.0, 1.0))
        fine = tortuosity(comm, np.repeat(mask, 2, axis=0))
        cubes = tortuosity(comm, mask)
        for axis in (0, 1):
            a, b, c = (r[axis].relative_diffusivity for r in (flat, fine, cubes))
            assert b < a < 1.2 * b
            assert abs(a - b) < abs(c - b)


@pytest.mark.mpi
class TestRefused:
    @pytest.mark.parametrize(
        ("mask", "axes", "message"),
        [
            (np.ones(4), None, "2D or 3D image is needed, found shape"),
            (np.zeros((3, 3)), None, "does not occur"),
            (np.ones((3, 3)), [2], "axis 2 is out of range"),
            (np.ones((3, 3)), [-1], "axis -1 is out of range"),
        ],
    )
    def test_values(self, comm, mask, axes, message):
        with pytest.raises(ValueError, match=message):
            tortuosity(comm, mask, axes)

    def test_voxel_size(self, comm):
        with pytest.raises(ValueError, match=r"voxel_size is -1\.0: expected positive"):
            tortuosity(comm, np.ones((3, 3)), voxel_size=-1.0)

    def test_solver_that_does_not_converge(self, comm):
        options = {"ksp_type": "cg", "pc_type": "none", "ksp_rtol": 1e-12, "ksp_max_it": 2, "retry": False}
        with pytest.raises(RuntimeError, match="without converging"):
            tortuosity(comm, porous((10, 10)), [0], petsc_options=options)


@pytest.mark.mpi
class TestInterval:
    def test_order(self, comm):
        for r in tortuosity(comm, porous((12, 11, 10))):
            assert r.finite_volumes < r.lower_bound < r.best_estimate < r.upper_bound
            assert r.upper_bound == r.relative_diffusivity

    def test_holds_what_split_voxels_give(self, comm):
        """The intervals of finer grids lie inside: the exact value is in all of them."""
        mask = np.ones((8, 8, 8), dtype=bool)
        mask[2:5, 2:6, 3:6] = False
        low, high, widths = 0.0, np.inf, []
        for n in (1, 2, 3):
            fine = mask.repeat(n, 0).repeat(n, 1).repeat(n, 2)
            (r,) = tortuosity(comm, fine, [0])
            assert low < r.lower_bound < r.upper_bound < high
            low, high = r.lower_bound, r.upper_bound
            widths.append(high - low)
        order = np.log(widths[0] / widths[2]) / np.log(3)
        assert 1.0 < order < 1.5

    def test_step_in_a_channel(self, comm):
        """A channel that becomes half as wide, in 2D: best estimates agree far better than bounds."""
        mask = np.ones((8, 4), dtype=bool)
        mask[4:, 2:] = False
        coarse, fine = (tortuosity(comm, mask.repeat(n, 0).repeat(n, 1), [0])[0] for n in (2, 16))
        assert coarse.lower_bound < fine.lower_bound < fine.upper_bound < coarse.upper_bound
        gap = coarse.upper_bound - coarse.lower_bound
        assert abs(coarse.best_estimate - fine.best_estimate) < 0.15 * gap

    def test_one_scheme_alone(self, comm):
        mask = porous((9, 8))
        (both,) = tortuosity(comm, mask, [0])
        (r,) = tortuosity(comm, mask, [0], method="elements")
        assert r.lower_bound is r.best_estimate is r.finite_volumes is None
        assert r.transport_efficiency == r.relative_diffusivity == r.upper_bound
        assert r.relative_diffusivity == pytest.approx(both.relative_diffusivity, rel=1e-9)
        (quick,) = tortuosity(comm, mask, [0], method="finite volumes")
        assert quick.finite_volumes == pytest.approx(both.finite_volumes, rel=1e-9)
        assert 0.99 * both.lower_bound < quick.lower_bound < both.lower_bound
        (v,) = tortuosity(comm, mask, [0], method="finite volumes", petsc_options={"ksp_rtol": 1e-10})
        assert v.upper_bound is v.best_estimate is None
        assert v.relative_diffusivity == v.finite_volumes == v.transport_efficiency
        assert v.finite_volumes == pytest.approx(both.finite_volumes, rel=1e-9)
        assert v.lower_bound == pytest.approx(both.lower_bound, rel=1e-6)
        assert v.tortuosity_factor == pytest.approx(mask.mean() / v.finite_volumes)
        assert v.slice_flux == pytest.approx(np.full(9, v.finite_volumes), rel=1e-6)
        assert v.flux_imbalance < 1e-6
        assert v.conventions["elements"] == "two-point finite volumes, one per voxel"

    @pytest.mark.parametrize("rtol", [1e-1, 1e-3])
    def test_holds_with_a_poor_solver(self, comm, rtol):
        mask = porous((9, 8, 7))
        (good,) = tortuosity(comm, mask, [0], petsc_options={"ksp_rtol": 1e-12})
        (poor,) = tortuosity(comm, mask, [0], petsc_options={"ksp_rtol": rtol})
        assert poor.lower_bound <= good.lower_bound * (1 + 1e-9)
        assert poor.upper_bound >= good.upper_bound * (1 - 1e-9)


def at_nodes(comm, result):
    """The concentration as an array, NaN at nodes without; each mesh may be distributed in its own way."""
    c, cell = result.solution, result.cell
    x = c.function_space.tabulate_dof_coordinates()[:, : cell.dim]
    nodes = np.rint((x - cell.lower) / cell.lengths * cell.grid).astype(int)
    values = np.full(np.array(cell.grid) + 1, np.nan)
    for place, found in comm.allgather((nodes, c.x.array)):
        values[tuple(place.T)] = found
    return values


@pytest.mark.mpi
class TestMesh:
    """DOLFINx on the mesh of the voxels, beside the voxels themselves."""

    @pytest.mark.parametrize("sides", ["no flux", "periodic"])
    @pytest.mark.parametrize("shape", [(10, 9), (9, 8, 7)])
    def test_as_voxels(self, comm, shape, sides):
        mask, tight = porous(shape, 0.75), {"ksp_rtol": 1e-12}
        size = (1e-6, 2e-6, 1.5e-6)[: len(shape)]
        ask = {"voxel_size": size, "sides": sides, "petsc_options": tight, "solution": True}
        voxels = tortuosity(comm, mask, **ask)
        meshes = tortuosity(comm, mask, discretization="mesh", **ask)
        for v, m in zip(voxels, meshes, strict=True):
            assert m.relative_diffusivity == pytest.approx(v.relative_diffusivity, rel=1e-9)
            assert m.upper_bound == m.relative_diffusivity
            assert m.lower_bound is m.best_estimate is m.finite_volumes is None
            assert m.slice_flux == pytest.approx(v.slice_flux, rel=1e-7)
            assert (m.percolating_fraction, m.porosity) == (v.percolating_fraction, v.porosity)
            assert (v.conventions["discretization"], m.conventions["discretization"]) == ("voxel", "mesh")
            assert m.conventions["elements"] == v.conventions["elements"]
            assert m.cell.grid == shape
            assert np.allclose(at_nodes(comm, m), at_nodes(comm, v), atol=1e-8, equal_nan=True)

    def test_chosen_where_voxels_cannot(self, comm, caplog):
        options = {"ksp_type": "cg", "pc_type": "jacobi", "ksp_rtol": 1e-8}
        with caplog.at_level(logging.INFO, logger="fetopo"):
            (r,) = tortuosity(comm, porous((9, 8)), [0], petsc_options=options)
        assert r.conventions["discretization"] == "mesh"
        told = [m for m in (x.getMessage() for x in caplog.records) if "on a mesh" in m]
        reason = "on a mesh: voxels have no PETSc option ksp_type and no PETSc option pc_type"
        assert told == ([reason] if comm.rank == 0 else [])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"method": "both"}, "method is 'both': expected one of interval, finite volumes, elements"),
            ({"discretization": "grid"}, "discretization is 'grid': expected 'voxel' or 'mesh'"),
            (
                {"discretization": "voxel", "petsc_options": {"pc_type": "gamg"}},
                "discretization is 'voxel', which has no PETSc option pc_type: use 'mesh'",
            ),
            ({"method": "finite volumes", "discretization": "mesh"}, "use discretization 'voxel'"),
            ({"method": "finite volumes", "solution": True}, "use 'elements'"),
        ],
    )
    def test_refused(self, comm, options, message):
        with pytest.raises(ValueError, match=message):
            tortuosity(comm, porous((4, 4)), **options)


@pytest.mark.mpi
class TestReport:
    def test_slices_and_regions(self, comm):
        mask = np.zeros((6, 6), dtype=bool)
        mask[:, 1] = True
        mask[1:4, 3] = mask[:3, 5] = True
        (r,) = tortuosity(comm, mask, [0])
        assert r.isolated_voxels == 6
        assert r.percolating_porosity == pytest.approx(1 / 6)
        assert r.slice_flux == pytest.approx(np.full(6, 1 / 6), rel=1e-9)
        assert r.conventions["porosity"] == "total"
        assert r.conventions["sides"] == "no flux"
        assert r.conventions["potential"] == "at the face"

    def test_pybamm(self, comm):
        (r,) = tortuosity(comm, porous((10, 9, 8)), [0])
        values = r.to_pybamm("Positive electrode")
        eps = values["Positive electrode porosity"]
        b = values["Positive electrode Bruggeman coefficient (electrolyte)"]
        tau = values["Positive electrode tortuosity factor (electrolyte)"]
        assert eps**b == pytest.approx(r.transport_efficiency)
        assert eps / tau == pytest.approx(r.transport_efficiency)
        solid = r.to_pybamm(phase="electrode")
        assert solid["Negative electrode porosity"] == pytest.approx(1 - eps)
        assert "Negative electrode tortuosity factor (electrode)" in solid
        with pytest.raises(ValueError, match="electrode is 'anode'"):
            r.to_pybamm("anode")
        blocked = tortuosity(comm, np.eye(4, dtype=bool), [0])[0]
        with pytest.raises(ValueError, match="nothing percolates along axis 0"):
            blocked.to_pybamm()


@pytest.mark.mpi
class TestPeriodicSides:
    def test_path_over_the_face(self, comm):
        """A path that goes on at the opposite face: closed sides stop it, periodic ones do not."""
        mask = np.zeros((6, 6), dtype=bool)
        mask[:4, 0] = mask[3:, 5] = True
        for image, axis in ((mask, 0), (mask.T.copy(), 1)):
            closed = tortuosity(comm, image, [axis])[0]
            around = tortuosity(comm, image, [axis], sides="periodic", solution=True)[0]
            assert closed.relative_diffusivity == 0
            assert 0 < around.lower_bound < around.upper_bound < around.porosity
            assert around.percolating_fraction == 1
            assert around.conventions["sides"] == "periodic"
            c = around.solution.x.array
            assert c.min(initial=1) > -1e-9
            assert c.max(initial=0) < 1 + 1e-9

    def test_more_paths_conduct_more(self, comm):
        mask = porous((9, 8, 7))
        closed, around = (tortuosity(comm, mask, [2], sides=s)[0] for s in ("no flux", "periodic"))
        assert closed.upper_bound < around.upper_bound
        assert closed.lower_bound < around.lower_bound

    def test_refused(self, comm):
        with pytest.raises(ValueError, match="sides is 'open'"):
            tortuosity(comm, np.ones((3, 3)), sides="open")


def crop(mask, n):
    return mask[tuple(slice((s - n) // 2, (s - n) // 2 + n) for s in mask.shape)]


def real_pores(name):
    """Pore of the centred 100³ of a real image, or a skip."""
    from fetopo.microstructure.image import read, read_grey

    file = {
        "nmc": "nmc_electrode.tif",
        "bentheimer": "bentheimer_sandstone.npz",
        "ketton": "ketton_carbonate.tif",
        "electrode": "electrode_three_phase.tiff",
        "fiberform": "fiberform_grey.tif",
    }[name]
    path = DATA / file
    if not path.is_file():
        pytest.skip(f"real image {file} is not in ../shared/data")
    if name == "bentheimer":
        return crop(np.load(path)["arr_0"], 100)
    if name == "fiberform":
        return read_grey(path).values < 90
    return read(path, crop=100).labels == 0


#: D_eff/D₀ of finite volumes on the same voxels, axes 0, 1, 2: PoreSpy, then TauFactor, each to 1e-4 of its
#: own measure of convergence (../shared/data/README.md).
PEERS = {
    "fiberform": ((0.70449, 0.73441, 0.63417), (0.70406, 0.73463, 0.63437)),
    "nmc": ((0.13175, 0.15974, 0.15109), (0.13226, 0.15985, 0.15091)),
    "bentheimer": ((0.04108, 0.03016, 0.04024), (0.04124, 0.03032, 0.04035)),
    "ketton": ((0.03107, 0.03311, 0.04039), (0.03124, 0.03326, 0.04050)),
    "electrode": ((0.20377, 0.20470, 0.18720), (0.20428, 0.20512, 0.18779)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PEERS))
def test_real_images(comm, name):
    """Finite volumes as TauFactor, which fixes the potential where we do, and PoreSpy, which does not."""
    results = tortuosity(comm, real_pores(name))
    for r, porespy, taufactor in zip(results, *PEERS[name], strict=True):
        assert r.finite_volumes == pytest.approx(taufactor, abs=7e-6)
        assert r.finite_volumes == pytest.approx(porespy, rel=7e-3)
        assert r.finite_volumes < r.lower_bound < r.best_estimate < r.upper_bound
        assert r.flux_imbalance < 1e-5
    if name == "nmc":
        assert [r.relative_diffusivity for r in results] == pytest.approx(
            [0.14115, 0.16931, 0.16072], abs=5e-6
        )
        assert all(r.upper_bound / r.lower_bound < 1.05 for r in results)
        assert results[0].lower_bound == pytest.approx(0.13483, abs=5e-6)


@pytest.mark.slow
def test_split_voxels_of_an_electrode(comm):
    """The centred 50³: bounds known for every voxel split, and all hold what they tend to."""
    mask = crop(real_pores("nmc"), 50)
    known = {1: (0.24033, 0.2496, 0.23669), 2: (0.24272, 0.2466, 0.24118)}
    for n, (low, high, volumes) in known.items():
        (r,) = tortuosity(comm, mask.repeat(n, 0).repeat(n, 1).repeat(n, 2), [0])
        assert r.lower_bound == pytest.approx(low, abs=6e-6)
        assert r.upper_bound == pytest.approx(high, abs=6e-5)
        assert r.finite_volumes == pytest.approx(volumes, abs=6e-6)
        assert r.best_estimate == pytest.approx(0.2445, rel=1e-3)
