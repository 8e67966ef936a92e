"""Input that cannot be used: a ValueError that says what was found and what was expected, before any work.

One place for the whole list; the tests of each module have more of its own.
"""

import re
import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile
from mpi4py import MPI

from fetopo.microstructure import descriptors, generate
from fetopo.microstructure.image import GreyImage, Image, connectivity, read, read_grey, read_slabs, write
from fetopo.microstructure.mesh import voxel_cell
from fetopo.microstructure.segment import otsu, threshold

STACK = (np.indices((6, 7, 8)).sum(axis=0) % 3).astype(np.uint8)
SECONDS = 2.0
"""More than any refusal takes."""


def refused(work, *words):
    """The message of the ValueError that `work` raises at once; it has all the words."""
    start = time.process_time()
    with pytest.raises(ValueError) as raised:
        work()
    assert time.process_time() - start < SECONDS
    message = str(raised.value)
    for word in words:
        assert re.search(word, message), f"{word!r} is not in {message!r}"
    return message


class TestEmptyAndWrongArrays:
    @pytest.mark.parametrize("shape", [(0, 4), (3, 0, 2)])
    @pytest.mark.parametrize(
        "use",
        [
            Image,
            GreyImage,
            lambda values: connectivity(values > 0),
            lambda values: descriptors.two_point_correlation(values > 0, 1e-6),
            lambda values: voxel_cell(MPI.COMM_SELF, values),
        ],
        ids=["Image", "GreyImage", "connectivity", "descriptors", "mesh"],
    )
    def test_empty(self, use, shape):
        refused(lambda: use(np.zeros(shape, np.uint8)), re.escape(str(shape)), "expected|needed")

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    @pytest.mark.parametrize("use", [Image, GreyImage], ids=["Image", "GreyImage"])
    def test_not_a_number(self, use, bad):
        values = np.zeros((3, 3))
        values[1, 2] = bad
        refused(lambda: use(values), "1 values that are NaN or infinite", "expected")

    def test_not_labels(self):
        refused(lambda: Image(np.full((2, 2), 0.5)), "holds 0.5", "expected integer labels", "segment")
        refused(lambda: Image(np.array([["a", "b"]])), "type", "expected integer labels")
        refused(lambda: Image(np.zeros((2, 2, 2, 2), int)), "4 dimensions", "expected 2 or 3")

    @pytest.mark.parametrize("size", [0.0, -1e-6, np.nan, np.inf, (1e-6, 0.0, 1e-6), (1e-6, 1e-6)])
    @pytest.mark.parametrize(
        "use",
        [
            lambda size: Image(STACK, size),
            lambda size: GreyImage(STACK, size),
            lambda size: descriptors.specific_surface(STACK == 0, size),
            lambda size: voxel_cell(MPI.COMM_SELF, STACK, size),
            lambda size: generate.checkerboard((4, 4, 4), tile=2, voxel_size=size),
        ],
        ids=["Image", "GreyImage", "descriptors", "mesh", "generate"],
    )
    def test_voxel_size(self, use, size):
        refused(lambda: use(size), "voxel_size is", re.escape(str(size)), "expected")


class TestPhases:
    @pytest.mark.parametrize(
        "use",
        [
            lambda image: image.mask(7),
            lambda image: image.select([0, 7]),
            lambda image: image.relabel({7: 1}),
            lambda image: descriptors.characterize(image, 7),
            lambda image: voxel_cell(MPI.COMM_SELF, image.labels, phases=[7]),
        ],
        ids=["mask", "select", "relabel", "characterize", "mesh"],
    )
    def test_label_not_there(self, use):
        refused(lambda: use(Image(STACK)), "7", "0, 1, 2")

    def test_no_label_at_all(self):
        refused(lambda: Image(STACK).mask([]), "phase missing", "expected labels of the image, 0, 1, 2")

    @pytest.mark.parametrize("value", [False, True])
    @pytest.mark.parametrize(
        "use", [descriptors.pore_sizes, descriptors.local_thickness, descriptors.anisotropy]
    )
    def test_two_phases_needed(self, use, value):
        found = refused(lambda: use(np.full((5, 5, 5), value), 1e-6), "needs the phase and something else")
        assert f"{125 * value} of 125 voxels" in found

    def test_two_phases_needed_between_phases(self):
        one = Image(np.ones((5, 5), int))
        refused(lambda: descriptors.cross_correlations(one), "phase 1 only", "expected two")
        refused(lambda: descriptors.summarize(one, 1, cross=True), r"\[1\] only")

    def test_grey_image_of_one_value(self):
        grey = GreyImage(np.full((5, 5), 3))
        refused(lambda: otsu(grey), "3", "expected")
        refused(lambda: threshold(GreyImage(STACK), [np.nan]), "nan", "expected")


