"""`fetopo homogenize` and `fetopo rve` as other programs and mpirun see them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI
from typer.testing import CliRunner

from fetopo.cli import app
from fetopo.cli._common import InputError
from fetopo.microstructure.geometry import inclusion_cell
from fetopo.microstructure.image import Image, write
from fetopo.microstructure.mesh import write_mesh
from fetopo.transport.bounds import hashin_shtrikman, wiener

pytestmark = pytest.mark.skipif(MPI.COMM_WORLD.size > 1, reason="starts processes of its own")

ELECTRODE = Path(__file__).parents[1] / "meshes" / "electrode_64.tif"


def fetopo(*arguments, ranks=1):
    """Run the command; returns the finished process with its output as text."""
    command = [sys.executable, "-m", "fetopo.cli", *map(str, arguments)]
    if ranks > 1:
        if shutil.which("mpirun") is None:
            pytest.skip("mpirun is not installed")
        command = ["mpirun", "-n", str(ranks), *command]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def refusal(*arguments):
    """What the command says, in this process, to input that cannot be used."""
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert isinstance(done.exception, InputError), done.output
    return str(done.exception)


@pytest.fixture
def layers(tmp_path):
    """Layers across axis 0, half and half."""
    labels = np.broadcast_to(np.array([0, 0, 7, 7], dtype=np.uint8).reshape(4, 1, 1), (4, 4, 4))
    write(tmp_path / "layers.tif", Image(labels, 1e-6))
    return tmp_path / "layers.tif"


class TestHomogenize:
    @pytest.mark.parametrize(("ranks", "good"), [(1, 3.0), (3, 0.0)])
    def test_laminate(self, layers, ranks, good):
        done = fetopo(
            "homogenize",
            layers,
            "--conductivity",
            "0=1",
            "--conductivity",
            f"7={good}",
            "--json",
            ranks=ranks,
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        h, a = wiener((0.5, 0.5), (1, good))
        assert np.array(found["effective_tensor"]) == pytest.approx(np.diag([h, a, a]), abs=1e-8)
        assert found["bounds"]["wiener"] == pytest.approx([h, a])
        assert found["bounds"]["hashin_shtrikman"] == pytest.approx(
            hashin_shtrikman((0.5, 0.5), (1, good), 3)
        )
        assert found["volume_fractions"] == {"0": 0.5, "7": 0.5}
        assert found["conventions"]["boundary"] == "periodic"
        assert found["conventions"]["discretization"] == "voxel"
        assert np.array(found["lower_bound"]) == pytest.approx(np.diag([h, a, a]), abs=1e-7)
        assert found["upper_bound"] == found["effective_tensor"]

    def test_on_a_mesh_and_where_it_must_be(self, layers):
        one = ["homogenize", layers, "--json", "--conductivity", "0=1"]
        for options, tensor, upper in (
            (("7=3", "--discretization", "mesh"), [1.5, 2, 2], True),
            (("7=3", "--boundary", "linear"), [None] * 3, False),
            (("7=inf",), [2, None, None], False),
        ):
            done = CliRunner().invoke(app, [*map(str, one), "--conductivity", *options])
            assert done.exit_code == 0, done.output
            found = json.loads(done.stdout)
            assert found["conventions"]["discretization"] == "mesh"
            assert found["lower_bound"] is None
            assert (found["upper_bound"] is not None) == upper
            for i, known in enumerate(tensor):
                if known is not None:
                    assert found["effective_tensor"][i][i] == pytest.approx(known)
        words = CliRunner().invoke(
            app, ["homogenize", str(layers), *[*map(str, one[3:]), "--conductivity", "7=3"]]
        )
        assert "lower bound of the exact one" in words.stdout
        no = refusal(*one, "--conductivity", "7=3", "--boundary", "linear", "--discretization", "voxel")
        assert no == "discretization is 'voxel', which has no boundary 'linear': use 'mesh'"

    def test_mesh_with_names(self, tmp_path):
        """Discs in a square array, Rayleigh's 1.6520360 at f = 0.3, k = 10."""
        radius = (0.3 / np.pi) ** 0.5
        cell = inclusion_cell(MPI.COMM_SELF, centers=[[0.5, 0.5]], radii=radius, mesh_size=0.04)
        write_mesh(tmp_path / "disc.msh", cell)
        options = ["--conductivity", "matrix=1", "--conductivity", "inclusion=10", "--degree", 2]
        done = fetopo("homogenize", tmp_path / "disc.msh", *options, "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["effective_tensor"][0][0] == pytest.approx(1.6520360, rel=3e-3)
        assert found["volume_fractions"]["inclusion"] == pytest.approx(0.3, rel=5e-3)
        done = CliRunner().invoke(app, ["homogenize", str(tmp_path / "disc.msh"), *map(str, options)])
        assert "Hashin–Shtrikman bounds" in done.stdout

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["0=1"], "one conductivity per phase is needed"),
            (["0=1", "7=-1"], "must not be negative, found -1.0"),
            (["0=1", "7"], "--conductivity must be LABEL=VALUE with a number, found '7'"),
            (["0=1", "7=good"], "found '7=good'"),
            (["0=1", "0=2"], "names phase 0 twice"),
            (["0=1", "pore=2"], "no phase 'pore'"),
            (["0=0", "7=0"], "no phase conducts"),
        ],
    )
    def test_refused(self, layers, options, message):
        assert message in refusal("homogenize", layers, *[w for o in options for w in ("--conductivity", o)])

    def test_options_of_images_and_meshes(self, layers, tmp_path):
        done = fetopo("homogenize", tmp_path / "a.msh", "--conductivity", "0=1", "--crop", 3, ranks=2)
        assert done.returncode == 2
        assert done.stderr.count("--crop is for images; a.msh is read as a mesh") == 1
        voxel = refusal(
            "homogenize", tmp_path / "a.msh", "--conductivity", "0=1", "--discretization", "voxel"
        )
        assert voxel == "--discretization voxel is for images; a.msh is read as a mesh"
        two = ["--conductivity", "0=1", "--conductivity", "7=1"]
        assert "wavy" in refusal("homogenize", layers, *two, "--boundary", "wavy")


