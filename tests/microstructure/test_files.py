"""Formats beyond our own, and windows: what is read of a file, and that no more of it is."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage.io import imsave

from fetopo.microstructure._files import natural
from fetopo.microstructure.image import (
    DEFAULT_VOXEL_SIZE,
    GreyImage,
    Image,
    read,
    read_grey,
    read_slab,
    write,
)

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
MEBI = 2**20


def real(name: str) -> Path:
    """Path of a real image; the test is skipped where it is not there."""
    if not (DATA / name).is_file():
        pytest.skip(f"real image {name} is not in ../shared/data")
    return DATA / name


@pytest.fixture
def stack() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3, (7, 11, 13), dtype=np.uint8)


def pages(path, values, compression, metadata=None):
    with tifffile.TiffWriter(path) as tif:
        for page in values:
            tif.write(
                page, compression=compression, photometric="minisblack", contiguous=False, metadata=metadata
            )


def slices(folder, values, suffix=".tif", name="slice{}"):
    folder.mkdir(exist_ok=True)
    for k, page in enumerate(values):
        if suffix == ".tif":
            tifffile.imwrite(folder / (name.format(k) + suffix), page, photometric="minisblack")
        else:
            imsave(folder / (name.format(k) + suffix), page, check_contrast=False)
    return folder


class Writer:
    """The same array in every format that can be read; returns its path and the options of `read`."""

    def __init__(self, folder, values):
        self.folder, self.values = folder, values

    def __call__(self, kind):
        path, options = self.folder / f"image{kind[kind.find('.') :]}", {}
        if kind == "fortran.npy":
            np.save(path, np.asfortranarray(self.values))
        elif kind == "big endian.npy":
            np.save(path, self.values.astype(">u2"))
        elif kind == "fortran.npz":
            np.savez_compressed(path, labels=np.asfortranarray(self.values))
        elif kind in ("lzw.tif", "zlib.tif", "none.tif"):
            pytest.importorskip("imagecodecs")
            pages(path, self.values, {"none": None}.get(kind[:-4], kind[:-4]))
        elif kind == "one write.tif":
            tifffile.imwrite(path, self.values, photometric="minisblack")
        elif kind == "big endian.tif":
            tifffile.imwrite(path, self.values.astype(">u2"), photometric="minisblack", byteorder=">")
        elif kind == "bits.tif":
            tifffile.imwrite(path, self.values == 1, photometric="minisblack")
        elif kind == "volume.tif":
            tifffile.imwrite(path, self.values, photometric="minisblack", volumetric=True, compression="zlib")
        elif kind == "folder":
            path = slices(self.folder / "slices", self.values)
        elif kind == ".raw":
            self.values.tofile(path)
            options = {"shape": self.values.shape, "dtype": self.values.dtype}
        else:
            write(path, Image(self.values))
        return path, options, self.values == 1 if kind == "bits.tif" else self.values


KINDS = [
    ".npy", "fortran.npy", "big endian.npy", ".npz", "fortran.npz", ".raw", ".vti", "folder", ".tif",
    "one write.tif", "none.tif", "lzw.tif", "zlib.tif", "big endian.tif", "bits.tif", "volume.tif",
]  # fmt: skip


class TestWindows:
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_format_in_part(self, tmp_path, stack, kind):
        path, options, values = Writer(tmp_path, stack)(kind)
        np.testing.assert_array_equal(read(path, **options).labels, values)
        np.testing.assert_array_equal(read(path, crop=5, **options).labels, values[1:6, 3:8, 4:9])
        crop = ((2, 0, 5), (4, 11, 1))
        np.testing.assert_array_equal(read(path, crop=crop, **options).labels, values[2:6, :, 5:6])
        found = read(path, crop=crop, slab=(1, 3), **options)
        np.testing.assert_array_equal(found.labels, values[3:5, :, 5:6])
        np.testing.assert_array_equal(read_grey(path, slab=(6, 7), **options).values, values[6:])

    @pytest.mark.parametrize("kind", [".npy", ".tif", ".npz", ".vti"])
    def test_two_dimensions_in_part(self, tmp_path, stack, kind):
        write(tmp_path / f"flat{kind}", Image(stack[0]))
        found = read(tmp_path / f"flat{kind}", crop=((1, 2), (3, 4)))
        np.testing.assert_array_equal(found.labels, stack[0, 1:4, 2:6])

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"crop": 8}, r"crop of 8 voxels.*expected 1 to 7"),
            ({"crop": 0}, r"crop of 0"),
            ({"crop": ((0, 0, 0), (7, 11, 14))}, r"expected a part of an image of shape \(7, 11, 13\)"),
            ({"crop": ((-1, 0, 0), (2, 2, 2))}, r"expected a part"),
            ({"crop": ((0, 0), (2, 2))}, r"expected a part"),
            ({"crop": ((0, 0, 0), (2, 0, 2))}, r"expected a part"),
            ({"crop": (1, 2)}, r"expected a number of voxels or \(start, shape\)"),
            ({"slab": (3, 3)}, r"slab is \(3, 3\): expected 0 ≤ start < stop ≤ 7"),
            ({"slab": (3, 6), "crop": 5}, r"≤ 5"),
            ({"voxel_size": 0.0}, "voxel_size is 0"),
        ],
    )
    def test_bad_part(self, tmp_path, stack, kind, options, message):
        path, more, _ = Writer(tmp_path, stack)(kind)
        with pytest.raises(ValueError, match=message):
            read(path, **options, **more)

    @pytest.mark.parametrize("size", [1, 2, 3, 7])
    def test_slabs_of_ranks_make_the_image(self, tmp_path, stack, size):
        write(tmp_path / "image.tif", Image(stack, (2e-6,) * 3))
        found = [read_slab(tmp_path / "image.tif", rank, size) for rank in range(size)]
        np.testing.assert_array_equal(np.concatenate([part.labels for part, _ in found]), stack)
        assert [first for _, first in found] == list(
            np.cumsum([0, *(part.shape[0] for part, _ in found[:-1])])
        )
        assert max(p.shape[0] for p, _ in found) - min(p.shape[0] for p, _ in found) <= 1
        assert found[-1][0].voxel_size == (2e-6,) * 3

    def test_slab_of_a_crop_and_bad_ranks(self, tmp_path, stack):
        write(tmp_path / "image.npy", Image(stack))
        part, first = read_slab(tmp_path / "image.npy", 1, 2, crop=4)
        assert first == 2
        np.testing.assert_array_equal(part.labels, stack[3:5, 3:7, 4:8])
        with pytest.raises(ValueError, match="7 rows along axis 0 for 8 ranks"):
            read_slab(tmp_path / "image.npy", 0, 8)
        with pytest.raises(ValueError, match="rank is 2 of 2"):
            read_slab(tmp_path / "image.npy", 2, 2)
        with pytest.raises(TypeError, match="voxelsize"):
            read_slab(tmp_path / "image.npy", 0, 1, voxelsize=1.0)

    @pytest.mark.parametrize("kind", [".npy", "one write.tif", "zlib.tif", ".raw", "folder", ".npz"])
    def test_memory_of_a_crop(self, tmp_path, kind):
        """A 50³ part of 20 MiB: below 2 MiB at its peak."""
        rng = np.random.default_rng(1)
        values = np.broadcast_to(rng.integers(0, 3, (1, 280, 280), dtype=np.uint8), (260, 280, 280)).copy()
        path, options, _ = Writer(tmp_path, values)(kind)
        tracemalloc.start()
        try:
            found = read(path, crop=50, **options)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        np.testing.assert_array_equal(found.labels, values[105:155, 115:165, 115:165])
        assert values.nbytes > 19 * MEBI
        assert peak < (4 if kind.endswith("lib.tif") else 2) * MEBI

    def test_only_the_pages_needed_are_decoded(self, tmp_path, stack, monkeypatch):
        decoded = []
        whole = tifffile.TiffPage.asarray

        def counted(page, *args, **kwargs):
            decoded.append(page.index)
            return whole(page, *args, **kwargs)

        monkeypatch.setattr(tifffile.TiffPage, "asarray", counted)
        for metadata in (None, {}):
            decoded.clear()
            pages(tmp_path / "image.tif", stack, "zlib", metadata)
            found = read(tmp_path / "image.tif", crop=((2, 1, 1), (3, 4, 4)))
            assert decoded == [2, 3, 4]
            np.testing.assert_array_equal(found.labels, stack[2:5, 1:5, 1:5])

    def test_what_is_read_does_not_hang_on_the_file(self, tmp_path, stack):
        write(tmp_path / "image.npy", Image(stack))
        found = read(tmp_path / "image.npy")
        np.load(tmp_path / "image.npy", mmap_mode="r+")[:] = 9
        np.testing.assert_array_equal(found.labels, stack)


class TestGrey:
    @pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.int16, np.float32, np.float64])
    def test_tiff(self, tmp_path, compression, dtype):
        pytest.importorskip("imagecodecs")
        values = (np.random.default_rng(2).random((4, 5, 6)) * 250.5).astype(dtype)
        path = tmp_path / "grey.tif"
        tifffile.imwrite(path, values, compression=compression, photometric="minisblack")
        found = read_grey(path, voxel_size=2e-6)
        np.testing.assert_array_equal(found.values, values)
        assert found.values.dtype == dtype
        assert found.voxel_size == (2e-6,) * 3
        if values.dtype.kind == "f":
            with pytest.raises(ValueError, match=r"grey\.tif: image holds .*expected integer labels"):
                read(path)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (np.zeros((3, 0)), "empty"),
            (np.zeros(3), "1 dimensions"),
            (np.array([[0.5, np.nan, np.inf]]), "2 values that are NaN or infinite"),
            (np.zeros((2, 2), complex), "complex128: expected real numbers"),
        ],
    )
    def test_bad_values(self, values, message):
        with pytest.raises(ValueError, match=message):
            GreyImage(values)

    def test_bad_voxel_size_and_crop(self):
        with pytest.raises(ValueError, match="voxel_size is -1"):
            GreyImage(np.zeros((2, 2)), -1.0)
        assert GreyImage(np.ones((4, 6), bool)).crop(2).shape == (2, 2)
        with pytest.raises(ValueError, match="crop of 5"):
            GreyImage(np.zeros((4, 6))).crop(5)
        with pytest.raises(ValueError, match="read-only"):
            GreyImage(np.zeros((4, 6))).values[0, 0] = 1


class TestFolder:
    def test_natural_order(self):
        names = ["s10.tif", "s9.tif", "S1.tif", "s2b.tif", "s2a3.tif", "s2a20.tif", "1.tif", "s.tif"]
        assert sorted(names, key=natural) == [
            "1.tif", "S1.tif", "s2a3.tif", "s2a20.tif", "s2b.tif", "s9.tif", "s10.tif", "s.tif",
        ]  # fmt: skip

    @pytest.mark.parametrize("suffix", [".tif", ".png", ".bmp"])
    @pytest.mark.parametrize("name", ["slice{}", "slice{:04d}", "{}"])
    def test_slices(self, tmp_path, suffix, name):
        values = np.random.default_rng(3).integers(0, 200, (12, 4, 5), dtype=np.uint8)
        folder = slices(tmp_path / "scan", values, suffix, name)
        (folder / "notes.txt").write_text("not a slice")
        (folder / f".hidden{suffix}").write_bytes(b"not a slice")
        np.testing.assert_array_equal(read_grey(folder).values, values)
        np.testing.assert_array_equal(read(folder, slab=(9, 12)).labels, values[9:])

    def test_voxel_size_of_the_slices(self, tmp_path, stack):
        for k, page in enumerate(stack):
            write(tmp_path / f"{k}.tif", Image(page, (3e-6, 3e-6)))
        assert read(tmp_path).voxel_size == (3e-6,) * 3

    def test_bad_folders(self, tmp_path, stack):
        with pytest.raises(ValueError, match="slices of type none: expected files of one type"):
            read(tmp_path)
        folder = slices(tmp_path / "scan", stack)
        tifffile.imwrite(folder / "slice3.tif", stack[3, :5])
        with pytest.raises(ValueError, match=r"slice3\.tif has shape \(5, 13\): expected \(11, 13\)"):
            read(folder)
        tifffile.imwrite(folder / "slice3.tif", stack[3].astype(np.uint16))
        with pytest.raises(ValueError, match=r"slice3\.tif holds uint16: expected uint8"):
            read(folder)
        content = (folder / "slice2.tif").read_bytes()
        (folder / "slice3.tif").write_bytes(content[:200])
        with pytest.raises(ValueError, match=r"slice3\.tif"):
            read(folder)
        (folder / "slice3.tif").write_bytes(content)
        imsave(folder / "preview.png", stack[0], check_contrast=False)
        with pytest.raises(ValueError, match=r"slices of type \.png, \.tif"):
            read(folder)
        for file in folder.glob("*.tif"):
            file.unlink()
        content = (folder / "preview.png").read_bytes()
        (folder / "preview.png").write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=r"slice preview\.png"):
            read(folder)
        imsave(folder / "preview.png", np.zeros((4, 5, 3), np.uint8), check_contrast=False)
        with pytest.raises(ValueError, match=r"preview\.png has shape \(4, 5, 3\): expected one value"):
            read(folder)
        (folder / "preview.png").unlink()
        tifffile.imwrite(folder / "a.tif", stack, photometric="minisblack")
        with pytest.raises(ValueError, match=r"a\.tif has shape \(7, 11, 13\): expected slices of two"):
            read(folder)


class TestVti:
    @pytest.fixture(autouse=True)
    def _vtk(self):
        pytest.importorskip("vtkmodules", reason=".vti needs VTK")

    @pytest.mark.parametrize("size", [(1e-6,) * 3, (1e-6 / 3, 2.5e-7, 1.0)])
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
    def test_there_and_back(self, tmp_path, stack, size, dtype):
        write(tmp_path / "a.vti", Image(stack.astype(dtype) * 100, size))
        found = read(tmp_path / "a.vti")
        np.testing.assert_array_equal(found.labels, stack.astype(dtype) * 100)
        assert found.labels.dtype == dtype
        assert found.voxel_size == size

    @pytest.mark.parametrize("shape", [(1, 5, 6), (5, 1, 1), (5, 6), (1, 4)])
    def test_thin_images_keep_their_axes(self, tmp_path, shape):
        labels = np.arange(int(np.prod(shape))).reshape(shape)
        write(tmp_path / "a.vti", Image(labels, (2e-6, 3e-6, 4e-6)[: len(shape)]))
        found = read(tmp_path / "a.vti")
        np.testing.assert_array_equal(found.labels, labels)
        assert found.voxel_size == (2e-6, 3e-6, 4e-6)[: len(shape)]

    @pytest.mark.parametrize("spacing", [1.0, 2.5e-6])
    def test_of_others(self, tmp_path, stack, spacing):
        """Values at points, as most image programs write them; a spacing of 1 is no metre."""
        pv = pytest.importorskip("pyvista")
        grid = pv.ImageData(dimensions=stack.shape[::-1], spacing=(spacing,) * 3)
        grid.point_data["grey"] = stack.ravel() * 0.5
        grid.point_data["labels"] = stack.ravel()
        grid.save(tmp_path / "a.vti")
        found = read(tmp_path / "a.vti", crop=((1, 2, 3), (4, 5, 6)))
        np.testing.assert_array_equal(found.labels, stack[1:5, 2:7, 3:9])
        assert found.voxel_size == (DEFAULT_VOXEL_SIZE if spacing == 1.0 else spacing,) * 3
        np.testing.assert_array_equal(read_grey(tmp_path / "a.vti", name="grey").values, stack * 0.5)
        with pytest.raises(ValueError, match="array other: expected one of grey, labels"):
            read(tmp_path / "a.vti", name="other")

    def test_truncated(self, tmp_path, stack):
        write(tmp_path / "a.vti", Image(stack))
        content = (tmp_path / "a.vti").read_bytes()
        for length in [0, 10, *range(60, len(content) - 1, 97)]:
            (tmp_path / "a.vti").write_bytes(content[:length])
            with pytest.raises(ValueError, match=r"a\.vti: (truncated VTI|no VTK ImageData)"):
                read(tmp_path / "a.vti")

    def test_damaged(self, tmp_path, stack):
        write(tmp_path / "a.vti", Image(stack))
        content = (tmp_path / "a.vti").read_bytes()
        cut = content.index(b"</VTKFile>")
        (tmp_path / "a.vti").write_bytes(content[: cut // 2] + b"\n  </AppendedData>\n" + content[cut:])
        with pytest.raises(ValueError, match=r"a\.vti: "):
            read(tmp_path / "a.vti")


def vtk_writes(path, stack, *, mode, packed, long=True, big=False, name="labels"):
    """A file by VTK itself: cells of one array, in several blocks when packed."""
    vtk = pytest.importorskip("vtkmodules.vtkIOXML", reason="compares with files of VTK's")
    pv = pytest.importorskip("pyvista")
    grid = pv.ImageData(dimensions=[n + 1 for n in stack.shape[::-1]], spacing=(2e-6,) * 3, origin=(1, 2, 3))
    grid.cell_data[name] = stack.ravel()
    writer = vtk.vtkXMLImageDataWriter()
    writer.SetInputData(grid)
    writer.SetFileName(str(path))
    {"ascii": writer.SetDataModeToAscii, "binary": writer.SetDataModeToBinary}.get(
        mode, writer.SetDataModeToAppended
    )()
    writer.SetEncodeAppendedData(mode == "base64")
    {
        "zlib": writer.SetCompressorTypeToZLib, "lz4": writer.SetCompressorTypeToLZ4,
        "lzma": writer.SetCompressorTypeToLZMA, "": writer.SetCompressorTypeToNone,
    }[packed]()  # fmt: skip
    writer.SetBlockSize(1024)
    (writer.SetHeaderTypeToUInt64 if long else writer.SetHeaderTypeToUInt32)()
    (writer.SetByteOrderToBigEndian if big else writer.SetByteOrderToLittleEndian)()
    assert writer.Write() == 1


class TestVtiOfVtk:
    @pytest.mark.parametrize("long", [True, False])
    @pytest.mark.parametrize("packed", ["", "zlib", "lz4", "lzma"])
    @pytest.mark.parametrize("mode", ["ascii", "binary", "base64", "raw"])
    def test_every_way_to_write(self, tmp_path, mode, packed, long):
        if packed == "lz4":
            pytest.importorskip("imagecodecs", reason="LZ4 needs imagecodecs")
        stack = np.random.default_rng(0).integers(0, 1000, (7, 11, 13)).astype(np.int16)
        for big in (False, True):
            vtk_writes(tmp_path / "a.vti", stack, mode=mode, packed=packed, long=long, big=big)
            found = read(tmp_path / "a.vti")
            np.testing.assert_array_equal(found.labels, stack)
            assert found.labels.dtype == np.int16
            assert found.voxel_size == (2e-6,) * 3
            part = read(tmp_path / "a.vti", crop=((2, 3, 4), (4, 5, 6)), slab=(1, 3))
            np.testing.assert_array_equal(part.labels, stack[3:5, 3:8, 4:10])

    @pytest.mark.parametrize("packed", ["", "zlib", "lzma"])
    @pytest.mark.parametrize("mode", ["ascii", "binary", "base64", "raw"])
    def test_damage_is_a_value_error(self, tmp_path, mode, packed):
        """Bytes changed, lost or added anywhere: an image of the same shape or a ValueError, and no crash."""
        stack = np.random.default_rng(0).integers(0, 200, (5, 6, 7)).astype(np.uint8)
        vtk_writes(tmp_path / "a.vti", stack, mode=mode, packed=packed)
        content = (tmp_path / "a.vti").read_bytes()
        rng = np.random.default_rng(1)
        told = 0
        for k in range(150):
            damaged = bytearray(content)
            at = int(rng.integers(len(content)))
            if k % 3 == 0:
                del damaged[at : at + int(rng.integers(1, 40))]
            elif k % 3 == 1:
                damaged[at] = int(rng.integers(256))
            else:
                damaged[at:at] = bytes(rng.integers(0, 256, 5, dtype=np.uint8))
            (tmp_path / "b.vti").write_bytes(damaged)
            try:
                read_grey(tmp_path / "b.vti")
            except ValueError as error:
                told += "b.vti: " in str(error)
        assert told > 70

    def test_pieces(self, tmp_path):
        stack = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
        piece = """<Piece Extent="{}"><CellData><DataArray type="UInt8" Name="labels" format="ascii">{}
            </DataArray></CellData></Piece>"""
        text = """<?xml version="1.0"?><VTKFile type="ImageData" byte_order="LittleEndian">
            <ImageData WholeExtent="0 3 1 5 2 8" Spacing="1e-6 2e-6 3e-6">{}</ImageData></VTKFile>"""
        pieces = [
            piece.format("0 3 1 5 2 4", " ".join(map(str, stack[:2].ravel()))),
            piece.format("0 1 1 5 4 8", " ".join(map(str, stack[2:, :, :1].ravel()))),
            piece.format("1 3 1 5 4 8", " ".join(map(str, stack[2:, :, 1:].ravel()))),
        ]
        path = tmp_path / "a.vti"
        path.write_text(text.format("".join(pieces)))
        np.testing.assert_array_equal(read(path).labels, stack)
        np.testing.assert_array_equal(read(path, slab=(1, 4)).labels, stack[1:4])
        assert read(path).voxel_size == (3e-6, 2e-6, 1e-6)
        path.write_text(text.format("".join(pieces[:2])))
        with pytest.raises(ValueError, match="do not fill the extent"):
            read(path)
        path.write_text(text.format("".join(pieces)).replace("0 3 1 5 2 4", "0 3 1 5 1 3"))
        with pytest.raises(ValueError, match="a piece of extent"):
            read(path)


class TestBadOptions:
    def test_told_before_the_file_is_read(self, tmp_path, stack, monkeypatch):
        """A wrong voxel size or crop costs no reading: no page is decoded."""
        write(tmp_path / "image.tif", Image(stack))
        monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *a, **k: pytest.fail("decoded"))
        for options in ({"voxel_size": -1.0}, {"voxel_size": (1.0, 1.0)}, {"crop": 99}, {"slab": (0, 99)}):
            with pytest.raises(ValueError, match=r"image\.tif: "):
                read(tmp_path / "image.tif", **options)

    def test_empty_arrays(self, tmp_path):
        np.save(tmp_path / "a.npy", np.zeros((3, 0, 2), np.uint8))
        np.savez(tmp_path / "a.npz", np.zeros((3, 0, 2), np.uint8))
        for name in ("a.npy", "a.npz"):
            with pytest.raises(ValueError, match=r"image is empty \(shape \(3, 0, 2\)\)"):
                read(tmp_path / name)

    def test_name_and_dtype(self, tmp_path, stack):
        write(tmp_path / "a.tif", Image(stack))
        with pytest.raises(ValueError, match=r"name is 'x': only \.npz and \.vti"):
            read(tmp_path / "a.tif", name="x")
        stack.tofile(tmp_path / "a.raw")
        with pytest.raises(ValueError, match="dtype is 'grey': expected the name of a NumPy type"):
            read(tmp_path / "a.raw", shape=stack.shape, dtype="grey")
        with pytest.raises(ValueError, match="1 dimensions"):
            read(tmp_path / "a.raw", shape=(stack.size,), dtype="uint8")


class TestRealImages:
    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("nmc_electrode.tif", {}),
            ("electrode_three_phase.tiff", {}),
            ("bentheimer_sandstone.npz", {}),
            ("ketton_carbonate.tif", {}),
            ("berea_200x200x200_uint8.raw", {"shape": (200,) * 3, "dtype": "uint8"}),
        ],
    )
    def test_crop_before_and_after(self, name, options):
        path = real(name)
        whole = read(path, **options).crop(100)
        tracemalloc.start()
        try:
            part = read(path, crop=100, **options)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        np.testing.assert_array_equal(part.labels, whole.labels)
        assert peak < 8 * MEBI  # the images take 8 to 125
