"""The command line as other programs and mpirun see it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from mpi4py import MPI

from fetopo.microstructure.image import Image, read, write

pytestmark = pytest.mark.skipif(MPI.COMM_WORLD.size > 1, reason="starts processes of its own")

ELECTRODE = Path(__file__).parents[1] / "meshes" / "electrode_64.tif"
CASE = """
[cell]
shape = [24, 20]
[material]
conductivity = [0.0, 1.0]
volume_fraction = 0.5
[objective]
maximize = "isotropic"
[optimizer]
betas = [1, 8, 32]
stage_iterations = 8
final_iterations = 8
"""


def fetopo(*arguments, ranks=1, cwd=None):
    """Run the command; returns the finished process with its output as text."""
    command = [sys.executable, "-m", "fetopo.cli", *map(str, arguments)]
    if ranks > 1:
        if shutil.which("mpirun") is None:
            pytest.skip("mpirun is not installed")
        command = ["mpirun", "-n", str(ranks), *command]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300, check=False)


@pytest.fixture
def channel(tmp_path):
    """A straight channel along axis 0 that takes a quarter of the image."""
    labels = np.ones((8, 8, 8), dtype=np.uint8)
    labels[:, 2:6, 2:6] = 0
    path = tmp_path / "channel.tif"
    write(path, Image(labels, (1e-6,) * 3))
    return path


def test_help():
    done = fetopo("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("characterize", "tortuosity", "design"))


def test_characterize_prints_one_json_object():
    done = fetopo("characterize", ELECTRODE, "--phase", 0, "--crop", 32, "--json")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert {
        "shape", "porosity", "volume_fractions", "percolating_fraction", "mean_chord_length",
        "specific_surface", "two_point_correlation", "lineal_path",
    } <= set(values)  # fmt: skip
    assert values["shape"] == [32, 32, 32]
    assert values["volume_fractions"]["0"] == values["porosity"]


def test_ranks_characterize_as_one_does(tmp_path):
    arguments = ("characterize", ELECTRODE, "--crop", 24, "--json", "--cluster-function", "--cross")
    alone = json.loads(fetopo(*arguments).stdout)
    done = fetopo(*arguments, "--figure", tmp_path / "page.png", ranks=3)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == alone
    assert {"chord_lengths", "clusters", "anisotropy", "two_point_cluster", "cross_correlations"} <= set(
        alone
    )
    assert alone["pore_sizes"]["d10"] <= alone["pore_sizes"]["d50"] <= alone["pore_sizes"]["d90"]
    assert alone["clusters"]["largest_fraction"] == pytest.approx(max(alone["percolating_fraction"]))
    assert (tmp_path / "page.png").read_bytes()[:4] == b"\x89PNG"


def test_characterize_in_words_and_without_pores():
    done = fetopo("characterize", ELECTRODE, "--crop", 24, "--no-pores")
    assert done.returncode == 0, done.stderr
    for words in ("24 × 24 × 24 voxels", "percolating fraction", "clusters", "from the slope of S₂", "µm"):
        assert words in done.stdout
    assert "local thickness" not in done.stdout


def test_tortuosity_reads_slabs(tmp_path):
    """More ranks than rows too: some then have none."""
    labels = np.random.default_rng(0).integers(0, 3, (2, 9, 8)).astype(np.uint8)
    write(tmp_path / "thin.npz", Image(labels, 2e-6))
    arguments = ("tortuosity", tmp_path / "thin.npz", "--phase", 1, "--json")
    one, three = (json.loads(fetopo(*arguments, ranks=ranks).stdout) for ranks in (1, 3))
    assert one["percolating_fraction"] == three["percolating_fraction"]
    assert one["relative_diffusivity"] == pytest.approx(three["relative_diffusivity"], rel=1e-6)


class TestCharacterizeTransport:
    KEYS = ("relative_diffusivity", "lower_bound", "upper_bound", "best_estimate", "tortuosity_factor")

    def test_as_tortuosity(self):
        image = (ELECTRODE, "--phase", 0, "--crop", 20, "--json")
        without = json.loads(fetopo("characterize", *image).stdout)
        done = fetopo("characterize", *image, "--transport", ranks=2)
        assert done.returncode == 0, done.stderr
        found, known = json.loads(done.stdout), json.loads(fetopo("tortuosity", *image).stdout)
        assert without.keys() | set(self.KEYS) == found.keys()
        assert not without.keys() & set(self.KEYS)
        for key in self.KEYS:
            assert found[key] == pytest.approx(known[key], rel=1e-6)

    def test_on_a_mesh_and_in_words(self, channel):
        done = fetopo("characterize", channel, "--transport", "--discretization", "mesh", "--json")
        found = json.loads(done.stdout)
        assert found["relative_diffusivity"] == pytest.approx([0.25, 0, 0])
        assert found["lower_bound"] == [None] * 3
        assert found["tortuosity_factor"] == pytest.approx([1, None, None])
        said = fetopo("characterize", channel, "--transport").stdout
        assert "D/D₀ and τ, axis 0      0.25000 ≤ 0.25000   1.0000" in said

    def test_refused(self):
        for options, message in (
            (("--discretization", "mesh"), "--discretization mesh is for --transport"),
            (("--transport", "--discretization", "grid"), "discretization is 'grid': expected"),
        ):
            done = fetopo("characterize", ELECTRODE, *options)
            assert done.returncode == 2
            assert message in done.stderr


def test_characterize_crops_a_folder_of_slices(tmp_path):
    values = np.zeros((12, 9, 10), dtype=np.uint8)
    values[2:10, :4] = 5
    for k, page in enumerate(values):
        tifffile.imwrite(tmp_path / f"slice{k}.tif", page, photometric="minisblack")
    done = fetopo("characterize", tmp_path, "--phase", 5, "--crop", 8, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["shape"] == [8, 8, 8]
    assert found["porosity"] == 0.5
    done = fetopo("characterize", tmp_path, "--crop", 10)
    assert done.returncode == 2
    assert "crop of 10 voxels from an image of shape (12, 9, 10): expected 1 to 9" in done.stderr


@pytest.mark.parametrize("ranks", [1, 2])
def test_tortuosity_of_a_straight_channel(channel, ranks):
    done = fetopo("tortuosity", channel, "--json", ranks=ranks)
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert values["porosity"] == 0.25
    assert values["relative_diffusivity"] == pytest.approx([0.25, 0, 0], abs=1e-9)
    for key in ("lower_bound", "best_estimate", "upper_bound", "finite_volumes"):
        assert values[key] == pytest.approx([0.25, 0, 0], abs=1e-9)
    assert values["conventions"]["sides"] == "no flux"
    # An infinite factor is null: JSON knows no infinity.
    assert values["tortuosity_factor"][0] == pytest.approx(1)
    assert values["tortuosity_factor"][1:] == [None, None]
    assert "does not connect the faces of axis 1" in done.stderr


def test_tortuosity_by_one_scheme(channel):
    """What a method does not give is null, and the keys stay."""
    every = json.loads(fetopo("tortuosity", channel, "--json").stdout)
    for options, none in (
        (("--method", "finite volumes"), {"upper_bound", "best_estimate"}),
        (("--method", "elements"), {"lower_bound", "best_estimate", "finite_volumes"}),
        (("--discretization", "mesh"), {"lower_bound", "best_estimate", "finite_volumes"}),
    ):
        done = fetopo("tortuosity", channel, "--axis", 0, "--json", *options)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found.keys() == every.keys()
        assert {key for key, value in found.items() if value == [None]} == none
        assert found["relative_diffusivity"] == pytest.approx([0.25], rel=1e-9)
    words = fetopo("tortuosity", channel, "--axis", 0, "--method", "finite volumes").stdout
    assert "0.25000   [0.25000, –      ]   –" in words
    for options, message in (
        (
            ("--method", "volumes"),
            "--method must be one of interval, finite volumes, elements, found 'volumes'",
        ),
        (("--discretization", "grid"), "discretization is 'grid': expected 'voxel' or 'mesh'"),
        (("--method", "finite volumes", "--discretization", "mesh"), "use discretization 'voxel'"),
    ):
        done = fetopo("tortuosity", channel, *options)
        assert done.returncode == 2
        assert message in done.stderr


def test_tortuosity_of_a_raw_image(tmp_path):
    np.zeros((6, 5, 4), dtype=np.uint8).tofile(tmp_path / "full.raw")
    done = fetopo(
        "tortuosity", tmp_path / "full.raw", "--shape", "6,5,4", "--dtype", "uint8", "--axis", 1, "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["relative_diffusivity"] == pytest.approx([1.0])


def test_design_leaves_all_its_files(tmp_path):
    (tmp_path / "case.toml").write_text(CASE, encoding="utf-8")
    done = fetopo("design", "case.toml", "--output", "out", "--json", ranks=2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    printed, written = json.loads(done.stdout), json.loads((tmp_path / "out" / "result.json").read_text())
    assert printed == written
    assert {
        "objective", "constraints", "effective_tensor", "target", "bound_fraction", "iterations", "converged",
        "grey_level", "verified",
    } <= set(written)  # fmt: skip
    assert 0.5 < written["bound_fraction"] <= 1
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {
        "checkpoint",
        "result.json", "history.csv", "design.tif", "design.xdmf", "design.h5",
        "density.png", "flux.png", "convergence.png",
        "structure.msh", "structure.xdmf", "structure.h5",
    }  # fmt: skip
    design = read(tmp_path / "out" / "design.tif")
    assert design.shape == (24, 20)
    assert design.phases[1] == pytest.approx(written["verified"]["voxels"]["volume_fraction"])
    assert len((tmp_path / "out" / "history.csv").read_text().splitlines()) == written["iterations"] + 1
    assert "iteration" in done.stderr

    again = fetopo("design", "case.toml", "--output", "out", cwd=tmp_path)
    assert again.returncode == 2
    assert "already holds a result" in again.stderr
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == written


@pytest.mark.parametrize("ranks", [1, 2])
def test_design_on_voxels(tmp_path, ranks):
    (tmp_path / "case.toml").write_text('discretization = "voxel"\n' + CASE, encoding="utf-8")
    done = fetopo("design", "case.toml", "--output", "out", "--json", ranks=ranks, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "out" / "result.json").read_text())
    assert json.loads(done.stdout) == written
    assert written["discretization"] == "voxel"
    assert 0.5 < written["bound_fraction"] <= 1
    assert 0 < written["verified"]["at_least"] <= written["verified"]["reached"]
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {
        "checkpoint",
        "result.json", "history.csv", "design.tif", "design.vti",
        "density.png", "flux.png", "convergence.png",
        "structure.msh", "structure.xdmf", "structure.h5",
    }  # fmt: skip
    design = read(tmp_path / "out" / "design.tif")
    assert design.shape == (24, 20)
    assert design.phases[1] == pytest.approx(written["verified"]["voxels"]["volume_fraction"])


BAD = [
    ("discretization", 'discretization = "pixel"\n' + CASE, "discretization"),
    ("unknown key", CASE + "[filter]\nradios = 1", "unknown key filter.radios"),
    ("target", CASE.replace('maximize = "isotropic"', "target = [[0.9, 0], [0, 0.9]]"), "objective.target"),
    ("image", CASE + '[start]\nimage = "nowhere.tif"', "start.image"),
    ("type", CASE.replace("0.5", "'half'"), "material.volume_fraction"),
]


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize(("text", "key"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_case_is_one_sentence_and_exit_code_2(tmp_path, text, key, ranks):
    (tmp_path / "case.toml").write_text(text, encoding="utf-8")
    done = fetopo("design", "case.toml", "--output", "out", ranks=ranks, cwd=tmp_path)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("fetopo: ")]
    assert len(lines) == 1
    assert key in lines[0]
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("tortuosity", "nowhere.tif"), "nowhere.tif"),
        (("tortuosity", ELECTRODE, "--phase", 9), "phase 9"),
        (("tortuosity", ELECTRODE, "--axis", 3), "--axis"),
        (("tortuosity", ELECTRODE, "--sides", "open"), "--sides"),
        (("characterize", ELECTRODE, "--crop", 65), "crop"),
        (("characterize", ELECTRODE, "--no-such-option"), "--no-such-option"),
        (("design", "nowhere.toml", "--output", "out"), "nowhere.toml"),
        (("anneal",), "anneal"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_bad_arguments(tmp_path, arguments, words):
    done = fetopo(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
