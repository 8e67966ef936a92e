"""Segmentation: thresholds against brute force, filters by hand, reports that count, real tomograms."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.filters import threshold_otsu

from fetopo.microstructure.image import GreyImage, Image, read_grey
from fetopo.microstructure.segment import majority_filter, otsu, remove_islands, segment, threshold

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def real(name: str) -> Path:
    """Path of a real image; the test is skipped where it is not there."""
    if not (DATA / name).is_file():
        pytest.skip(f"real image {name} is not in ../shared/data")
    return DATA / name


def between(values, thresholds):
    """Variance between the phases."""
    parts = [values[np.digitize(values, thresholds) == k] for k in range(len(thresholds) + 1)]
    return sum(part.size * (part.mean() - values.mean()) ** 2 for part in parts if part.size) / values.size


@pytest.fixture
def three():
    """Three phases in bands along the last axis, 20 wide, with grey values 50, 120, 200 and noise."""
    rng = np.random.default_rng(0)
    clean = np.repeat([50.0, 120.0, 200.0], 20)[None, None, :].repeat(12, 0).repeat(12, 1)
    return np.clip(clean + rng.normal(0, 8, clean.shape), 0, 255).astype(np.uint8)


class TestThresholds:
    @given(
        hnp.arrays(
            np.uint8, hnp.array_shapes(min_dims=2, max_dims=3, max_side=6), elements=st.integers(3, 14)
        ),
        st.integers(2, 4),
    )
    @settings(max_examples=80, deadline=None)
    def test_otsu_is_best_of_all(self, values, phases):
        different = np.unique(values)
        grey = GreyImage(values)
        if different.size < phases:
            with pytest.raises(ValueError, match=f"grey image has {different.size} different values"):
                otsu(grey, phases)
            return
        best = max(between(values, t) for t in combinations(different[1:], phases - 1))
        found = otsu(grey, phases)
        assert between(values, found) == pytest.approx(best, rel=1e-12)
        assert list(threshold(grey, found).phases) == list(range(phases))

    @pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
    def test_otsu_of_other_types(self, three, dtype):
        values = three.astype(dtype) * 257 if dtype != np.float32 else three.astype(dtype) / 255 - 0.5
        found = otsu(GreyImage(values), 3)
        exact = np.digitize(three, otsu(GreyImage(three), 3))
        assert np.mean(np.digitize(values, found) != exact) < 0.002
        with pytest.raises(
            ValueError, match=r"1 different values between 0\.5 and 0\.5: expected at least 2"
        ):
            otsu(GreyImage(np.full((3, 3), 0.5)))

    def test_label_holds_the_value_at_its_threshold(self):
        image = threshold(GreyImage(np.array([[0, 89, 90, 91, 255]], np.uint8), 2e-6), [90])
        np.testing.assert_array_equal(image.labels, [[0, 0, 1, 1, 1]])
        assert image.voxel_size == (2e-6,) * 2
        image = threshold(GreyImage(np.array([[-1.0, 0.25, 0.5, 2.0]])), [0.25, 2])
        np.testing.assert_array_equal(image.labels, [[0, 1, 1, 2]])

    @pytest.mark.parametrize(
        ("thresholds", "message"),
        [
            ([], "expected one or more finite"),
            ([np.nan], "expected one or more finite"),
            ([100, 90], "expected ascending"),
            ([90, 90], "expected ascending"),
            ([300], "threshold.*300 leave phase 1 without voxels: expected values above"),
            ([-1], "leave phase 0 without"),
            ([100.2, 100.5], "leave phase 1 without"),
        ],
    )
    def test_bad_thresholds(self, three, thresholds, message):
        with pytest.raises(ValueError, match=message):
            segment(GreyImage(three), thresholds=thresholds)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"phases": 1}, "phases is 1: expected at least 2"),
            ({"median": 2}, "median is 2: expected an odd"),
            ({"median": 0}, "median is 0"),
            ({"majority": 13}, "majority is 13.*at most 12"),
            ({"smallest": 0}, "smallest is 0: expected 1 to 8640"),
        ],
    )
    def test_bad_options(self, three, options, message):
        with pytest.raises(ValueError, match=message):
            segment(GreyImage(three), **options)


class TestFilters:
    @pytest.mark.parametrize("shape", [(9, 10), (6, 7, 8)])
    def test_majority_by_counting(self, shape):
        labels = np.random.default_rng(1).choice([2, 5, 9], shape)
        found, step = majority_filter(Image(labels), 3)
        padded = np.pad(labels, 1, mode="edge")
        for at in np.ndindex(shape):
            box = padded[tuple(slice(a, a + 3) for a in at)]
            counts = {label: int((box == label).sum()) for label in (2, 5, 9)}
            best = [label for label in counts if counts[label] == max(counts.values())]
            assert found.labels[at] == (labels[at] if labels[at] in best else best[0])
        assert step.changed == (found.labels != labels).sum()

    def test_islands(self):
        labels = np.zeros((8, 9), dtype=np.uint8)
        labels[:, 4:] = 7
        labels[1, 1] = 7  # one voxel within phase 0
        labels[5:7, 6:8] = 0  # four voxels within phase 7
        labels[0, 8] = 3  # a corner
        image = Image(labels, 2e-6)
        found, step = remove_islands(image, 4)
        expected = labels.copy()
        expected[1, 1], expected[0, 8] = 0, 7
        np.testing.assert_array_equal(found.labels, expected)
        assert found.voxel_size == image.voxel_size
        assert (step.changed, step.before, step.after) == (2, image.phases, found.phases)
        np.testing.assert_array_equal(
            remove_islands(image, 5)[0].labels, np.repeat([0, 7], [4, 5]) * np.ones((8, 1))
        )
        with pytest.raises(ValueError, match="every cluster has fewer than 72 voxels"):
            remove_islands(image, 72)

    def test_islands_that_touch_islands_are_filled_from_outside(self):
        labels = np.zeros((9, 9, 9), dtype=np.int64)
        labels[3:6, 3:6, 3:6] = 1
        labels[4, 4, 4] = -2
        found, step = remove_islands(Image(labels), 28)
        assert found.phases == {0: 1.0}
        assert step.changed == 27

    @given(
        hnp.arrays(
            np.uint8, hnp.array_shapes(min_dims=2, max_dims=3, max_side=7), elements=st.integers(0, 2)
        ),
        st.integers(1, 6),
    )
    @settings(max_examples=80, deadline=None)
    def test_large_clusters_stay(self, labels, smallest):
        """No voxel of a large cluster changes, and no small cluster is left."""
        large = np.zeros(labels.shape, dtype=bool)
        for label in np.unique(labels):
            clusters, _ = ndimage.label(labels == label)
            large |= (np.bincount(clusters.ravel())[clusters] >= smallest) & (clusters > 0)
        if smallest > labels.size or not large.any():
            with pytest.raises(ValueError, match=r"expected"):
                remove_islands(Image(labels), smallest)
            return
        found, step = remove_islands(Image(labels), smallest)
        np.testing.assert_array_equal(found.labels[large], labels[large])
        assert step.changed <= (~large).sum()
        for label in found.phases:
            clusters, _ = ndimage.label(found.labels == label)
            assert np.bincount(clusters.ravel())[1:].min() >= smallest


class TestSegment:
    @pytest.mark.parametrize("dim", [2, 3])
    def test_three_phases(self, three, dim):
        rng = np.random.default_rng(5)
        values = three.copy()
        values[rng.random(values.shape) < 0.02] = 255
        if dim == 2:
            values = values[5]
        exact = np.repeat([0, 1, 2], 20) * np.ones(values.shape, int)
        found = segment(GreyImage(values, 3e-6), phases=3, median=3, majority=3, smallest=20)
        np.testing.assert_array_equal(found.image.labels, exact)
        assert found.image.voxel_size == (3e-6,) * dim
        assert [step.name.split(" of")[0].split()[0] for step in found.steps] == [
            "thresholds", "median", "majority", "islands",
        ]  # fmt: skip
        assert found.steps[0].changed == values.size
        assert found.steps[0].before == {}
        assert found.steps[1].changed > 0
        for earlier, later in zip(found.steps, found.steps[1:], strict=False):
            assert later.before == earlier.after
        assert found.steps[-1].after == found.image.phases

    def test_steps_in_words(self):
        values = np.zeros((4, 5), np.uint8)
        values[:, 3:] = 9
        values[1, 1] = 9
        found = segment(GreyImage(values), thresholds=[5], smallest=2)
        assert found.thresholds == (5.0,)
        assert str(found.steps[1]) == (
            "islands below 2: 1 voxels changed; fractions 0: 0.55000 → 0.60000, 1: 0.45000 → 0.40000"
        )

    def test_real_carbon_fibre(self):
        """Porosity of ../shared/data/README.md: fibre is 90 and above."""
        grey = read_grey(real("fiberform_grey.tif"))
        found = segment(grey, thresholds=[90], majority=3, smallest=30)
        assert found.steps[0].after[0] == pytest.approx(0.83286, abs=5.1e-6)
        assert 0 < found.steps[2].changed < found.steps[1].changed < 0.03 * grey.values.size
        (by_otsu,) = otsu(grey)
        assert between(grey.values.ravel().astype(float), [by_otsu]) >= between(
            grey.values.ravel().astype(float), [threshold_otsu(grey.values) + 1]
        ) * (1 - 1e-6)

    @pytest.mark.parametrize(
        ("name", "side", "fraction"),
        [("cast_iron_100x100x100_uint8.raw", 100, 0.1139), ("berea_200x200x200_uint8.raw", 200, 0.199)],
    )
    def test_real_two_phase_images(self, name, side, fraction):
        """Whatever the two grey values are, Otsu's threshold parts them."""
        grey = read_grey(real(name), shape=(side,) * 3, dtype="uint8")
        found = segment(grey, smallest=8)
        digits = len(str(fraction).split(".")[1])
        assert found.steps[0].after[0] == pytest.approx(fraction, abs=0.51 * 10.0**-digits)
        assert found.steps[1].changed < 0.01 * grey.values.size
