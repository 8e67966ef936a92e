"""Images: validation, selection, percolation, and every file format back and forth."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fetopo.microstructure.image import (
    DEFAULT_VOXEL_SIZE,
    Image,
    percolating,
    percolating_fraction,
    percolating_parts,
    read,
    trim,
    write,
)

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def real(name: str) -> Path:
    """Path of a real image; the test is skipped where it is not there."""
    if not (DATA / name).is_file():
        pytest.skip(f"real image {name} is not in ../shared/data")
    return DATA / name


@pytest.fixture
def stack() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, (7, 11, 13), dtype=np.uint8)


class TestValidation:
    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            (np.zeros((0, 3)), "empty"),
            (np.zeros(5, int), "1 dimensions"),
            (np.zeros((2, 2, 2, 2), int), "4 dimensions"),
            (np.array([[0.0, np.nan]]), "NaN"),
            (np.array([[0.0, 0.25]]), "0.25"),
            (np.array([["a", "b"]]), "expected integer labels"),
        ],
    )
    def test_bad_labels(self, labels, message):
        with pytest.raises(ValueError, match=message):
            Image(labels)

    @pytest.mark.parametrize(
        "size", [(-1.0e-6,) * 2, (0.0,) * 2, (np.nan,) * 2, (1.0, 1.0, 1.0), (np.inf, 1.0)]
    )
    def test_bad_voxel_size(self, size):
        with pytest.raises(ValueError, match="voxel_size is"):
            Image(np.zeros((2, 2), int), size)

    def test_converted(self):
        assert Image(np.array([[True, False]])).labels.dtype == np.uint8
        assert Image(np.array([[1.0, 3.0]])).phases == {1: 0.5, 3: 0.5}
        assert Image(np.array([[1, 2]], dtype=">u2")).labels.dtype.isnative

    def test_labels_are_read_only_and_the_source_is_not(self, stack):
        image = Image(stack)
        with pytest.raises(ValueError, match="read-only"):
            image.labels[0, 0, 0] = 1
        stack[0, 0, 0] = 1

    @given(
        hnp.arrays(
            st.sampled_from([np.uint8, np.uint16, np.int32]),
            hnp.array_shapes(min_dims=2, max_dims=3, max_side=6),
            elements=st.integers(0, 90),
        )
    )
    @settings(max_examples=60, deadline=None)
    def test_fractions_sum_to_one_and_count_voxels(self, labels):
        phases = Image(labels).phases
        assert sum(phases.values()) == pytest.approx(1.0, abs=1e-12)
        assert list(phases) == sorted(phases)
        assert all(phases[k] == np.mean(labels == k) for k in phases)


class TestSelection:
    def test_crop_is_centred(self):
        image = Image(np.arange(5 * 6 * 8).reshape(5, 6, 8), (1.0, 2.0, 3.0))
        cropped = image.crop(3)
        np.testing.assert_array_equal(cropped.labels, image.labels[1:4, 1:4, 2:5])
        assert cropped.voxel_size == (1.0, 2.0, 3.0)

    @pytest.mark.parametrize("n", [0, -1, 6])
    def test_crop_out_of_range(self, n):
        with pytest.raises(ValueError, match=f"crop of {n} voxels.*expected 1 to 5"):
            Image(np.zeros((5, 6, 8), int)).crop(n)

    def test_mask(self, stack):
        image = Image(stack)
        np.testing.assert_array_equal(image.mask(1), stack == 1)
        np.testing.assert_array_equal(image.mask(np.uint8(2)), stack == 2)
        np.testing.assert_array_equal(image.mask([0, 2]), stack != 1)

    @pytest.mark.parametrize("phase", [7, [0, 7], []])
    def test_mask_of_absent_phase(self, stack, phase):
        with pytest.raises(ValueError, match="expected labels of the image, 0, 1, 2"):
            Image(stack).mask(phase)

    def test_relabel_and_select(self, stack):
        image = Image(stack)
        np.testing.assert_array_equal(image.relabel({0: 5, 2: -1}).labels, np.array([5, 1, -1])[stack])
        np.testing.assert_array_equal(image.relabel({0: 1, 1: 0}).labels, np.array([1, 0, 2])[stack])
        assert image.relabel({0: 300}).labels.dtype == np.uint16
        np.testing.assert_array_equal(image.select([0, 1]).labels, stack < 2)
        with pytest.raises(ValueError, match="label 9"):
            image.relabel({9: 1})


class TestPercolation:
    def test_known_clusters(self):
        mask = np.zeros((4, 5), dtype=bool)
        mask[:, 1] = True  # through along axis 0
        mask[0, 3:] = True  # touches one face of axis 0 only
        expected = np.zeros_like(mask)
        expected[:, 1] = True
        np.testing.assert_array_equal(percolating(mask, 0), expected)
        assert not percolating(mask, 1).any()
        assert percolating_fraction(mask, 0) == 4 / 6
        kept, removed = trim(mask, 0)
        np.testing.assert_array_equal(kept, expected)
        assert removed == pytest.approx(2 / 6)

    def test_corners_and_edges_do_not_connect(self):
        assert not percolating(np.eye(4, dtype=bool), 0).any()
        mask = np.zeros((2, 2, 1), dtype=bool)
        mask[0, 0] = mask[1, 1] = True
        assert percolating_fraction(mask, 0) == 0.0

    def test_faces_of_different_clusters_do_not_percolate(self):
        mask = np.ones((5, 4, 4), dtype=bool)
        mask[2] = False
        assert [percolating_fraction(mask, axis) for axis in range(3)] == [0.0, 1.0, 1.0]

    def test_empty_phase_and_bad_axis(self):
        assert percolating_fraction(np.zeros((3, 3), dtype=bool), 0) == 0.0
        with pytest.raises(ValueError, match="axis is 2: expected 0 to 1"):
            percolating(np.ones((3, 3), dtype=bool), 2)

    @given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=3, max_side=7)))
    @settings(max_examples=60, deadline=None)
    def test_part_of_the_phase_and_stable(self, mask):
        for axis, part in enumerate(percolating_parts(mask)):
            assert not (part & ~mask).any()
            np.testing.assert_array_equal(percolating(part, axis), part)
            np.testing.assert_array_equal(percolating(mask.swapaxes(0, axis), 0), part.swapaxes(0, axis))


class TestRoundTrip:
    @pytest.mark.parametrize("suffix", [".tif", ".tiff", ".TIF", ".npz"])
    @pytest.mark.parametrize("size", [(1e-6,) * 3, (3.9e-7,) * 3, (1e-6 / 3, 2.5e-7, 1e-9)])
    def test_labels_and_voxel_size(self, tmp_path, stack, suffix, size):
        path = tmp_path / f"image{suffix}"
        write(path, Image(stack, size))
        found = read(path)
        np.testing.assert_array_equal(found.labels, stack)
        assert found.labels.dtype == stack.dtype
        assert found.voxel_size == size

    def test_two_dimensions(self, tmp_path, stack):
        for suffix in (".tif", ".npz", ".npy"):
            path = tmp_path / f"image{suffix}"
            write(path, Image(stack[0], (2e-6, 3e-6)))
            found = read(path, voxel_size=(2e-6, 3e-6) if suffix == ".npy" else None)
            np.testing.assert_array_equal(found.labels, stack[0])
            assert found.voxel_size == (2e-6, 3e-6)

    @pytest.mark.parametrize("values", [[0, 255], [0, 256], [-1, 200], [0, 70000], [-5, 4_000]])
    def test_wide_labels(self, tmp_path, values):
        path = tmp_path / "image.tif"
        labels = np.array(values, dtype=np.int64)[np.random.default_rng(1).integers(0, 2, (4, 5, 6))]
        write(path, Image(labels))
        np.testing.assert_array_equal(read(path).labels, labels)
        with pytest.raises(ValueError, match="32 bits"):
            write(path, Image(labels + 2**40))

    def test_npy_and_caller_overrides(self, tmp_path, stack):
        write(tmp_path / "a.npy", Image(stack, (2e-6,) * 3))
        assert read(tmp_path / "a.npy").voxel_size == (DEFAULT_VOXEL_SIZE,) * 3
        write(tmp_path / "a.tif", Image(stack, (2e-6,) * 3))
        assert read(tmp_path / "a.tif", voxel_size=5e-6).voxel_size == (5e-6,) * 3
        with pytest.raises(ValueError, match="voxel_size is -1"):
            read(tmp_path / "a.tif", voxel_size=-1.0)

    def test_files_say_nothing_of_when_and_where(self, tmp_path, stack):
        write(tmp_path / "a.tif", Image(stack))
        write(tmp_path / "b.tif", Image(stack))
        first, second = (tmp_path / "a.tif").read_bytes(), (tmp_path / "b.tif").read_bytes()
        assert first.replace(b"a.tif", b"b.tif") == second

    def test_failed_write_keeps_the_old_file(self, tmp_path, stack, monkeypatch):
        path = tmp_path / "image.tif"
        write(path, Image(stack))
        before = path.read_bytes()

        def half(file, *args, **kwargs):
            file.write(b"half")
            raise OSError("disk full")

        monkeypatch.setattr(tifffile, "imwrite", half)
        with pytest.raises(OSError, match="disk full"):
            write(path, Image(stack + 1))
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["image.tif"]


class TestForeignTiff:
    @pytest.mark.parametrize("compression", [None, "packbits", "lzw", "zlib"])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, bool])
    @pytest.mark.parametrize("metadata", [None, {}])
    def test_compressed_pages(self, tmp_path, stack, compression, dtype, metadata):
        """Pages in one series, and pages which tifffile calls series of their own."""
        if compression in ("packbits", "lzw"):
            pytest.importorskip("imagecodecs", reason="LZW and PackBits need imagecodecs")
        values = (stack > 0) if dtype is bool else stack.astype(dtype)
        if dtype is bool and compression == "lzw":
            pytest.skip("tifffile does not pack bits for LZW")
        path = tmp_path / "image.tif"
        with tifffile.TiffWriter(path) as tif:
            for page in values:
                tif.write(
                    page,
                    compression=compression,
                    photometric="minisblack",
                    contiguous=False,
                    metadata=metadata,
                )
        found = read(path)
        np.testing.assert_array_equal(found.labels, values)
        assert found.voxel_size == (DEFAULT_VOXEL_SIZE,) * 3

    @pytest.mark.parametrize("unit", ["um", "micron", "\\u00B5m", "mm"])
    def test_imagej(self, tmp_path, stack, unit):
        path = tmp_path / "image.tif"
        metadata = {"spacing": 0.75, "unit": unit, "axes": "ZYX"}
        tifffile.imwrite(path, stack, imagej=True, resolution=(1 / 0.39, 1 / 0.5), metadata=metadata)
        scale = 1e-3 if unit == "mm" else 1e-6
        assert read(path).voxel_size == pytest.approx((0.75 * scale, 0.5 * scale, 0.39 * scale), rel=1e-8)

    @pytest.mark.parametrize(
        ("resolution", "unit", "expected"),
        [
            (20000.0, "centimeter", 5e-7),
            (25400.0, "inch", 1e-6),
            (72.0, "inch", DEFAULT_VOXEL_SIZE),
            (118.11, "centimeter", DEFAULT_VOXEL_SIZE),
            (1.0, "none", DEFAULT_VOXEL_SIZE),
            (20000.0, "none", DEFAULT_VOXEL_SIZE),
        ],
    )
    def test_resolution_tags_count_when_finer_than_print(self, tmp_path, stack, resolution, unit, expected):
        path = tmp_path / "image.tif"
        tifffile.imwrite(
            path, stack, resolution=(resolution,) * 2, resolutionunit=unit, photometric="minisblack"
        )
        assert read(path).voxel_size == pytest.approx((expected,) * 3, rel=1e-8)

    def test_colour_is_refused(self, tmp_path):
        path = tmp_path / "image.tif"
        tifffile.imwrite(path, np.zeros((5, 6, 3), np.uint8), photometric="rgb")
        with pytest.raises(ValueError, match=r"image\.tif: image has colour channels"):
            read(path)


class TestBadFiles:
    def test_missing(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nothing\.tif"):
            read(tmp_path / "nothing.tif")

    def test_unknown_suffix(self, tmp_path):
        (tmp_path / "image.bmp").write_bytes(b"x")
        with pytest.raises(
            ValueError, match=r"image.bmp: unknown suffix '.bmp': expected one of .tif, .tiff, .npy"
        ):
            read(tmp_path / "image.bmp")
        with pytest.raises(ValueError, match=r"cannot write suffix '\.raw'"):
            write(tmp_path / "image.raw", Image(np.zeros((2, 2), int)))

    @pytest.mark.parametrize("compression", [None, "zlib"])
    @pytest.mark.parametrize("paged", [True, False])
    def test_truncated_tiff_wherever_it_is_cut(self, tmp_path, stack, compression, paged):
        whole, cut = tmp_path / "whole.tif", tmp_path / "cut.tif"
        with tifffile.TiffWriter(whole) as tif:
            for page in stack if paged else [stack]:
                tif.write(page, compression=compression, photometric="minisblack", contiguous=False)
        content = whole.read_bytes()
        # The last bytes are a resolution tag of the last page: without them the pixels are still all there.
        for length in [0, 3, 8, 20, *range(60, len(content) - 32, 61)]:
            cut.write_bytes(content[:length])
            with pytest.raises(ValueError, match=r"cut\.tif: "):
                read(cut)

    def test_truncated_numpy(self, tmp_path, stack):
        for suffix in (".npy", ".npz"):
            path = tmp_path / f"cut{suffix}"
            write(path, Image(stack))
            content = path.read_bytes()
            for length in (0, 10, len(content) // 2, len(content) - 1):
                path.write_bytes(content[:length])
                with pytest.raises(ValueError, match=r"cut\.np"):
                    read(path)

    def test_objects_are_not_unpickled(self, tmp_path):
        np.save(tmp_path / "a.npy", np.array([[object()]]), allow_pickle=True)
        with pytest.raises(ValueError, match=r"a\.npy"):
            read(tmp_path / "a.npy")

    def test_npz_names(self, tmp_path, stack):
        path = tmp_path / "several.npz"
        np.savez(path, one=stack, two=stack > 0)
        np.testing.assert_array_equal(read(path, name="two").labels, stack > 0)
        with pytest.raises(ValueError, match="expected one of one, two"):
            read(path)
        with pytest.raises(ValueError, match="array three: expected one of one, two"):
            read(path, name="three")

    def test_raw(self, tmp_path, stack):
        path = tmp_path / "image.raw"
        stack.astype("<u2").tofile(path)
        np.testing.assert_array_equal(read(path, shape=stack.shape, dtype="<u2").labels, stack)
        with pytest.raises(ValueError, match="file has 2002 bytes: expected 1001"):
            read(path, shape=stack.shape, dtype=np.uint8)
        with pytest.raises(ValueError, match="needs shape and dtype"):
            read(path)
        with pytest.raises(ValueError, match="shape is"):
            read(path, shape=(-7, -11, 13), dtype="<u2")
        write(tmp_path / "image.npy", Image(stack))
        with pytest.raises(ValueError, match=r"are for \.raw files"):
            read(tmp_path / "image.npy", shape=stack.shape)


class TestRealImages:
    @pytest.mark.parametrize(
        ("name", "options", "shape", "phases"),
        [
            ("nmc_electrode.tif", {}, (251, 301, 301), {0: 0.4005, 1: 0.4995, 2: 0.1}),
            ("electrode_three_phase.tiff", {}, (256,) * 3, {0: 0.45, 85: 0.4, 170: 0.15}),
            ("bentheimer_sandstone.npz", {}, (500,) * 3, {0: 0.8003, 1: 0.1997}),
            (
                "berea_200x200x200_uint8.raw",
                {"shape": (200,) * 3, "dtype": np.uint8},
                (200,) * 3,
                {0: 0.199, 255: 0.801},
            ),
            ("ketton_carbonate.tif", {}, (256,) * 3, {0: 0.127, 255: 0.873}),
            ("taufactor_joss_500.npz", {}, (500,) * 3, {0: 0.7, 1: 0.3}),
            (
                "cast_iron_100x100x100_uint8.raw",
                {"shape": (100,) * 3, "dtype": np.uint8},
                (100,) * 3,
                {87: 0.1139, 182: 0.8861},
            ),
        ],
    )
    def test_shape_and_fractions(self, name, options, shape, phases):
        image = read(real(name), **options)
        assert image.shape == shape
        assert image.phases.keys() == phases.keys()
        for label, fraction in phases.items():
            digits = len(str(fraction).split(".")[1])
            assert image.phases[label] == pytest.approx(fraction, abs=0.51 * 10.0 ** -max(3, digits))

    @pytest.mark.parametrize(
        ("name", "phase", "porosity"),
        [
            ("nmc_electrode.tif", 0, 0.39366),
            ("bentheimer_sandstone.npz", 1, 0.17413),
            ("ketton_carbonate.tif", 0, 0.13424),
            ("electrode_three_phase.tiff", 0, 0.43726),
        ],
    )
    def test_porosity_of_the_centred_crop(self, name, phase, porosity):
        """Values of the table in ../shared/data/README.md, @100."""
        cropped = read(real(name)).crop(100)
        assert cropped.phases[phase] == pytest.approx(porosity, abs=5.1e-6)
        assert percolating_fraction(cropped.mask(phase), 0) > 0.8
