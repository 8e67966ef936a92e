"""Every demo runs, small, alone and on two ranks; they assert their numbers themselves."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mpi4py import MPI

pytestmark = pytest.mark.skipif(MPI.COMM_WORLD.size > 1, reason="starts processes of its own")

DEMOS = Path(__file__).parents[2] / "demos"
SMALL = {
    "bruggeman.py": ["--cells", "24"],
    "electrode_front.py": ["--cells", "12", "--points", "3", "--porosities", "0.5"],
    "electrode_tradeoff.py": ["--cells", "16"],
    "electrode.py": ["--crop", "24", "--cells", "16"],
    "fitted_mesh.py": ["--cells", "24"],
    "gradient_cost.py": ["--edges", "10,32"],
    "heat_sink.py": ["--cells", "40"],
    "heat_sink_3d.py": ["--cells", "16", "--iterations", "8"],
    "ill_posed.py": [
        *("--cells", "24", "--starts", "3", "--levels", "5", "--realizations", "2"),
        *("--recipes", "none,tikhonov"),
    ],
    "many_starts.py": ["--cells", "20", "--starts", "2", "--distinct", "1", "--within", "0.1"],
    "packing_mesh.py": ["--size", "0.2"],
    "particle_diffusion.py": ["--cells", "32", "--mesh-size", "2"],
    "user_functional.py": ["--cells", "32"],
    "robust_heat_sink.py": ["--cells", "20", "--radius", "2.5", "--error", "0.75", "--iterations", "10"],
    "rve.py": ["--sizes", "8,12,16", "--limit", "12"],
    "reconstruction.py": ["--seeds", "2", "--cells", "64", "--tolerance", "2e-3"],
}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("demo", sorted(path.name for path in DEMOS.glob("*.py")))
def test_demo(tmp_path, demo, ranks):
    command = [sys.executable, str(DEMOS / demo), *SMALL.get(demo, []), "--output", str(tmp_path / "out")]
    if ranks > 1:
        if shutil.which("mpirun") is None:
            pytest.skip("mpirun is not installed")
        command = ["mpirun", "-n", str(ranks), *command]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pictures = list((tmp_path / "out").glob("*.png"))
    assert pictures
    assert all(path.stat().st_size > 5000 for path in pictures)


def test_demo_fails_when_its_numbers_do_not_hold(tmp_path):
    """The assertions at the end are reached, and their failure is the exit code."""
    text = (DEMOS / "electrode.py").read_text(encoding="utf-8")
    broken = text.replace("design.verified > mean", "design.verified > 10 * mean")
    assert broken != text
    (tmp_path / "demos").mkdir()
    (tmp_path / "demos" / "electrode.py").write_text(broken, encoding="utf-8")
    image = DEMOS.parent / "meshes" / "electrode_64.tif"
    command = [
        sys.executable,
        "demos/electrode.py",
        str(image),
        "--crop",
        "16",
        "--cells",
        "8",
        "--output",
        "out",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert done.returncode != 0
    assert "the design conducts worse than the image" in done.stderr
