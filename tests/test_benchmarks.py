"""The cheap parts of the voxel benchmarks, on small generated images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.filterwarnings("ignore")
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def path():
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


def test_processes_measure_and_fail():
    from voxel_processes import MIB, Failed, run

    def here(what, **more):
        return run(f"voxel_processes:{what}", **more)

    assert here("resident", field="VmRSS") > 5 * MIB
    with pytest.raises(Failed, match="no_such"):
        here("no_such")
    assert run("no_such_module_at_all:f") == {"absent": "no_such_module_at_all"}


MEASURED = """
import json, sys
import numpy as np
from voxel_processes import MIB, cost

with cost() as spent:
    big = np.ones(200 * MIB // 8)
    total = sum(float(big.sum()) for _ in range(20))
with cost() as after:  # the peak starts anew
    del big
print(json.dumps([total, spent.cpu, (spent.peak - spent.before) / MIB, (after.peak - after.before) / MIB]))
"""


def test_cost_counts_what_the_block_does():
    """In a process of its own: here the block would be given memory that earlier tests left."""
    path = os.pathsep.join(sys.path)
    answer = subprocess.run(
        [sys.executable, "-c", MEASURED],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    total, cpu, grown, afterwards = json.loads(answer.stdout)
    assert total == 20 * 200 * 2**20 // 8
    assert 190 < grown < 230
    assert 0 < cpu < 10
    assert afterwards < 1


def test_images():
    from voxel_images import coefficient, mask

    m = mask("field@24")
    assert m.shape == (24, 24, 24)
    assert m.mean() == pytest.approx(0.5, abs=1e-3)
    smooth, white = coefficient("field", 32), coefficient("noise", 32)
    for values in (smooth, white):
        assert values.min() >= 0
        assert values.max() <= 1

    def step(v, lag):
        return float(np.abs(np.roll(v, lag, 0) - v).mean())

    assert step(smooth, 1) < 0.3 * step(smooth, 8)
    assert step(white, 1) == pytest.approx(step(white, 8), rel=0.05)
    assert step(smooth[:2], 1) == pytest.approx(np.abs(smooth[1] - smooth[0]).mean())
    assert np.abs(smooth[0] - smooth[-1]).mean() < 2 * np.abs(smooth[1] - smooth[0]).mean()  # periodic
    with pytest.raises(ValueError, match="granite"):
        mask("granite@10")


def test_triad():
    from voxel_bandwidth import triad

    (bandwidth,) = triad(length=2**16, repeats=3)["bandwidths"]
    assert 1e8 < bandwidth < 1e13


def test_bytes_moved():
    from voxel_bandwidth import bytes_per_voxel, visits

    assert visits(5) == [1, 2, 4, 8, 16]
    one, three = bytes_per_voxel("MASK"), bytes_per_voxel("MASK", rhs=3)
    assert one["finest"] == 12 + 16 + 9 + 8.5 + 16 + 16 + 5
    assert one["krylov"] == 12 + 12 + 32 + 1
    assert bytes_per_voxel("MASK", sweeps=2)["finest"] == one["finest"] + 2 * (16 + 16 + 2)
    assert 2.7 < three["finest"] / one["finest"] < 3
    # Coarse levels: one visit from zero and one from a guess for every two, on an eighth of the unknowns.
    assert one["coarse"] == pytest.approx((137.5 + 141.5) * (1 / 8 + 2 / 64 + 4 / 512 + 8 / 4096), rel=0.01)


def test_model():
    from voxel_model import Machine, Solver, parts

    solver, machine = Solver(2e-8), Machine()
    alone = parts(1e6, 1, solver, machine)
    assert sum(alone.values()) == alone["compute"] == pytest.approx(0.02)

    def total(ranks, **more):
        return sum(parts(1e6 * ranks, ranks, solver, Machine(**more)).values())

    assert alone["compute"] < total(100) < total(10_000) < 3 * alone["compute"]
    assert total(1000, software=1e-5) > total(1000)
    free = parts(1e9, 1000, solver, Machine(latency=0.0, bandwidth=np.inf))
    assert free["halos"] == free["gathering"] == free["reductions"] == 0


def test_optimality_criteria_keep_the_volume():
    from voxel_heat import optimality_criteria

    rng = np.random.default_rng(1)
    x = np.full(1000, 0.3)
    new = optimality_criteria(x, -rng.random(1000), 0.3)
    assert new.mean() == pytest.approx(0.3, abs=1e-4)
    assert np.abs(new - x).max() <= 0.2 + 1e-12


def test_peers_that_disagree_are_refused():
    from voxel_peers import check

    mine = {"value": 0.1, "lower": 0.11, "upper": 0.12}
    check("x", {"fetopo, tortuosity, interval": mine, "PoreSpy": {"value": 0.1003}})
    with pytest.raises(SystemExit, match="PoreSpy"):
        check("x", {"fetopo, tortuosity, interval": mine, "PoreSpy": {"value": 0.102}})
    with pytest.raises(SystemExit, match="order"):
        check("x", {"fetopo, tortuosity, interval": mine | {"lower": 0.13}})


@pytest.mark.parametrize("scheme", ["finite volumes", "elements"])
def test_cases_of_the_voxel_solver(scheme):
    from voxel_cases import cell, iterations, through_feature

    feature = through_feature("field@12", 0, "", scheme)
    assert 0.05 < feature["value"] < 0.5
    assert feature["voxels"] == 12**3
    assert feature["cost"]["cpu"] > 0
    assert iterations(["field@12", "white@12"], "", scheme, [1.0, 1e3], 1e-6)[1][1] > 1
    tensor = np.array(cell("smooth@12", "", scheme, 10.0)["value"])
    assert np.linalg.eigvalsh(tensor).min() > 1


def test_kernels_are_timed_one_by_one():
    from voxel_bandwidth import CYCLE, KRYLOV, kernels

    for scheme, continuous, kind in (("finite volumes", False, "MASK"), ("elements", True, "VALUES")):
        found = kernels("field@12", "", scheme, continuous, 1, repeats=1)
        assert found["kind"] == kind
        assert {p.name for p in (*CYCLE, *KRYLOV)} < set(found["seconds"])
        assert min(found["seconds"].values()) > 0


@pytest.mark.parametrize("scheme", ["finite volumes", "elements"])
def test_heat_gets_better(scheme):
    from voxel_heat import ours

    values = ours(8, 6, scheme)["values"]
    assert values[-1] < 0.8 * values[0]


@pytest.mark.parametrize("shape", [[8, 8], [6, 6, 6]])
def test_codes_of_a_design_iteration_agree(shape):
    """With the grid, without it and by plain DOLFINx: the same designs; parts are told apart."""
    from design_iteration import PARTS, fetopo, plain

    codes = [fetopo(shape, 4), fetopo(shape, 4, on_grid=False), plain(shape, 4, "gamg")]
    for found in codes:
        assert found["values"] == pytest.approx(codes[0]["values"], rel=2e-3)
        assert found["values"][-1] < found["values"][0]
        assert set(found["parts"][-1]) == set(PARTS)
        assert min(found["parts"][-1].values()) >= 0


def test_peers_table_without_peers(capfd):
    from voxel_peers import CODES, table

    codes = [n for n in CODES if n.startswith("fetopo")]
    found = table("field@12", 0, "", codes)
    assert set(found) == set(codes)
    assert "D_eff/D₀" in capfd.readouterr().out
