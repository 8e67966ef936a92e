"""Structures with their interface moved: distances, widths, properties of what is left."""

import numpy as np
import pytest
from scipy import ndimage

from fetopo.design.crisp import threshold
from fetopo.design.density import HeavisideProjection
from fetopo.design.etching import (
    Etched,
    SignedDistance,
    heat_solver,
    interface_of,
    relative_spread,
    smallest_feature,
    structure_of,
    tensor_solver,
    under_errors,
)
from fetopo.design.heat import Fixed, HeatModel
from fetopo.design.initial import cell_positions
from fetopo.design.loads import LoadCase
from fetopo.design.model import CellModel
from fetopo.microstructure.mesh import regular_cell
from fetopo.transport.voxel import VoxelGrid


def positions(n, dim=2):
    x = (np.arange(n) + 0.5) / n - 0.5
    return np.meshgrid(*(x,) * dim, indexing="ij")


def disc(n, radius, dim=2):
    """A smooth field, ½ at the edge of a disc or ball."""
    size = np.sqrt(sum(x**2 for x in positions(n, dim)))
    return 1 / (1 + np.exp((size - radius) / 0.03))


@pytest.mark.parametrize(("dim", "n"), [(2, 40), (3, 12)])
def test_distance(dim, n):
    """To a disc or ball, within 0.4 voxels of the fine grid; areas after an error follow."""
    radius = 0.3
    fraction = _filled(radius, dim)
    found = interface_of(disc(n, radius, dim), fraction, (1.0,) * dim, refinement=4)
    fine = np.sqrt(sum(x**2 for x in positions(4 * n, dim)))
    near = np.abs(fine - radius) < 0.1
    h = 1 / (4 * n)
    assert np.abs(found.distance - (radius - fine))[near].max() < 0.4 * h
    for error in (-0.05, 0.0, 0.03):
        expected = fraction * ((radius - error) / radius) ** dim
        assert found.etched(error).mean() == pytest.approx(expected, rel=0.02)
    assert found.sides == pytest.approx((h,) * dim)


def test_distance_across_faces():
    """Of a periodic cell; in a domain a wall is a mirror."""
    x, _ = positions(32)
    strip = 0.5 + 0.5 * np.cos(2 * np.pi * x)
    for shift, periodic in ((0, True), (16, True), (16, False)):
        found = interface_of(np.roll(strip, shift, axis=0), 0.5, (1.0, 1.0), periodic=periodic)
        moved = np.roll(found.distance, -4 * shift, axis=0)
        fine = np.abs(positions(128)[0])
        assert moved == pytest.approx(0.25 - fine, abs=0.1 / 128)
    with pytest.raises(ValueError, match="needs two phases, found the volume fraction 1"):
        interface_of(strip, 1.0, (1.0, 1.0))


def test_error_that_varies():
    """Strips lose on each side what the error there is."""
    x, y = positions(32)
    found = interface_of(0.5 + 0.5 * np.cos(2 * np.pi * x), 0.5, (1.0, 1.0))
    fine = positions(128)[1]
    left = found.etched(0.1 * fine)
    assert left.mean(axis=0) == pytest.approx(0.5 - 0.2 * fine[0], abs=2 / 128)
    assert y.shape == (32, 32)