class TestRve:
    def test_porosity_in_slabs(self):
        """The same on two ranks, where no rank has the whole image."""
        arguments = ("rve", ELECTRODE, "--json", "--sizes", "8,16,32", "--limit", 64)
        one, two = (json.loads(fetopo(*arguments, ranks=ranks).stdout) for ranks in (1, 2))
        assert one == two
        assert one["samples"] == [64, 64, 8]
        # Windows of 16 and 32 fill the image; of those of 8 it is a sample.
        assert one["means"][1:] == pytest.approx([0.4] * 2, abs=1e-5)
        assert abs(one["means"][0] - 0.4) < 3 * (one["variances"][0] / 64) ** 0.5
        assert one["size"]["voxels"] > 8
        assert one["integral_range_interval"][0] < one["integral_range"] < one["integral_range_interval"][1]

    def test_same_on_a_mesh(self):
        options = ["--property", "diffusivity", "--sizes", "8,16", "--limit", "4", "--json"]
        done = [
            CliRunner().invoke(app, ["rve", str(ELECTRODE), *options, "--discretization", name])
            for name in ("voxel", "mesh")
        ]
        one, other = (json.loads(run.stdout) for run in done)
        assert one["means"] == pytest.approx(other["means"], rel=1e-8)
        assert "discretization is 'grid'" in refusal("rve", ELECTRODE, "--discretization", "grid")

    def test_diffusivity_in_words(self):
        options = ["--property", "diffusivity", "--sizes", "8,16", "--limit", "6"]
        done = CliRunner().invoke(app, ["rve", str(ELECTRODE), *options])
        assert done.exit_code == 0, done.output
        assert "5 % error at 95 % confidence" in done.stdout

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--property", "colour"], "found 'colour'"),
            (["--sizes", "a"], "integers separated by commas, found 'a'"),
            (["--sizes", "40"], "1 windows of 40 voxels fit"),
            (["--phase", "9"], "9"),
            (["--error", "-1", "--crop", "24"], "relative_error must be a positive number"),
        ],
    )
    def test_refused(self, options, message):
        assert message in refusal("rve", ELECTRODE, *options)
