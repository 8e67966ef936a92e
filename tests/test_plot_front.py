"""The picture of a front: every point has its number, also where points coincide in a plane."""

import numpy as np
import pytest
from mpi4py import MPI

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.skipif(MPI.COMM_WORLD.size > 1, reason="pictures are drawn by one rank")


def labels(axes):
    """Texts beside points, without the legend and empty arrows."""
    return {text.get_text(): text for text in axes.texts if text.get_text()}


def test_points_that_coincide_share_a_label():
    """Three objectives: points 2 and 5 differ in the third alone, so they are one in the first plane."""
    from fetopo.plot_front import DrawnFront, _draw_three

    values = np.array([[1.0, 0.1, 0.5], [0.5, 0.5, 0.2], [0.5, 0.5, 0.9], [0.02, 0.9, 0.4]])
    front = DrawnFront(values, np.array([False, False, False, True]), numbers=[0, 2, 5, 7])
    first, second, _ = _draw_three([front], ["a", "b", "c"]).axes[:3]
    assert set(labels(first)) == {"0", "2, 5", "7"}
    assert set(labels(second)) == {"0", "2", "5", "7"}
    # A dominated point is grey; at the left and at the lower edge numbers stand inside.
    assert labels(first)["7"].get_color() != labels(first)["0"].get_color()
    assert labels(first)["7"].get_ha() == "left"
    assert labels(first)["0"].get_va() == "bottom"
    assert labels(first)["2, 5"].get_ha() == "right"
    assert labels(first)["2, 5"].get_va() == "top"


def test_several_fronts_have_no_numbers():
    from fetopo.plot_front import DrawnFront, _draw_two

    values, none = np.array([[1.0, 0.1], [0.1, 1.0]]), np.zeros(2, bool)
    fronts = [DrawnFront(values * s, none, numbers=[0, 1], label=str(s)) for s in (1.0, 0.5)]
    axes = _draw_two(fronts, ["a", "b"]).axes[0]
    assert labels(axes) == {}