SHAPE = (32, 32, 32)
UNREACHABLE = {
    "electrode": lambda f: generate.electrode(SHAPE, porosity=f, particle_radius=4e-6, seed=0),
    "overlapping spheres": lambda f: generate.overlapping_spheres(
        SHAPE, volume_fraction=f, radius=4e-6, seed=0
    ),
    "gaussian field": lambda f: generate.gaussian_field(
        SHAPE, volume_fraction=f, correlation_length=4e-6, seed=0
    ),
    "minimal surface": lambda f: generate.minimal_surface("gyroid", SHAPE, volume_fraction=f),
    "regular array": lambda f: generate.regular_array("fcc", volume_fraction=f),
    "sequential addition": lambda f: generate.random_sequential_addition(
        (1e-4,) * 3, volume_fraction=f, radius=1e-5, seed=0
    ),
    "dense packing": lambda f: generate.dense_packing((1e-4,) * 3, volume_fraction=f, radius=1e-5, seed=0),
}


class TestGenerators:
    @pytest.mark.parametrize("fraction", [0.0, 1.0, -0.2, 1.5, np.nan])
    @pytest.mark.parametrize("make", UNREACHABLE.values(), ids=UNREACHABLE)
    def test_no_volume_fraction(self, make, fraction):
        refused(lambda: make(fraction), f"(porosity|volume_fraction) is {fraction}", "expected")

    @pytest.mark.parametrize(
        ("kind", "fraction"), [("regular array", 0.75), ("dense packing", 0.75)], ids=["array", "packing"]
    )
    def test_beyond_the_densest(self, kind, fraction):
        refused(lambda: UNREACHABLE[kind](fraction), "0.75", "expected at most 0.7")

    def test_not_placed_in_the_attempts_allowed(self):
        refused(
            lambda: generate.random_sequential_addition(
                (1e-4, 1e-4), volume_fraction=0.7, radius=5e-6, seed=0, attempts=2
            ),
            "volume_fraction is 0.7", r"reached 0\.\d+", "attempts",
        )  # fmt: skip
        refused(
            lambda: generate.dense_packing(
                (1e-4, 1e-4), volume_fraction=0.9, radius=1e-5, seed=0, attempts=1
            ),
            "volume_fraction is 0.9", r"reached 0\.\d+",
        )  # fmt: skip

    def test_laminate_and_tiles(self):
        refused(lambda: generate.laminate((10, 10), fractions=(0.6, 0.6)), "sum to 1.2", "expected 1")
        refused(lambda: generate.checkerboard((9, 9), tile=2), "tile is 2", "expected")


def damaged(folder, suffix):
    """A complete file, and how its end goes missing."""
    path = folder / f"image{suffix}"
    if suffix == ".raw":
        STACK.tofile(path)
        return path, {"shape": STACK.shape, "dtype": "uint8"}
    if suffix == ".lzw.tif":
        pytest.importorskip("imagecodecs", reason="LZW needs imagecodecs")
        tifffile.imwrite(path, STACK, compression="lzw", photometric="minisblack")
    elif suffix == ".vti":
        pytest.importorskip("vtkmodules", reason="writing .vti needs VTK")
        write(path, Image(STACK))
    else:
        write(path, Image(STACK))
    return path, {}


