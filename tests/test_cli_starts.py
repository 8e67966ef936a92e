"""fetopo design --starts as other programs and mpirun see it."""

import json
import shutil
import subprocess
import sys

import pytest
from mpi4py import MPI
from typer.testing import CliRunner

from fetopo.cli import app
from fetopo.cli._common import InputError

pytestmark = pytest.mark.skipif(MPI.COMM_WORLD.size > 1, reason="starts processes of its own")

CASE = """
title = "two starts"
discretization = "voxel"
[cell]
shape = [16, 14]
[material]
conductivity = [0.01, 1.0]
volume_fraction = 0.5
[objective]
maximize = "isotropic"
[optimizer]
betas = [1, 8]
stage_iterations = 4
final_iterations = 4
"""


def design(*arguments, ranks=1, cwd):
    command = [sys.executable, "-m", "fetopo.cli", "design", "case.toml", "--output", "out", *arguments]
    if ranks > 1:
        if shutil.which("mpirun") is None:
            pytest.skip("mpirun is not installed")
        command = ["mpirun", "-n", str(ranks), *command]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300, check=False)


def test_design_from_two_starts(tmp_path):
    (tmp_path / "case.toml").write_text(CASE, encoding="utf-8")
    done = design("--starts", "2", "--json", "--no-pictures", ranks=2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "out" / "starts.json").read_text())
    assert found["numbers"] == [1, 2]
    assert 1 <= found["distinct"] <= 2
    for start in found["starts"]:
        result = json.loads((tmp_path / "out" / start["folder"] / "result.json").read_text())
        assert start["value"] == result["verified"]["reached"]
        assert start["interval"][0] == pytest.approx(result["verified"]["at_least"])
    # Both groups say when they are done.
    assert "start 1 of 2: inclusions: " in done.stderr
    assert "start 2 of 2: random field, length 0.219, seed 1: " in done.stderr

    # Nothing is left to do, on one rank: the same, in words and with the picture.
    again = design("--starts", "2", "--resume", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "out" / "starts.json").read_text()) == found
    assert f"{len(found['reaching'])} within 1 % of the best" in again.stdout
    assert f"{100 * found['starts'][0]['bound_fraction']:.2f} %" in again.stdout
    assert (tmp_path / "out" / "starts.png").read_bytes()[:4] == b"\x89PNG"
    assert not list((tmp_path / "out").glob("start-*/*.png"))


def test_refused(tmp_path):
    done = CliRunner().invoke(app, ["design", "case.toml", "--output", str(tmp_path), "--groups", "2"])
    assert isinstance(done.exception, InputError), done.output
    assert str(done.exception) == "--groups goes with --starts"