def width_of(mask, side=1.0, periodic=True):
    """Smallest feature of a mask, half a voxel from its centres to the edge."""
    around = np.pad(mask, mask.shape[0] // 2, mode="wrap" if periodic else "symmetric")
    distance = ndimage.distance_transform_edt(around) - ndimage.distance_transform_edt(~around)
    inner = (slice(mask.shape[0] // 2, -(mask.shape[0] // 2)),) * mask.ndim
    signed = (distance - 0.5 * np.sign(distance))[inner] * side
    return smallest_feature(signed, (side,) * mask.ndim, periodic=periodic)


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("width", [6, 11, 20])
def test_smallest_feature_of_strips(width, periodic):
    """A strip among larger ones, straight or aslant, and the gap beside it."""
    n = 96
    mask = np.zeros((n, n), dtype=bool)
    mask[4:34] = True
    mask[60 : 60 + width] = True
    assert width_of(mask, periodic=periodic) == pytest.approx(width, abs=1)
    # The gaps: 26, and from strip to strip across the face or to a wall, which doubles them.
    gap = min(26, 40 - width) if periodic else min(26, 8, 2 * (36 - width))
    assert width_of(~mask, periodic=periodic) == pytest.approx(gap, abs=1)
    i, j = np.indices((n, n))
    aslant = (i + j) % 48 < width * np.sqrt(2)
    assert width_of(aslant) == pytest.approx(width, abs=1.5)
    assert width_of(mask, 0.5, periodic) == pytest.approx(0.5 * width, abs=0.5)


def test_smallest_feature_of_corners():
    """Corners of a square are none, a whisker of it is; no phase; a disc and a ball."""
    mask = np.zeros((80, 80), dtype=bool)
    mask[20:60, 20:60] = True
    assert width_of(mask) == pytest.approx(40, abs=1)
    mask[60:72, 38:43] = True
    assert width_of(mask) == pytest.approx(5, abs=1)
    assert smallest_feature(np.full((8, 8), -1.0), (1.0, 1.0)) == 0.0
    for dim, n in ((2, 40), (3, 20)):
        found = interface_of(disc(n, 0.33, dim), _filled(0.33, dim), (1.0,) * dim, refinement=1)
        assert found.smallest_feature(1) == pytest.approx(0.66, abs=2 / n)
        # Between a disc and the next one the neck is 0.34 wide.
        if dim == 2:
            assert found.smallest_feature(0) == pytest.approx(0.34, abs=1.5 / n)


def _filled(radius, dim):
    return np.pi * radius**2 if dim == 2 else 4 / 3 * np.pi * radius**3


def strips(comm):
    """A laminate: strips along y, half of the cell."""
    x, _ = positions(24)
    return interface_of(0.5 + 0.5 * np.cos(2 * np.pi * x), 0.5, (1.0, 1.0))


@pytest.mark.mpi
def test_laminate_under_errors(comm):
    """In parallel and in series, of what is left; also where nothing is left, or everything."""
    low, high = 0.1, 1.0
    errors = (-0.3, -0.05, 0.05, 0.3)
    tensors = []
    found = under_errors(
        comm, strips(comm), errors, tensor_solver((low, high), lambda D: tensors.append(D) or D[1, 1])
    )
    f = np.clip(0.5 - 2 * np.array(errors), 0.0, 1.0)
    assert [one.volume_fraction for one in found] == pytest.approx(f, abs=3e-3)
    assert [one.value for one in found] == pytest.approx(f * high + (1 - f) * low, rel=0.02)
    assert [D[0, 0] for D in tensors] == pytest.approx(1 / (f / high + (1 - f) / low), rel=0.02)
    assert [one.error for one in found] == list(errors)
    field = np.full((96, 96), 0.05)
    varied = under_errors(comm, strips(comm), (field,), tensor_solver((low, high), lambda D: float(D[1, 1])))
    assert varied[0].error == 0.05
    assert varied[0].value == pytest.approx(found[2].value, rel=1e-9)
    insulated = under_errors(comm, strips(comm), (0.3,), tensor_solver((0.0, 1.0), lambda D: float(D[1, 1])))
    assert insulated[0].value == 0.0


@pytest.mark.mpi
def test_heat_under_errors(comm):
    """A good bar on a poor plate, heat only at its end: κ is what is left of its width."""
    _, y = positions(24)
    bar = interface_of(0.5 + 0.5 * np.cos(2 * np.pi * y), 0.5, (1.0, 1.0), periodic=False)
    case = LoadCase(1.0, fixed=[Fixed(0.0, lambda x: np.isclose(x[0], 0))])
    found = under_errors(comm, bar, (-0.3, 0.0, 0.3), heat_solver((0.5, 1.0), case))
    # All good: ∫ T dx = 1/(3κ), and the other way; between them otherwise.
    assert found[0].value == pytest.approx(1 / 3, rel=2e-3)
    assert found[2].value == pytest.approx(2 / 3, rel=2e-3)
    assert 1 / 3 / 0.75 < found[1].value < 0.6
    assert relative_spread(found, 0.3) == pytest.approx((2 / 3 - 1 / 3) / found[1].value, rel=2e-3)
    assert relative_spread(found, 0.1) == 0.0
    with pytest.raises(ValueError, match="give the error 0 too"):
        relative_spread([Etched(0.1, 0.5, 1.0)], 0.1)


@pytest.mark.mpi
@pytest.mark.parametrize("kind", ["voxels", "mesh", "heat"])
def test_interface_of_a_design(comm, kind):
    """The level set of the filtered density, at the volume of the density."""
    n = 32
    cell = VoxelGrid(comm, (n, n), 1 / n, periodic=True) if kind == "voxels" else regular_cell(comm, (n, n))
    if kind == "heat":
        model = HeatModel(cell, (0.1, 1.0), 0.15, projection=HeavisideProjection(32.0))
    else:
        model = CellModel(cell, 0.15)
        model.projection.beta = 32.0
    m = (np.linalg.norm(cell_positions(cell) - 0.5, axis=1) < 0.3).astype(float)
    rho = model.density.forward(m).copy()
    found = structure_of(model, m, rho, threshold(rho, model.volumes, model.density.comm))
    assert isinstance(found, SignedDistance)
    assert found.periodic == (kind != "heat")
    assert found.etched().mean() == pytest.approx(model.fraction(rho), abs=2e-3)
    size = np.sqrt(sum(x**2 for x in positions(4 * n)))
    radius = np.sqrt(model.fraction(rho) / np.pi)
    assert np.abs(found.distance - (radius - size))[np.abs(size - radius) < 0.1].max() < 0.4 / n


def test_design_on_no_grid(alone):
    model = HeatModel(
        regular_cell(alone, (4, 4), cell_type="triangle"), (0.1, 1.0), 0.3, projection=HeavisideProjection()
    )
    m = np.full(model.volumes.size, 0.5)
    with pytest.raises(ValueError, match="on a regular grid of cells"):
        structure_of(model, m, m, m)
