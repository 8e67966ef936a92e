"""Angles, radius ratios and volumes of meshes whose cells are known."""

import numpy as np
import pytest

from fetopo.microstructure.mesh import quality, regular_cell, voxel_cell
from fetopo.microstructure.mesh.quality import _volume_and_ratio, dihedral_angles


def test_equilateral_simplices():
    triangle = np.array([[[0, 0], [1, 0], [0.5, np.sqrt(3) / 2]]]) * 3e-6
    assert np.allclose(dihedral_angles(triangle), 60)
    assert np.allclose(_volume_and_ratio(triangle), [[np.sqrt(3) / 4 * 9e-12], [1]])
    tetrahedron = np.array([[[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]]) * 2e-6
    assert np.allclose(dihedral_angles(tetrahedron), np.degrees(np.arccos(1 / 3)))
    assert np.allclose(_volume_and_ratio(tetrahedron), [[8 / 3 * 8e-18], [1]])


def test_corner_of_a_cube():
    """Three right angles; inradius (3 − √3)/6, circumradius √3/2."""
    corner = np.array([[[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]]])
    angles = np.sort(dihedral_angles(corner)[0])
    assert np.allclose(angles, [*[np.degrees(np.arccos(1 / np.sqrt(3)))] * 3, 90, 90, 90])
    assert np.allclose(_volume_and_ratio(corner), [[1 / 6], [3 * (3 - np.sqrt(3)) / 6 / (np.sqrt(3) / 2)]])


def test_flat_simplices_have_ratio_zero():
    flat = np.array([[[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0.0]]])
    assert np.allclose(_volume_and_ratio(flat), 0)


@pytest.mark.mpi
@pytest.mark.parametrize(("shape", "kind"), [((7, 5), "triangle"), ((4, 3, 5), "tetrahedron")])
def test_regular(comm, shape, kind):
    measured = quality(regular_cell(comm, shape, cell_type=kind))
    assert measured.cells == np.prod(shape) * (2 if kind == "triangle" else 6)
    assert measured.smallest_angle == pytest.approx(45)
    assert measured.largest_angle == pytest.approx(90)
    assert measured.volume_error == pytest.approx(0, abs=1e-13)
    assert measured.volume_fractions == pytest.approx({"1": 1.0})
    assert measured.to_dict()["angle_percentiles"]["50"] == pytest.approx(45, abs=0.2)


@pytest.mark.mpi
def test_voxels_are_refused(comm):
    with pytest.raises(ValueError, match="found hexahedrons"):
        quality(voxel_cell(comm, np.zeros((3, 3, 3), dtype=int)))
