"""The front of a case: two conductivities of a 2D cell whose volume fraction is free, against theory."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fetopo.case import Case, CaseError, read_case
from fetopo.cli.pareto import _prepare
from fetopo.front_io import front_report, write_front
from fetopo.pareto_run import FrontError, run_front, share_along_ray

#: Duality: every isotropic structure has a product of both of exactly 0.1.
CASE = """
discretization = "voxel"
[cell]
shape = [20, 20]
[material]
conductivity = [0.1, 1.0]
volume_fraction = 0.5
[transport.ions]
conductivity = [1.0, 0.1]
[objective]
maximize = "isotropic"
transports = ["main", "ions"]
[[constraint]]
kind = "volume"
at_least = 0.05
at_most = 0.95
[filter]
radius = 0.2
[optimizer]
betas = [1, 4, 16, 64]
stage_iterations = 12
final_iterations = 20
[verify]
refine = 1
"""


@pytest.fixture
def place(comm, tmp_path):
    """A directory that all ranks share, with the case."""
    path = comm.bcast(tmp_path)
    if comm.rank == 0:
        (path / "case.toml").write_text(CASE, encoding="utf-8")
    comm.Barrier()
    return path


def fetopo(*arguments, ranks=1):
    command = [sys.executable, "-m", "fetopo.cli", *map(str, arguments)]
    if ranks > 1:
        if shutil.which("mpirun") is None or "OMPI_COMM_WORLD_SIZE" in os.environ:
            pytest.skip("mpirun is not installed, or this is a run of it")
        command = ["mpirun", "--oversubscribe", "-n", str(ranks), *command]
    environment = os.environ | {"OMPI_MCA_mpi_yield_when_idle": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)


@pytest.mark.mpi
def test_on_the_limit_and_the_same_on_any_ranks(comm, alone, place):
    """Points shared out over the ranks, or all on one: the same numbers, and within 3 % of what can be."""
    case = read_case(place / "case.toml")
    found = run_front(case, comm, place / "front", points=3)
    assert len(found.front.best) == 3
    for x, y in found.front.values:
        assert 0.97 * 0.1 < x * y < 0.1 * (1 + 2e-3)
        assert found.share_of_limit((x, y)) == pytest.approx((x * y / 0.1) ** 0.5, rel=1e-3)
    assert found.front.hypervolume > 1.15 * found.front.first(2).hypervolume
    if comm.size > 1 and comm.rank == 0:
        serial = run_front(case, alone, place / "alone", points=3)
        assert serial.front == found.front
    comm.Barrier()


class TestFolders:
    def test_what_is_there_is_not_done_again(self, comm, place):
        if comm.size > 1:
            pytest.skip("one rank is enough")
        case, output = read_case(place / "case.toml"), place / "front"
        first = run_front(case, comm, output, points=2, method="epsilon")
        times = [(output / f"point_00{i}" / "point.json").stat().st_mtime_ns for i in range(2)]
        # A third one is added; the others stay as they are.
        more = run_front(case, comm, output, points=3, method="epsilon", resume=True)
        assert times == [(output / f"point_00{i}" / "point.json").stat().st_mtime_ns for i in range(2)]
        assert more.front.first(2) == first.front
        x, y = more.front.values[2]
        assert x * y == pytest.approx(0.1, rel=0.03)
        asked = more.front.points[2].request
        assert more.front.values[2][1 - asked.maximize] >= 0.97 * asked.floors[1 - asked.maximize]

        write_front(comm, output, more, title="Two conductivities")
        assert (output / "front.png").stat().st_size > 20_000
        table = list(csv.DictReader((output / "front.csv").open(encoding="utf-8")))
        assert [float(row["main"]) for row in table] == more.front.values[:, 0].tolist()
        assert [row["parents"] for row in table] == ["", "", "0 1"]
        content = json.loads((output / "front.json").read_text(encoding="utf-8"))
        assert content["hypervolume"] == more.front.hypervolume
        assert content["hypervolume_of_first"]["2"] == first.front.hypervolume
        assert "3 of 3 points on the front" in front_report(more)

        other = Case.model_validate(case.model_dump() | {"material": case.material.model_copy(
            update={"volume_fraction": 0.4})})  # fmt: skip
        with pytest.raises(FrontError, match=r"material\.volume_fraction was 0\.5, now it is 0\.4"):
            run_front(other, comm, output, points=3, method="epsilon", resume=True)
        with pytest.raises(FrontError, match="another case: method was epsilon, now it is chebyshev"):
            run_front(case, comm, output, points=3, resume=True)


def test_share_along_a_ray():
    curve = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 0.0]])
    assert share_along_ray(curve, (1.0, 1.0)) == pytest.approx(0.5)
    assert share_along_ray(curve, (2.5, 1.0)) == pytest.approx(1.0)
    # Beyond the ends: straight to the left and down.
    assert share_along_ray(curve, (0.1, 1.5)) == pytest.approx(0.5)
    assert share_along_ray(curve, (1.5, 0.0)) == pytest.approx(0.5)


class TestCommand:
    def test_refused(self, comm, place):
        if comm.size > 1:
            pytest.skip("starts processes of its own")
        single = CASE.replace('transports = ["main", "ions"]', "")
        (place / "single.toml").write_text(single, encoding="utf-8")
        floor = CASE + '\n[[constraint]]\nkind = "conductivity"\nat_least = 0.2\ntransport = "ions"\n'
        (place / "floor.toml").write_text(floor, encoding="utf-8")
        for name, points, method, message in (
            ("single", 9, "chebyshev", "a front is one of two or three transports, found ['main']"),
            ("floor", 9, "epsilon", "sets the floor of 'ions' itself"),
            ("case", 9, "both", "--method must be chebyshev or epsilon, found 'both'"),
            (
                "case",
                1,
                "epsilon",
                "--points: a front of 2 objectives needs at least as many points, found 1",
            ),
        ):
            with pytest.raises(CaseError, match=re.escape(message)):
                _prepare(place / f"{name}.toml", place / "out", points, method, False, False)
        done = fetopo("pareto", place / "single.toml", "--output", place / "out")
        assert done.returncode == 2
        assert "found ['main']" in done.stderr
        assert not (place / "out").exists()

    @pytest.mark.slow
    def test_the_shipped_case_lies_on_the_limit(self, comm, tmp_path):
        """Conductivities 1 : 100, isotropic by symmetry: the product of all is what duality says."""
        if comm.size > 1:
            pytest.skip("starts processes of its own")
        case = Path(__file__).parents[1] / "demos" / "cases" / "electrode_front_2d.toml"
        done = fetopo(
            "pareto", case, "--output", tmp_path / "front", "--points", 3, "--json", "--no-pictures", ranks=2
        )
        assert done.returncode == 0, done.stderr
        points = json.loads(done.stdout)["points"]
        assert [row["status"] for row in points] == ["front"] * 3
        assert all(row["share_of_limit"] > 0.97 for row in points)
        assert [row["main"] * row["ions"] for row in points] == pytest.approx([0.01] * 3, rel=0.03)

    @pytest.mark.slow
    def test_one_and_four_ranks(self, comm, place):
        """The same front to the last digit, of more points, with less and less missing."""
        if comm.size > 1:
            pytest.skip("starts processes of its own")
        found = []
        for ranks in (1, 4):
            output = place / f"on_{ranks}"
            done = fetopo(
                "pareto", place / "case.toml", "--output", output, "--points", 5, "--json", ranks=ranks
            )
            assert done.returncode == 0, done.stderr
            found.append(json.loads(done.stdout))
            assert (output / "point_004" / "result.json").exists()
            assert (output / "front.png").stat().st_size > 20_000
        assert found[0] == found[1]
        volumes = [found[0]["hypervolume_of_first"][n] for n in "235"]
        assert np.all(np.diff(volumes) > 0.01)
        assert all(row["share_of_limit"] > 0.97**0.5 for row in found[0]["points"])
        assert fetopo("pareto", place / "case.toml", "--output", place / "on_1").returncode == 2