class TestFiles:
    @pytest.mark.parametrize("suffix", [".tif", ".lzw.tif", ".npy", ".npz", ".raw", ".vti"])
    @pytest.mark.parametrize("share", [0.0, 0.03, 0.3, 0.6, 0.9, 0.99])
    def test_truncated(self, tmp_path, suffix, share):
        path, options = damaged(tmp_path, suffix)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])
        for work in (read, read_grey, lambda *a, **k: read_slabs(MPI.COMM_SELF, *a, **k)):
            refused(lambda work=work: work(path, **options), re.escape(str(path)) + ": ")

    @pytest.mark.parametrize("suffix", [".tif", ".npy", ".npz", ".vti"])
    def test_something_else(self, tmp_path, suffix):
        path = tmp_path / f"notes{suffix}"
        path.write_text("This is no image.\n" * 50)
        refused(lambda: read(path), re.escape(str(path)) + ": ")

    @pytest.mark.parametrize("suffix", [".tif", ".npy", ".npz", ".vti"])
    def test_bytes_changed(self, tmp_path, suffix):
        """An image of the same shape, or a ValueError; never anything else."""
        path, options = damaged(tmp_path, suffix)
        content, rng, told = path.read_bytes(), np.random.default_rng(0), 0
        for _ in range(60):
            changed = bytearray(content)
            changed[int(rng.integers(len(content)))] ^= int(rng.integers(1, 256))
            path.write_bytes(changed)
            try:
                read_grey(path, **options)
            except ValueError as error:
                told += str(path) in str(error)
        assert told > 10

    def test_not_there_and_unknown(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"gone\.tif: no such image file"):
            read(tmp_path / "gone.tif")
        (tmp_path / "image.jpeg").write_bytes(b"")
        refused(lambda: read(tmp_path / "image.jpeg"), "unknown suffix", "expected one of")

    @pytest.mark.parametrize(
        "crop", [0, -3, 7, ((0, 0, 0), (7, 7, 8)), ((0, 0), (2, 2)), ((0, 0, 0), (0, 1, 1))]
    )
    def test_crop(self, tmp_path, crop):
        path, _ = damaged(tmp_path, ".npy")
        refused(lambda: read(path, crop=crop), "crop", r"\(6, 7, 8\)", "expected")


@pytest.mark.mpi
@pytest.mark.parametrize("kind", ["missing", "truncated", "phase", "nan"])
def test_every_rank_raises(comm, tmp_path_factory, kind):
    folder = comm.bcast(tmp_path_factory.mktemp("bad") if comm.rank == 0 else None)
    path = folder / "image.npy"
    if comm.rank == 0 and kind != "missing":
        values = STACK.astype(float)
        if kind == "nan":
            values[-1, -1, -1] = np.nan  # in the rows of the last rank only
        np.save(path, values)
        if kind == "truncated":
            path.write_bytes(path.read_bytes()[:-100])
    comm.barrier()
    with pytest.raises((ValueError, FileNotFoundError)) as raised:
        read_slabs(comm, path).mask(9)
    said = {"missing": "no such image file", "truncated": "image.npy", "phase": "phase 9", "nan": "NaN"}
    assert all(said[kind] in text for text in comm.allgather(str(raised.value)))


@pytest.mark.skipif(MPI.COMM_WORLD.size > 1, reason="starts processes of its own")
class TestCommandLine:
    def run(self, *arguments, ranks=1):
        launch = ["mpirun", "-n", str(ranks)] if ranks > 1 else []
        command = [*launch, sys.executable, "-m", "fetopo.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    @pytest.mark.parametrize(
        ("command", "ranks", "change", "arguments", "word"),
        [
            ("characterize", 1, "cut", (), r"image\.tif: "),
            ("tortuosity", 2, "cut", (), r"image\.tif: "),
            ("characterize", 2, None, ("--phase", 7), "phase 7: expected labels of the image, 0, 1, 2"),
            ("tortuosity", 2, None, ("--phase", 7), "phase 7: expected labels of the image, 0, 1, 2"),
            ("characterize", 1, None, ("--voxel-size", "-1e-6"), "voxel_size is -1e-06: expected positive"),
            ("tortuosity", 1, None, ("--voxel-size", "0"), "voxel_size is 0.0: expected positive"),
            ("characterize", 1, None, ("--crop", 9), "crop of 9 voxels"),
            ("characterize", 1, None, ("--figure", "nowhere/page.png"), "--figure: "),
            ("characterize", 1, None, ("--figure", "page.doc"), "--figure: page.doc has suffix '.doc'"),
            ("characterize", 1, None, ("--dtype", "uint8"), r"for \.raw files"),
        ],
    )
    def test_one_sentence_and_exit_code_2(self, tmp_path, command, ranks, change, arguments, word):
        path, _ = damaged(tmp_path, ".tif")
        if change == "cut":
            path.write_bytes(path.read_bytes()[:-40])
        done = self.run(command, path, *arguments, ranks=ranks)
        assert done.returncode == 2, done.stderr
        said = [line for line in done.stderr.splitlines() if line.startswith("fetopo: ")]
        assert len(said) == 1
        assert re.search(word, said[0])
        assert "Traceback" not in done.stderr
        assert done.stdout.strip() == ""
