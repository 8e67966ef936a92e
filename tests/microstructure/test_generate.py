"""Generated media: exact fractions, periodicity, reproducibility, and the sample that ships in meshes/."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fetopo.microstructure import generate
from fetopo.microstructure.generate._spheres import push_apart, two_nearest
from fetopo.microstructure.generate.electrodes import _radii
from fetopo.microstructure.image import percolating_fraction, read

SAMPLE = Path(__file__).resolve().parents[2] / "meshes" / "electrode_64.tif"


def sample_electrode():
    """The call that made meshes/electrode_64.tif."""
    return generate.electrode(
        (64, 64, 64), porosity=0.40, binder=0.10, particle_radius=3.5e-6, voxel_size=0.5e-6, seed=4
    )


def periodic_and_inner_changes(labels: np.ndarray) -> list[tuple[float, float]]:
    """Per axis, the share of voxels that change across the periodic border and, on average, elsewhere."""
    found = []
    for axis in range(labels.ndim):
        across = np.mean(labels.take(0, axis) != labels.take(-1, axis))
        found.append((float(across), float(np.mean(np.diff(labels.astype(int), axis=axis) != 0))))
    return found


class TestElectrode:
    def test_shipped_sample_is_what_the_generator_makes(self):
        shipped = read(SAMPLE)
        made = sample_electrode()
        np.testing.assert_array_equal(shipped.labels, made.labels)
        assert shipped.voxel_size == made.voxel_size == (0.5e-6,) * 3
        assert SAMPLE.stat().st_size < 60_000

    def test_sample_looks_like_an_electrode(self):
        image = read(SAMPLE)
        assert image.phases == {0: round(0.4 * 64**3) / 64**3, 1: 0.5, 2: round(0.1 * 64**3) / 64**3}
        for axis in range(3):
            assert percolating_fraction(image.mask(0), axis) > 0.97
            assert percolating_fraction(image.mask([1, 2]), axis) > 0.97
        # Binder sits between particles: its voxels touch active material more often than pore voxels do.
        touching = np.zeros(image.shape, dtype=bool)
        for axis in range(3):
            for step in (-1, 1):
                touching |= np.roll(image.labels == 1, step, axis)
        assert touching[image.mask(2)].mean() > 1.5 * touching[image.mask(0)].mean()

    @given(
        shape=st.sampled_from([(24, 24), (30, 20), (16, 16, 16), (12, 20, 16)]),
        porosity=st.floats(0.05, 0.9),
        share=st.floats(0.0, 0.9),
        seed=st.integers(0, 1000),
    )
    @settings(max_examples=25, deadline=None)
    def test_fractions_are_met_to_one_voxel(self, shape, porosity, share, seed):
        binder = share * (1.0 - porosity)
        image = generate.electrode(
            shape, porosity=porosity, binder=binder, particle_radius=3e-6, voxel_size=1e-6, seed=seed
        )
        for label, fraction in {0: porosity, 1: 1.0 - porosity - binder, 2: binder}.items():
            assert abs(image.phases.get(label, 0.0) - fraction) * image.labels.size <= 1.0 + 1e-6

    def test_seed_decides(self):
        options = {"porosity": 0.4, "particle_radius": 4e-6}
        first = generate.electrode((24, 24, 24), **options, seed=1)
        np.testing.assert_array_equal(first.labels, generate.electrode((24,) * 3, **options, seed=1).labels)
        assert (first.labels != generate.electrode((24,) * 3, **options, seed=2).labels).mean() > 0.2

    def test_periodic(self):
        for across, inside in periodic_and_inner_changes(read(SAMPLE).labels):
            assert across < 1.3 * inside  # unrelated faces differ in 0.58 of their voxels, four times as many
            assert inside < 0.2

    def test_roughness_and_size_change_the_surface(self):
        def changes(**options):
            image = generate.electrode((32,) * 3, porosity=0.45, particle_radius=5e-6, seed=3, **options)
            return np.mean([inside for _, inside in periodic_and_inner_changes(image.labels)])

        assert changes(roughness=0.3) > changes(roughness=0.0)

    def test_does_not_depend_on_the_unit_of_length(self):
        micro = generate.electrode((20,) * 3, porosity=0.4, particle_radius=4e-6, voxel_size=1e-6, seed=5)
        metre = generate.electrode((20,) * 3, porosity=0.4, particle_radius=4.0, voxel_size=1.0, seed=5)
        np.testing.assert_array_equal(micro.labels, metre.labels)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"porosity": 0.0}, "porosity is 0.0: expected a number between 0 and 1"),
            ({"porosity": 1.0}, "porosity is 1.0"),
            ({"porosity": float("nan")}, "porosity is nan"),
            ({"binder": 0.6}, r"binder is 0.6: expected 0 to less than 1 − porosity = 0.6"),
            ({"binder": -0.1}, "binder is -0.1"),
            ({"particle_radius": 0.5e-6}, r"particle_radius is 5e-07 m: expected 1e-06 \(a voxel\) to 4e-06"),
            ({"particle_radius": 5e-6}, "a quarter of the cell"),
            ({"radius_spread": -0.1}, "radius_spread is -0.1"),
            ({"roughness": 0.9}, "roughness is 0.9"),
            ({"voxel_size": 0.0}, "voxel_size is 0.0"),
            ({"shape": (16,)}, r"shape is \(16,\)"),
            ({"shape": (16, 0, 16)}, "expected 2 or 3 positive whole numbers"),
        ],
    )
    def test_bad_values(self, options, message):
        options = {"shape": (16, 16, 16), "porosity": 0.4, "particle_radius": 3e-6, "seed": 0} | options
        with pytest.raises(ValueError, match=message):
            generate.electrode(options.pop("shape"), **options)


class TestParticles:
    @pytest.mark.parametrize(("shape", "sides"), [((12, 15), (1.0, 0.8)), ((8, 10, 9), (1.0, 1.0, 1.2))])
    def test_two_nearest_equals_brute_force(self, shape, sides):
        rng = np.random.default_rng(0)
        lengths = np.array(shape) * sides
        centres, radii = rng.random((7, len(shape))) * lengths, rng.uniform(1.0, 2.0, 7)
        voxels = (np.stack(np.indices(shape), axis=-1) + 0.5) * sides
        offset = voxels[..., None, :] - centres
        offset -= lengths * np.rint(offset / lengths)
        scaled = np.sort(np.linalg.norm(offset, axis=-1) / radii, axis=-1)
        first, second = two_nearest(shape, sides, centres, radii, reach=20.0)
        np.testing.assert_allclose(first, scaled[..., 0], rtol=1e-12)
        np.testing.assert_allclose(second, scaled[..., 1], rtol=1e-12)
        near, next_near = two_nearest(shape, sides, centres, radii, reach=2.0)
        np.testing.assert_allclose(near, np.minimum(scaled[..., 0], 2.0), rtol=1e-12)
        np.testing.assert_allclose(next_near, np.minimum(scaled[..., 1], 2.0), rtol=1e-12)

    def test_overlapping_pair_moves_apart_across_the_border(self):
        lengths = np.array([10.0, 10.0])
        centres = np.array([[0.5, 5.0], [9.5, 5.0]])
        moved = push_apart(centres, np.array([1.0, 1.5]), lengths)
        np.testing.assert_allclose(moved, [[1.25, 5.0], [8.75, 5.0]], atol=1e-9)

    def test_little_overlap_is_left(self):
        """Particles at half of the volume end with slight overlaps, where random ones interpenetrate."""
        rng = np.random.default_rng(1)
        lengths = np.full(3, 20.0)
        radii = _radii(rng, 2.5, 0.25, 0.5, lengths)
        assert np.sum(4 / 3 * np.pi * radii**3) == pytest.approx(0.5 * 20.0**3)
        assert radii.std() / radii.mean() == pytest.approx(0.25, abs=0.07)

        def overlap(points):
            gap = points[:, None] - points
            gap -= lengths * np.rint(gap / lengths)
            distance = np.linalg.norm(gap, axis=-1) + 1e9 * np.eye(len(points))
            return np.maximum(radii[:, None] + radii - distance, 0.0).max() / radii.mean()

        centres = rng.random((radii.size, 3)) * lengths
        assert overlap(centres) > 0.8
        assert overlap(push_apart(centres, radii, lengths)) < 0.25


class TestRandomMedia:
    @given(
        shape=st.sampled_from([(24, 24), (30, 20), (16, 16, 16), (12, 20, 16)]),
        fraction=st.floats(0.01, 0.99),
        seed=st.integers(0, 1000),
    )
    @settings(max_examples=30, deadline=None)
    def test_fractions_are_met_to_one_voxel(self, shape, fraction, seed):
        spheres = generate.overlapping_spheres(shape, volume_fraction=fraction, radius=2.5e-6, seed=seed)
        field = generate.gaussian_field(shape, volume_fraction=fraction, correlation_length=2e-6, seed=seed)
        for image in (spheres, field):
            assert abs(image.phases.get(1, 0.0) - fraction) * image.labels.size <= 0.5 + 1e-6

    def test_spheres_are_the_voxels_within_one_radius_of_a_centre(self):
        """One sphere in the cell: its voxels are those nearest to its centre, across the border too."""
        image = generate.overlapping_spheres((32, 32), volume_fraction=0.02, radius=2.6e-6, seed=3)
        rows, columns = np.nonzero(image.labels)
        centre = [np.angle(np.exp(2j * np.pi * x / 32).mean()) * 32 / (2 * np.pi) for x in (rows, columns)]
        offset = [(x - c + 16) % 32 - 16 for x, c in zip(np.indices((32, 32)), centre, strict=True)]
        distance = np.hypot(*offset)
        assert distance[image.labels == 1].max() < distance[image.labels == 0].min() + 0.5

    def test_anisotropic_voxels_give_round_spheres(self):
        image = generate.overlapping_spheres(
            (40, 80), volume_fraction=0.01, radius=4.5e-6, seed=0, voxel_size=(2e-6, 1e-6)
        )
        extent = [
            np.roll(image.labels, shift, axis).any(axis=1 - axis).sum() for axis, shift in ((0, 0), (1, 0))
        ]
        assert extent[0] * 2 == pytest.approx(extent[1], abs=2)

    @pytest.mark.parametrize("shape", [(256, 192), (48, 40, 32)])
    def test_periodic(self, shape):
        spheres = generate.overlapping_spheres(shape, volume_fraction=0.5, radius=5e-6, seed=1)
        field = generate.gaussian_field(shape, volume_fraction=0.5, correlation_length=5e-6, seed=1)
        for image in (spheres, field):
            for across, inside in periodic_and_inner_changes(image.labels):
                assert across < 2.0 * inside < 0.4

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"volume_fraction": 0.0}, "volume_fraction is 0.0"),
            ({"volume_fraction": 1.2}, "volume_fraction is 1.2"),
            ({"radius": 20e-6}, "radius is 2e-05 m"),
            ({"radius": -1e-6}, "radius is -1e-06 m"),
        ],
    )
    def test_bad_values(self, options, message):
        options = {"volume_fraction": 0.3, "radius": 3e-6} | options
        with pytest.raises(ValueError, match=message):
            generate.overlapping_spheres((32, 32), **options, seed=0)
        options["correlation_length"] = options.pop("radius")
        with pytest.raises(ValueError, match=message.replace("radius", "correlation_length")):
            generate.gaussian_field((32, 32), **options, seed=0)


class TestOrderedMedia:
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_laminate(self, axis):
        image = generate.laminate((20, 40, 60), fractions=(0.2, 0.5, 0.3), axis=axis, periods=2)
        assert image.phases == {0: 0.2, 1: 0.5, 2: 0.3}
        lines = np.moveaxis(image.labels, axis, -1).reshape(-1, image.shape[axis])
        assert (lines == lines[0]).all()
        half = image.shape[axis] // 2
        expected = np.repeat([0, 1, 2], [half // 5, half // 2, 3 * half // 10])
        np.testing.assert_array_equal(lines[0], np.tile(expected, 2))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"fractions": (0.5, 0.4)}, "fractions sum to 0.9"),
            ({"fractions": (1.0,)}, "fractions is 1.0"),
            ({"fractions": (0.98, 0.02)}, "layers of one voxel or more"),
            ({"axis": 2}, "axis is 2: expected 0 to 1"),
            ({"periods": 3}, "periods is 3: expected a divisor of the 10 voxels"),
        ],
    )
    def test_bad_laminate(self, options, message):
        with pytest.raises(ValueError, match=message):
            generate.laminate((10, 10), **({"fractions": (0.5, 0.5)} | options))

    @pytest.mark.parametrize("shape", [(8, 12), (8, 4, 12)])
    def test_checkerboard(self, shape):
        image = generate.checkerboard(shape, tile=2)
        assert image.phases == {0: 0.5, 1: 0.5}
        for axis in range(len(shape)):
            np.testing.assert_array_equal(np.roll(image.labels, 2, axis), 1 - image.labels)
        assert not image.labels[(slice(2),) * len(shape)].any()

    @pytest.mark.parametrize("tile", [0, 3, 4])
    def test_bad_checkerboard(self, tile):
        with pytest.raises(ValueError, match=f"tile is {tile}"):
            generate.checkerboard((12, 8), tile=tile)
