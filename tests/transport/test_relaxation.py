"""Effective diffusivity from relaxation beside the steady one on the same mesh."""

from pathlib import Path

import numpy as np
import pytest
import ufl
from dolfinx import fem

from fetopo.microstructure.connectivity import percolating_parts
from fetopo.microstructure.image import read
from fetopo.microstructure.mesh import regular_cell, voxel_cell
from fetopo.transport import series
from fetopo.transport.relaxation import breakthrough, decay_diffusivity, fit_uptake, slowest_decay
from fetopo.transport.state import global_sum
from fetopo.transport.timestep import TimeOptions
from fetopo.transport.tortuosity import tortuosity
from fetopo.transport.transient import Fixed, Inflow, TransientDiffusion

IMAGE = Path(__file__).resolve().parents[2] / "meshes" / "electrode_64.tif"


def straight():
    mask = np.zeros((16, 6, 6), dtype=bool)
    mask[:, 1:4, 2:4] = True
    return mask


def real():
    return percolating_parts(read(IMAGE).labels[:20, :20, :20] == 0, [0])[0]


def mesh_of(comm, mask):
    return voxel_cell(comm, mask.astype(int), 1.0, phases=[1])


@pytest.mark.mpi
class TestDecay:
    def test_straight_pore(self, comm):
        """λ = π²D/L²: the porosity, up to (π/16)²/12 of linear elements; degree 2 does away with it."""
        cell = mesh_of(comm, straight())
        error = decay_diffusivity(cell, 1.0) / straight().mean() - 1
        assert error == pytest.approx((np.pi / 16) ** 2 / 12, rel=0.02)
        assert decay_diffusivity(cell, 1.0, degree=2) == pytest.approx(straight().mean(), rel=3e-6)

    def test_layers_along_the_flow(self, comm):
        """Each layer keeps its own rate; the slowest is the poorer one's where they do not touch."""
        labels = np.repeat([[1, 0, 2]], 8, axis=0)
        cell = voxel_cell(comm, labels, phases=[1, 2])
        ends = [Fixed(0.0, lambda x: np.isclose(x[0] % 8.0, 0))]
        problem = TransientDiffusion(cell, {1: 1.0, 2: 3.0}, ends, degree=2)
        assert slowest_decay(problem).rate == pytest.approx((np.pi / 8) ** 2, rel=1e-4)

    def test_the_mode_decays_so(self, comm):
        problem = TransientDiffusion(
            mesh_of(comm, straight()), 1.0, [Fixed(0.0, lambda x: np.isclose(x[0], 0))]
        )
        decay = slowest_decay(problem)
        again = TransientDiffusion(problem.cell, 1.0, problem.conditions, initial=decay.mode)
        before = again.mass()
        again.run(1 / decay.rate, options=TimeOptions(rtol=1e-6))
        assert again.mass() / before == pytest.approx(np.exp(-1), rel=5e-5)

    def test_needs_something_fixed(self, comm):
        with pytest.raises(ValueError, match="nothing decays"):
            slowest_decay(TransientDiffusion(regular_cell(comm, (3, 3)), 1.0, [Inflow(1.0)]))


class TestBreakthrough:
    def test_straight_pore(self, comm):
        """L₀ = L²/(6D) to the error of the steps, and all diffusivities are the porosity."""
        found = breakthrough(mesh_of(comm, straight()), 2.0, options=TimeOptions(rtol=1e-5))
        assert found.diffusivity == pytest.approx(2 * straight().mean(), rel=2e-6)
        assert found.time_lag == pytest.approx(series.time_lag(16.0, 2.0), rel=1e-4)
        assert found.lag_diffusivity == pytest.approx(2 * straight().mean(), rel=1e-4)

    @pytest.mark.mpi
    def test_real_pore(self, comm):
        """The flux in the end is the steady one; the time lag is J∞L₀ = ∫u(1 − u) of the steady field."""
        mask = real()
        (steady,) = tortuosity(
            comm, mask, [0], method="elements", solution=True, petsc_options={"ksp_rtol": 1e-12}
        )
        found = breakthrough(mesh_of(comm, mask), 1.0)
        assert found.diffusivity == pytest.approx(steady.relative_diffusivity, rel=2e-6)
        u, cell = steady.solution, steady.cell
        stored = global_sum(fem.form(u * (1 - u) * ufl.dx))
        flux = steady.relative_diffusivity * cell.volume / float(cell.lengths[0]) ** 2
        assert found.time_lag == pytest.approx(stored / flux, rel=1e-4)
        # Apparent diffusivities of so small a sample are near the steady one, not equal.
        slow = decay_diffusivity(mesh_of(comm, mask), 1.0)
        assert 0.7 < slow / found.diffusivity < 1.3
        assert 0.7 < found.lag_diffusivity / found.diffusivity < 1.3

    def test_axis(self, comm):
        with pytest.raises(ValueError, match="axis 3 is out of range"):
            breakthrough(mesh_of(comm, straight()), 1.0, 3)


class TestFit:
    @pytest.mark.parametrize("name", ["sheet", "cylinder", "sphere"])
    def test_series_of_its_own(self, name):
        function, t = getattr(series, f"{name}_uptake"), np.geomspace(1, 1e4, 40)
        found, rest = fit_uptake(t, function(3e-14 * t / 1e-10), 1e-5, function)
        assert found == pytest.approx(3e-14, rel=1e-6)
        assert rest < 1e-7

    def test_straight_pore(self, comm):
        """Uptake through both faces, fitted by the sheet of half the length."""
        ends = [Fixed(1.0, lambda x: np.isclose(x[0] % 16.0, 0))]
        problem = TransientDiffusion(mesh_of(comm, straight()), 2.0, ends)
        steps = [s for s in problem.run(60.0) if s.time > 0.5]
        found, rest = fit_uptake([s.time for s in steps], [s.mass / problem.volume for s in steps], 8.0)
        assert found == pytest.approx(2.0, rel=2e-2)
        assert rest < 1e-2

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (([1.0], [0.5], 1.0), "at least 2 times"),
            (([1.0, 2.0], [0.5, 2.0], 1.0), "between 0 and 1, found 0.5 to 2"),
            (([-1.0, 2.0], [0.5, 0.6], 1.0), "not be negative, found -1"),
            (([1.0, 2.0], [0.5, 0.6], 0.0), "size must be positive, found 0"),
        ],
    )
    def test_refused(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            fit_uptake(*arguments)
