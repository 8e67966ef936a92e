"""Initial designs: the wanted mean, the same on any number of ranks, periodic."""

import numpy as np
import pytest

from fetopo.design.density import HelmholtzFilter
from fetopo.design.initial import cell_positions, from_field, inclusion_field, random_field, start_field
from fetopo.microstructure.mesh import regular_cell, to_image

pytestmark = pytest.mark.mpi

CELLS = [((16, 12), None), ((6, 5, 4), None), ((8, 8), "triangle")]


def make(comm, shape, kind=None):
    cell = regular_cell(comm, shape, cell_type=kind)
    return cell, HelmholtzFilter(cell.mesh, 0.0).volumes


@pytest.mark.parametrize(("shape", "kind"), CELLS)
@pytest.mark.parametrize("name", ["inclusions", "random"])
@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("sharpness", [0.0, 1.0, 5.0])
def test_mean(comm, shape, kind, name, fraction, sharpness):
    cell, volumes = make(comm, shape, kind)
    m = from_field(start_field(cell, name), volumes, fraction, comm, sharpness=sharpness)
    assert comm.allreduce(float(m @ volumes)) == pytest.approx(fraction * cell.volume, rel=1e-9)
    assert ((m >= 0) & (m <= 1)).all()


@pytest.mark.parametrize("name", ["inclusions", "random"])
@pytest.mark.parametrize("shape", [(16, 12), (6, 5, 4)])
def test_same_on_one_rank(comm, alone, shape, name):
    images = []
    for c in (comm, alone):
        cell, volumes = make(c, shape)
        images.append(to_image(cell, from_field(start_field(cell, name, 3), volumes, 0.4, c)))
    assert np.abs(images[0] - images[1]).max() < 1e-12


def test_seed(comm):
    cell, _ = make(comm, (8, 8))
    assert np.array_equal(random_field(cell, seed=1), random_field(cell, seed=1))
    assert not np.array_equal(random_field(cell, seed=1), random_field(cell, seed=2))


def test_random_field_is_periodic_and_smooth(comm):
    """The jump across the seam is no larger than between neighbours inside."""
    cell, _ = make(comm, (64, 64))
    image = to_image(cell, random_field(cell, seed=0))
    inside = np.abs(np.diff(image, axis=0)).max()
    assert np.abs(image[0] - image[-1]).max() < 1.5 * inside
    assert inside < 0.2 * (image.max() - image.min())


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 8)])
def test_inclusions(comm, shape):
    """Poor in the middle, in three dimensions at the corners too."""
    cell, _ = make(comm, shape)
    image = to_image(cell, inclusion_field(cell))
    middle, corner = image[(4,) * len(shape)], image[(0,) * len(shape)]
    assert middle == image.min()
    assert corner == pytest.approx(middle if len(shape) == 3 else image.max())


def test_positions(comm):
    cell = regular_cell(comm, (4, 2), (8e-6, 2e-6))
    x = np.vstack(comm.allgather(cell_positions(cell)))
    assert sorted(set(x[:, 0].round(9))) == [0.125, 0.375, 0.625, 0.875]
    assert sorted(set(x[:, 1].round(9))) == [0.25, 0.75]


def test_unknown_name(comm):
    with pytest.raises(ValueError, match="'inclusions' or 'random', found 'holes'"):
        start_field(make(comm, (3, 3))[0], "holes")
