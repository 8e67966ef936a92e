"""Every result becomes plain values for JSON and a picture with units; a demo's statement as a test."""

import inspect
import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import numpy as np
import pytest

from fetopo.microstructure import generate
from fetopo.microstructure.descriptors import (
    anisotropy,
    chord_lengths,
    clusters,
    cross_correlations,
    lineal_path,
    mean_lineal_path,
    pore_sizes,
    surface_from_correlation,
    two_point_along,
    two_point_cluster,
    two_point_correlation,
    two_point_map,
)

IMAGES = {
    shape: generate.electrode(shape, porosity=0.4, particle_radius=4e-6, voxel_size=1e-6, seed=1)
    for shape in ((32, 40), (16, 18, 20))
}
RESULTS = {
    "S2": lambda image, mask: two_point_correlation(mask, image.voxel_size),
    "S2 along": lambda image, mask: two_point_along(mask, image.voxel_size, 1),
    "S2 map": lambda image, mask: two_point_map(mask, image.voxel_size),
    "S_ij": lambda image, mask: cross_correlations(image),
    "L": lambda image, mask: lineal_path(mask, image.voxel_size, 0),
    "mean L": lambda image, mask: mean_lineal_path(mask, image.voxel_size),
    "chords": lambda image, mask: chord_lengths(mask, image.voxel_size, 0),
    "C2": lambda image, mask: two_point_cluster(mask, image.voxel_size),
    "clusters": lambda image, mask: clusters(mask, image.voxel_size),
    "surface": lambda image, mask: surface_from_correlation(mask, image.voxel_size),
    "pores": lambda image, mask: pore_sizes(mask, image.voxel_size),
    "anisotropy": lambda image, mask: anisotropy(mask, image.voxel_size),
}


@pytest.fixture(params=RESULTS)
def make(request):
    return RESULTS[request.param]


@pytest.mark.parametrize("shape", IMAGES)
class TestEveryResult:
    def test_frozen_with_units(self, make, shape):
        result = make(IMAGES[shape], IMAGES[shape].mask(0))
        with pytest.raises(FrozenInstanceError):
            setattr(result, fields(result)[0].name, None)
        text = inspect.cleandoc(type(result).__doc__)
        for field in fields(result):
            assert f"    {field.name}: " in text
        assert "[" in text or field.name == "labels"

    def test_to_dict(self, make, shape):
        result = make(IMAGES[shape], IMAGES[shape].mask(0))
        found = result.to_dict()
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        assert set(found) >= {field.name for field in fields(result)}

    def test_plot(self, make, shape, tmp_path):
        pytest.importorskip("matplotlib")
        from fetopo.figure import new_figure

        result = make(IMAGES[shape], IMAGES[shape].mask(0))
        axes = result.plot()
        labels = axes.get_xlabel() + axes.get_ylabel()
        assert "µm" in labels or "(nm" in labels
        assert axes.get_ylabel().count("(") >= 1
        axes.figure.savefig(tmp_path / "alone.png")
        assert (tmp_path / "alone.png").stat().st_size > 5000
        given = new_figure().subplots()
        assert result.plot(given) is given


def test_chord_density():
    mask = IMAGES[32, 40].mask(0)
    found = chord_lengths(mask, 2e-6, 0)
    assert (found.density * 2e-6).sum() == pytest.approx(1.0)
    assert (found.density * found.length * 2e-6).sum() == pytest.approx(found.mean)
    empty = chord_lengths(np.ones((4, 4), bool), 1.0, 0).to_dict()
    assert empty["density"] == [None] * 4
    assert empty["mean"] is None


@pytest.mark.parametrize("shape", [(96, 96), (24, 24, 24)])
def test_same_s2_other_structure(comm, shape):
    """At φ = ½ an image and its negative share S₂, every lag of it; what counts differs."""
    from fetopo.microstructure.mesh import voxel_cell
    from fetopo.transport.homogenization import effective_conductivity

    image = generate.overlapping_spheres(shape, volume_fraction=0.5, radius=5e-6, seed=5)
    voids, spheres = image.mask(0), image.mask(1)
    maps = [two_point_map(mask, 1e-6, periodic=True).value for mask in (voids, spheres)]
    np.testing.assert_allclose(*maps, rtol=0, atol=1e-14)
    first, second = (mean_lineal_path(mask, 1e-6, periodic=True).value[8] for mask in (voids, spheres))
    assert first > 1.15 * second
    if len(shape) == 2:  # in 3D both phases of these media are connected, and C₂ is S₂ nearly
        connected = [two_point_cluster(mask, 1e-6, periodic=True).value[-1] for mask in (voids, spheres)]
        assert abs(connected[0] - connected[1]) > 0.05
    cell = voxel_cell(comm, image.labels, image.voxel_size)
    k = [
        np.trace(effective_conductivity(cell, values).tensor)
        for values in ({0: 100.0, 1: 1.0}, {0: 1.0, 1: 100.0})
    ]
    assert max(k) > (1.5 if len(shape) == 2 else 1.05) * min(k)


def test_descriptors_need_no_dolfinx():
    """Arrays only: the room is importable, and draws nothing, where neither DOLFINx nor Matplotlib are."""
    code = (
        "import sys; import fetopo.microstructure.descriptors; "
        "bad = {'dolfinx', 'petsc4py', 'matplotlib', 'mpi4py.MPI'} & set(sys.modules); "
        "sys.exit(str(bad) if bad else 0)"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
