"""The effective tensor of an image: on voxels as on a mesh, its interval, and which of the two is taken."""

import logging

import numpy as np
import pytest

from fetopo.microstructure.slab import Slab
from fetopo.transport.homogenization import image_conductivity

pytestmark = pytest.mark.mpi
TIGHT = {"ksp_rtol": 1e-10}


def phases(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 3, shape)


@pytest.mark.parametrize(
    ("shape", "size"), [((12, 10), 1.0), ((9, 8, 7), 1e-6), ((8, 6, 7), (1e-6, 2e-6, 1.5e-6))]
)
@pytest.mark.parametrize("poorest", [0.0, 0.01])
def test_as_on_a_mesh(comm, shape, size, poorest):
    labels, k = phases(shape), {0: poorest, 1: 3.0, 2: 40.0}
    ask = {"voxel_size": size, "petsc_options": TIGHT}
    voxel = image_conductivity(comm, labels, k, **ask)
    mesh = image_conductivity(comm, Slab.share(comm, labels), k, discretization="mesh", **ask)
    assert voxel.tensor == pytest.approx(mesh.tensor, rel=1e-9, abs=1e-9)
    assert np.linalg.eigvalsh(voxel.tensor - voxel.lower_bound).min() > 0
    assert np.linalg.eigvalsh(voxel.lower_bound).min() > 0
    assert np.array_equal(voxel.upper_bound, voxel.tensor)
    assert np.array_equal(mesh.upper_bound, mesh.tensor)
    assert mesh.lower_bound is None
    assert voxel.volume_fractions == mesh.volume_fractions
    assert sum(voxel.volume_fractions.values()) == pytest.approx(1)
    assert (voxel.conventions["discretization"], mesh.conventions["discretization"]) == ("voxel", "mesh")
    fast = image_conductivity(comm, labels, k, method="elements", **ask)
    assert fast.lower_bound is None
    assert fast.tensor == pytest.approx(voxel.tensor, rel=1e-9)


@pytest.mark.parametrize("shape", [(10, 9), (8, 7, 6)])
def test_diagonal_tensors(comm, shape):
    labels, d = phases(shape), len(shape)
    k = {0: 1.0, 1: np.diag(np.arange(1.0, d + 1)), 2: 10 * np.eye(d)}
    voxel, mesh = (
        image_conductivity(comm, labels, k, discretization=name, petsc_options=TIGHT)
        for name in ("voxel", "mesh")
    )
    assert voxel.tensor == pytest.approx(mesh.tensor, rel=1e-9, abs=1e-9)
    assert np.linalg.eigvalsh(voxel.tensor - voxel.lower_bound).min() > 0


def test_interval_of_a_laminate(comm):
    labels = np.broadcast_to(np.array([5, 5, 7, 7])[:, None, None], (4, 3, 2)).copy()
    found = image_conductivity(comm, labels, {5: 1.0, 7: 3.0})
    exact = np.diag([1.5, 2.0, 2.0])
    assert found.tensor == pytest.approx(exact, abs=1e-9)
    assert found.lower_bound == pytest.approx(exact, abs=1e-7)


TENSOR = np.array([[2.0, 0.5], [0.5, 1.0]])


@pytest.mark.parametrize(
    ("values", "options", "reason"),
    [
        ({0: np.inf, 1: 1.0, 2: 2.0}, {}, "infinite conductivity"),
        ({0: TENSOR, 1: 1.0, 2: 2.0}, {}, "conductivity tensor with entries off its diagonal"),
        ({0: lambda x: 1 + x[0] ** 2, 1: 1.0, 2: 2.0}, {}, "conductivity that varies within a phase"),
        ({0: 1.0, 1: 1.0, 2: 2.0}, {"boundary": "linear"}, "boundary 'linear'"),
        ({0: 1.0, 1: 1.0, 2: 2.0}, {"degree": 2}, "degree 2"),
        ({0: 1.0, 1: 1.0, 2: 2.0}, {"interface_resistance": {(0, 1): 0.1}}, "interface resistance"),
        ({0: 1.0, 1: 1.0, 2: 2.0}, {"petsc_options": {"pc_type": "gamg"}}, "PETSc option pc_type"),
    ],
)
def test_a_mesh_where_voxels_cannot(comm, caplog, values, options, reason):
    labels = phases((6, 5))
    with caplog.at_level(logging.INFO, logger="fetopo"):
        found = image_conductivity(comm, labels, values, **options)
    assert found.conventions["discretization"] == "mesh"
    assert found.lower_bound is None
    told = [m for m in (r.getMessage() for r in caplog.records) if m.startswith("on a mesh")]
    assert told == ([f"on a mesh: voxels have no {reason}"] if comm.rank == 0 else [])
    with pytest.raises(ValueError, match=f"discretization is 'voxel', which has no {reason}: use 'mesh'"):
        image_conductivity(comm, labels, values, discretization="voxel", **options)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ({0: 1.0, 1: 1.0}, {}, r"one conductivity per phase is needed: the image has labels \[0, 1, 2\]"),
        ({0: 1.0, 1: -1.0, 2: 1.0}, {}, "must not be negative, found -1.0"),
        ({0: 0.0, 1: 0.0, 2: 0.0}, {}, "no phase conducts"),
        ({"pore": 1.0}, {}, r"no phase 'pore': an image has labels, here \[0, 1, 2\]"),
        ({0: 1.0, 1: 1.0, 2: 1.0}, {"method": "volumes"}, "method is 'volumes'"),
        ({0: 1.0, 1: 1.0, 2: 1.0}, {"boundary": "wavy"}, "boundary is 'wavy'"),
        ({0: 1.0, 1: 1.0, 2: 1.0}, {"discretization": "grid"}, "discretization is 'grid'"),
    ],
)
def test_refused(comm, values, options, message):
    with pytest.raises(ValueError, match=message):
        image_conductivity(comm, phases((6, 5)), values, **options)
