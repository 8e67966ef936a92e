"""A case from several starts: a folder each, the same on any number of ranks, taken up again, errors told."""

import csv
import json

import numpy as np
import pytest
from mpi4py import MPI

from fetopo import case_starts as module
from fetopo.case import Case, CaseError
from fetopo.case_starts import case_starts, run_starts
from fetopo.cli import _starts
from fetopo.design.starts import Start
from fetopo.design.uniqueness import Sameness
from fetopo.microstructure.image import Image, write
from fetopo.report_starts import starts_report, starts_values

CASE = {
    "discretization": "voxel",
    "cell": {"shape": [16, 14]},
    "material": {"conductivity": [0.01, 1.0], "volume_fraction": 0.5},
    "objective": {"maximize": "isotropic"},
    "optimizer": {"betas": [1.0, 8.0], "stage_iterations": 4, "final_iterations": 4},
    "verify": {"refine": 1},
}


def fail():
    raise RuntimeError("no convergence")


def begin(case):
    first, second, third = case_starts(case, 3)
    return [first, Start("bad", fail), second, third]


@pytest.mark.mpi
def test_ranks_find_what_one_does_and_a_failed_start_does_not_end_the_others(comm, alone, tmp_path):
    case, place = Case.model_validate(CASE), comm.bcast(tmp_path / "all")
    found = run_starts(case, comm, begin(case), place, pictures=False)
    own = run_starts(case, alone, begin(case), tmp_path / f"alone-{comm.rank}", pictures=False)
    assert [o.number for o in found.outcomes] == [1, 3, 4]
    assert found.failed == ((2, "bad", "no convergence"),)
    assert "start 2 (bad) failed: no convergence" in starts_report(found)
    for one, other in zip(found.outcomes, own.outcomes, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.tensor, other.tensor)
        assert one.interval[0] <= one.value <= one.interval[1]
        assert 0 < one.bound_fraction <= 1
    assert found.families == own.families
    comm.barrier()
    written = json.loads((place / "starts.json").read_text())
    assert written == json.loads((tmp_path / f"alone-{comm.rank}" / "starts.json").read_text())
    # One group of all ranks designs together and meets the same structures.
    if comm.size > 1:
        together = run_starts(case, comm, case_starts(case, 2), comm.bcast(tmp_path / "one"), groups=1)
        np.testing.assert_array_equal(together.outcomes[1].labels, found.outcomes[1].labels)
        assert together.outcomes[1].value == pytest.approx(found.outcomes[1].value, rel=1e-6)


@pytest.mark.skipif(MPI.COMM_WORLD.size > 1, reason="one rank is enough")
def test_files_and_going_on(alone, tmp_path, monkeypatch):
    case = Case.model_validate(CASE)
    same = Sameness(tolerance=0.5)
    found = run_starts(case, alone, case_starts(case, 2), tmp_path, same=same)
    assert (tmp_path / "starts.png").stat().st_size > 20_000
    for number in (1, 2):
        names = {path.name for path in (tmp_path / f"start-{number:02d}").iterdir()}
        assert {"result.json", "design.tif", "history.csv", "structure.msh", "density.png"} <= names
    with (tmp_path / "starts.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["value"]) for row in rows] == [o.value for o in found.outcomes]
    result = json.loads((tmp_path / "start-02" / "result.json").read_text())
    assert found.outcomes[1].value == result["verified"]["reached"]
    text = starts_report(found)
    assert "2 starts: 2 within 50 % of the best" in text
    assert f"{100 * found.outcomes[0].bound_fraction:.2f} %" in text

    # Complete starts are taken over, one that has no result is designed, and so is a further one.
    (tmp_path / "start-02" / "result.json").unlink()
    done, run = [], module.run_case
    monkeypatch.setattr(module, "run_case", lambda *a, **k: done.append(1) or run(*a, **k))
    more = run_starts(case, alone, case_starts(case, 3), tmp_path, resume=True, pictures=False, same=same)
    assert len(done) == 2
    values = starts_values(more)
    assert values["starts"][0]["value"] == found.outcomes[0].value
    np.testing.assert_array_equal(more.outcomes[1].labels, found.outcomes[1].labels)

    other = Case.model_validate(CASE | {"material": CASE["material"] | {"volume_fraction": 0.4}})
    with pytest.raises(CaseError, match="start-01 is of another case or another start"):
        run_starts(other, alone, case_starts(other, 3), tmp_path, resume=True)
    with pytest.raises(RuntimeError, match="none of 1 starts led to a design; the first: no convergence"):
        run_starts(case, alone, [Start("bad", fail)], tmp_path / "bad")


@pytest.mark.skipif(MPI.COMM_WORLD.size > 1, reason="one rank is enough")
def test_what_a_case_names(tmp_path):
    """Its own start first, then its images; what is there already is left alone."""
    labels = np.zeros((16, 14), dtype=np.uint8)
    labels[4:12] = 1
    write(tmp_path / "bar.npy", Image(labels, 1.0))
    text = """
[cell]
shape = [16, 14]
[material]
conductivity = [0.01, 1.0]
volume_fraction = 0.5
[objective]
maximize = "isotropic"
[start]
images = ["bar.npy"]
"""
    path = tmp_path / "case.toml"
    path.write_text(text, encoding="utf-8")
    case, first, images = _starts._prepare(path, tmp_path / "out", False, False)
    assert first is None
    np.testing.assert_array_equal(images["bar.npy"], labels)
    names = [start.name for start in case_starts(case, 3, images=images)]
    assert names == ["inclusions", "image bar.npy", "reconstruction of bar.npy, seed 1"]
    (tmp_path / "out" / "start-01").mkdir(parents=True)
    (tmp_path / "out" / "start-01" / "start.json").write_text("{}")
    with pytest.raises(CaseError, match=r"already holds a run; .* --resume or add --overwrite"):
        _starts._prepare(path, tmp_path / "out", False, False)
    path.write_text(text.replace("bar.npy", "none.npy"), encoding="utf-8")
    with pytest.raises(CaseError, match=r"start\.images: no such file"):
        _starts._prepare(path, tmp_path / "out", False, False)
