"""Pictures come out without a display, and show what they should."""

import numpy as np
import pytest
from mpi4py import MPI

pytestmark = pytest.mark.skipif(MPI.COMM_WORLD.size > 1, reason="pictures are drawn by one rank")


@pytest.fixture
def plot():
    pytest.importorskip("matplotlib")
    from fetopo import plot

    return plot


def test_volume_is_rendered_in_its_colour(plot):
    pytest.importorskip("pyvista")
    volume = np.zeros((12, 12, 12))
    empty = plot.render_volume(volume, (1, 1, 1), color="#ff0000", size=(200, 200)).astype(int)
    volume[3:9, 3:9, 3:9] = 1
    full = plot.render_volume(volume, (1, 1, 1), color="#ff0000", size=(200, 200)).astype(int)

    def red(picture):
        return int(
            ((picture[..., 0] > picture[..., 1] + 50) & (picture[..., 0] > picture[..., 2] + 50)).sum()
        )

    assert red(empty) == 0
    assert red(full) > 1000


def test_volume_must_be_3d(plot):
    with pytest.raises(ValueError, match="3D"):
        plot.render_volume(np.zeros((4, 4)), (1, 1))


@pytest.mark.parametrize(
    ("largest", "label", "scale"),
    [(2e-8, " (nm)", 1e-9), (3e-5, " (µm)", 1e-6), (0.02, " (mm)", 1e-3), (1.0, "", 1.0)],
)
def test_unit_of_lengths(plot, largest, label, scale):
    assert plot.length_unit(largest) == (label, scale)


def test_plane_has_x_to_the_right(plot):
    values = np.zeros((4, 2))
    values[3, 0] = 1
    axes = plot.new_figure().subplots()
    shown = plot.draw_plane(axes, values, (4e-6, 2e-6))
    assert shown.get_array().shape == (2, 4)
    assert shown.get_array()[0, 3] == 1
    assert axes.get_xlabel() == "x (µm)"
    assert axes.get_xlim() == pytest.approx((0, 4))
