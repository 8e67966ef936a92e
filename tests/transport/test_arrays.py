"""Regular arrays against Rayleigh's multipole method; the method itself against published tables."""

import numpy as np
import pytest
from mpi4py import MPI
from multipole import LATTICES, effective

from fetopo.microstructure.generate import regular_array
from fetopo.transport.homogenization import effective_conductivity

#: Perrins, McKenzie and McPhedran (1979), computed in 50-digit arithmetic: k = 0, 10, 1000.
SQUARE = {
    0.1: (0.8181768, 1.1782218, 1.2217365),
    0.2: (0.6665307, 1.3914577, 1.4990558),
    0.3: (0.5375800, 1.6520360, 1.8577204),
    0.4: (0.4253512, 1.9806261, 2.3464105),
    0.5: (0.3246545, 2.4154674, 3.0714035),
    0.6: (0.2303179, 3.0372208, 4.3225037),
    0.7: (0.1345404, 4.0617074, 7.3682150),
}
#: McPhedran and McKenzie (1978), likewise: k = 0, 10.
CUBIC = {
    0.1: (0.8571119, 1.2433385),
    0.2: (0.7267030, 1.5317239),
    0.3: (0.6056612, 1.8877401),
    0.4: (0.4901099, 2.3644314),
    0.5: (0.3737348, 3.1445580),
}
TOLERANCE = {2: 1e-4, 3: 1e-3}


class TestMultipoles:
    @pytest.mark.parametrize("fraction", SQUARE)
    def test_square(self, fraction):
        found = [effective("square", fraction, k) for k in (0, 10, 1000)]
        assert found == pytest.approx(SQUARE[fraction], abs=6e-8)

    @pytest.mark.parametrize("fraction", CUBIC)
    def test_simple_cubic(self, fraction):
        assert [effective("sc", fraction, k) for k in (0, 10)] == pytest.approx(CUBIC[fraction], abs=4e-7)

    @pytest.mark.parametrize("lattice", LATTICES)
    def test_dilute_is_maxwell(self, lattice):
        d, f, k = len(LATTICES[lattice]), 0.01, 10.0
        beta = (k - 1) / (k + d - 1)
        assert effective(lattice, f, k) == pytest.approx((1 + (d - 1) * beta * f) / (1 - beta * f), abs=1e-6)

    @pytest.mark.parametrize("lattice", ["square", "hexagonal"])
    @pytest.mark.parametrize("k", [0.0, 3.0, 1000.0])
    def test_phases_interchanged(self, lattice, k):
        """Keller (1964): D(k) D(1/k) = 1 in two dimensions."""
        inverse = np.inf if k == 0 else 1 / k
        assert effective(lattice, 0.6, k) * effective(lattice, 0.6, inverse) == pytest.approx(1, abs=1e-8)


def accurate(comm, lattice, fraction, inner, **options):
    """Largest relative error of the diagonal for each conductivity of the inclusions."""
    pytest.importorskip("gmsh", reason="Gmsh's Python module is not installed")
    from fetopo.microstructure.geometry import accurate_sizes, inclusion_cell

    packing = regular_array(lattice, volume_fraction=fraction, cell_length=1.0)
    cell = inclusion_cell(comm, packing, **accurate_sizes(packing))
    resistance = options.pop("resistance", 0.0)
    errors = []
    for k in inner:
        D = effective_conductivity(
            cell,
            {"matrix": 1.0, "inclusion": k},
            degree=2,
            interface_resistance={("inclusion", "matrix"): resistance},
        ).tensor
        exact = effective(lattice, fraction, k, resistance)
        errors.append(float(np.abs(D / exact - np.eye(cell.dim)).max()))
    return np.array(errors)


EVERY = (0.0, 0.1, 10.0, 1000.0, np.inf)


@pytest.mark.mpi
class TestDiscs:
    @pytest.mark.parametrize(
        ("lattice", "fraction"), [("square", 0.1), ("square", 0.5), ("square", 0.7), ("hexagonal", 0.8)]
    )
    def test_within_1e_4(self, comm, lattice, fraction):
        assert accurate(comm, lattice, fraction, EVERY).max() < TOLERANCE[2]

    @pytest.mark.parametrize("resistance", [0.03, 3.0])
    def test_resistive_interfaces(self, comm, resistance):
        assert accurate(comm, "square", 0.5, (10.0, np.inf), resistance=resistance).max() < TOLERANCE[2]
        assert accurate(comm, "hexagonal", 0.7, (10.0,), resistance=resistance).max() < TOLERANCE[2]

    def test_same_on_one_rank(self, comm, alone):
        from fetopo.microstructure.geometry import inclusion_cell

        packing = regular_array("hexagonal", volume_fraction=0.5, cell_length=1.0)
        found = []
        for c in (comm, alone):
            cell = inclusion_cell(c, packing, mesh_size=0.1, order=2)
            for k, R in ((np.inf, 0.0), (np.inf, 0.1), (5.0, 0.1), (5.0, np.inf)):
                found.append(
                    effective_conductivity(
                        cell,
                        {"matrix": 1.0, "inclusion": k},
                        degree=2,
                        interface_resistance={("inclusion", "matrix"): R},
                        petsc_options={"ksp_rtol": 1e-12},
                    ).tensor
                )
        assert np.abs(np.array(found[:4]) - np.array(found[4:])).max() < 1e-10


@pytest.mark.mpi
class TestSpheres:
    def test_simple_cubic(self, comm):
        assert accurate(comm, "sc", 0.4, (0.0, np.inf)).max() < TOLERANCE[3]

    @pytest.mark.slow
    def test_body_centred_with_resistance(self, comm):
        assert accurate(comm, "bcc", 0.5, (10.0,), resistance=0.05).max() < TOLERANCE[3]


@pytest.mark.slow
class TestWholeTables:
    @pytest.mark.parametrize("fraction", SQUARE)
    @pytest.mark.parametrize("lattice", ["square", "hexagonal"])
    def test_discs(self, lattice, fraction):
        assert accurate(MPI.COMM_WORLD, lattice, fraction, EVERY).max() < TOLERANCE[2]

    @pytest.mark.parametrize("fraction", CUBIC)
    @pytest.mark.parametrize("lattice", ["sc", "bcc", "fcc"])
    def test_spheres(self, lattice, fraction):
        assert accurate(MPI.COMM_WORLD, lattice, fraction, EVERY).max() < TOLERANCE[3]
