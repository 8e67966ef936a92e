"""Checkpoints: resumed runs follow uninterrupted ones, on other ranks, on finer meshes, after kills."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fetopo.design import _store, _transfer
from fetopo.design.cell import Goal, design_cell
from fetopo.design.checkpoint import Checkpoint, CheckpointError
from fetopo.design.continuation import Continuation
from fetopo.design.inexact import InexactSolves
from fetopo.design.problem import LoopOptions, Stage
from fetopo.microstructure.mesh import regular_cell
from fetopo.transport.voxel import VoxelGrid

OPTIONS = LoopOptions(
    continuation=Continuation(beta=4.0, max_beta=16.0),
    stage_iterations=6,
    final_iterations=8,
    objective_tolerance=1e-4,
)


class Interrupted(Exception):
    """Stands for a kill between two iterations."""


def cell(comm, kind, shape=(16, 12)):
    if kind == "voxel":
        return VoxelGrid(comm, shape, (1 / shape[0], 0.75 / shape[1]), periodic=True)
    return regular_cell(comm, shape, (1.0, 0.75))


def design(comm, kind, checkpoint=None, *, stop=None, shape=(16, 12), records=None, **changed):
    """A short run; `stop`: after how many iterations it is interrupted."""

    def interrupt(record, problem):
        if records is not None:
            records.append(record)
        if record.iteration == stop:
            raise Interrupted

    arguments = {
        "conductivity": (0.01, 1.0),
        "volume_fraction": 0.5,
        "filter_radius": 0.2,
        "options": OPTIONS,
        "refine": 1,
    }
    return design_cell(
        cell(comm, kind, shape), callbacks=[interrupt], checkpoint=checkpoint, **(arguments | changed)
    )


def interrupted(comm, directory, kind, stop, *, every=3, **changed):
    with pytest.raises(Interrupted):
        design(comm, kind, Checkpoint(directory, every=every), stop=stop, **changed)


def agree(one, other, tolerance):
    """Two designs with the same path from beginning to end."""
    a, b = one.result, other.result
    assert len(a.history) == len(b.history)
    assert [(r.stage, r.penalty, r.beta) for r in a.history] == [
        (r.stage, r.penalty, r.beta) for r in b.history
    ]
    assert [r.objective for r in a.history] == pytest.approx([r.objective for r in b.history], rel=tolerance)
    assert a.objective == pytest.approx(b.objective, rel=tolerance)
    assert a.converged == b.converged
    assert a.rho == pytest.approx(b.rho, abs=tolerance)


@pytest.fixture
def shared(comm, tmp_path):
    """A directory that all ranks see."""
    return comm.bcast(tmp_path)


class TestResume:
    @pytest.mark.mpi
    @pytest.mark.parametrize(("kind", "stop"), [("voxel", 7), ("mesh", 16)])
    def test_follows_the_uninterrupted_run(self, comm, shared, kind, stop):
        whole = design(comm, kind)
        assert len(whole.result.history) > 16
        interrupted(comm, shared, kind, stop)
        seen = []
        again = design(comm, kind, Checkpoint(shared, every=3, resume=True), records=seen)
        agree(whole, again, 1e-8)
        # Only what came after the last checkpoint was computed again.
        assert len(seen) < len(whole.result.history) - stop + 3
        assert [r.iteration for r in seen] == [r.iteration for r in whole.result.history][-len(seen) :]
        assert [r.seconds for r in again.result.history] == sorted(r.seconds for r in again.result.history)

    def test_where_steps_are_short(self, comm, shared):
        """The optimizer that goes on is that of its stage, not of the first."""
        options = LoopOptions(**(OPTIONS.__dict__ | {"full_steps": 0.5}))
        whole = design(comm, "voxel", options=options)
        assert whole.result.history[15].stage > 0
        interrupted(comm, shared, "voxel", 16, options=options)
        agree(whole, design(comm, "voxel", Checkpoint(shared, resume=True), options=options), 1e-8)

    @pytest.mark.parametrize("kind", ["voxel", "mesh"])
    def test_with_loose_solves(self, comm, shared, kind):
        """Where a solve starts from then matters."""
        options = LoopOptions(**(OPTIONS.__dict__ | {"inexact": InexactSolves(loosest=0.1, factor=1.0)}))
        whole = design(comm, kind, options=options)
        interrupted(comm, shared, kind, 11, options=options)
        agree(whole, design(comm, kind, Checkpoint(shared, resume=True), options=options), 1e-8)

    @pytest.mark.mpi
    @pytest.mark.parametrize("kind", ["voxel", "mesh"])
    def test_on_other_ranks(self, comm, alone, shared, kind):
        """What all ranks wrote goes on on one, and the other way round."""
        whole = design(comm, kind)
        interrupted(comm, shared / "all", kind, 8)
        with_one = comm.bcast(shared / "one")
        if comm.rank == 0:
            interrupted(alone, with_one, kind, 8)
        comm.barrier()
        back = design(comm, kind, Checkpoint(with_one, every=0, resume=True))
        assert back.result.objective == pytest.approx(whole.result.objective, rel=1e-6)
        single = design(alone, kind, Checkpoint(shared / "all", every=0, resume=True))
        assert single.result.objective == pytest.approx(whole.result.objective, rel=1e-6)
        assert len(single.result.history) == len(whole.result.history)

    def test_of_a_finished_run_computes_nothing(self, comm, shared):
        whole = design(comm, "voxel", Checkpoint(shared))
        seen = []
        agree(whole, design(comm, "voxel", Checkpoint(shared, resume=True), records=seen), 1e-12)
        assert seen == []

    def test_goes_on_where_more_iterations_are_allowed(self, comm, shared):
        short = LoopOptions(stages=(Stage(3.0, 4.0),), final_iterations=4, objective_tolerance=1e-6)
        longer = LoopOptions(stages=(Stage(3.0, 4.0),), final_iterations=9, objective_tolerance=1e-6)
        design(comm, "voxel", Checkpoint(shared), options=short)
        more = design(comm, "voxel", Checkpoint(shared, resume=True), options=longer)
        agree(design(comm, "voxel", options=longer), more, 1e-8)

    @pytest.mark.mpi
    @pytest.mark.parametrize("kind", ["voxel", "mesh"])
    def test_onto_a_finer_mesh(self, comm, shared, caplog, kind):
        coarse, seen = design(comm, kind, Checkpoint(shared)), []
        with caplog.at_level(logging.WARNING, logger="fetopo"):
            again = Checkpoint(shared, resume=True)
            fine = design(comm, kind, again, shape=(32, 24), filter_radius=0.15, records=seen)
        if comm.rank == 0:
            assert "192 cells, this run 768: design interpolated" in caplog.text
        assert fine.result.rho.size > coarse.result.rho.size
        # It starts where the other ended, which is far better than the start.
        assert seen[0].iteration == len(coarse.result.history) + 1
        assert seen[0].beta == coarse.result.history[-1].beta
        assert seen[0].objective < 0.7 * coarse.result.history[0].objective
        assert len(seen) < len(coarse.result.history)

    def test_without_a_checkpoint_starts_from_the_beginning(self, comm, shared, caplog):
        with caplog.at_level(logging.WARNING, logger="fetopo"):
            again = design(comm, "voxel", Checkpoint(shared / "none", every=0, resume=True))
        agree(design(comm, "voxel"), again, 1e-12)
        assert not (shared / "none").exists()
        if comm.rank == 0:
            assert "no checkpoint in" in caplog.text

    def test_a_new_run_clears_the_directory(self, comm, shared):
        interrupted(comm, shared, "voxel", 8)
        assert (shared / "00000006").is_dir()
        interrupted(comm, shared, "voxel", 2)
        comm.barrier()
        assert list(shared.iterdir()) == []


class TestRefused:
    """One sentence, on every rank, before any iteration."""

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"shape": (12, 16)}, None),
            ({"shape": (8, 6)}, "has 192 cells, this run 48: a design goes to a finer mesh only"),
            ({"conductivity": (0.1, 1.0)}, r"conductivity was \[0.01, 1.0\], now it is \[0.1, 1.0\]"),
            ({"volume_fraction": 0.4}, "volume fraction was 0.5, now it is 0.4"),
            ({"goal": Goal("along", (1.0, 0.0))}, r"goal was isotropic, now it is along \(1.0, 0.0\)"),
            ({"filter_radius": 0.25}, r"filter radius was \[0.2\], now it is \[0.25\]"),
            ({"options": LoopOptions(stages=(Stage(1.0, 1.0),))}, "was in stage 1 with penalty 3 and β = 4"),
        ],
    )
    def test_of_another_problem(self, comm, shared, changed, message):
        interrupted(comm, shared, "voxel", 4)
        seen = []
        if message is None:
            # The same box, the same number of voxels, others.
            message = "of another mesh with as many cells"
        with pytest.raises(CheckpointError, match=message):
            design(comm, "voxel", Checkpoint(shared, resume=True), records=seen, **changed)
        assert seen == []

    def test_another_box(self, comm, shared):
        interrupted(comm, shared, "voxel", 4)
        with pytest.raises(CheckpointError, match=r"another box: 1 × 0\.75, this run has 1 × 1"):
            design_cell(
                VoxelGrid(comm, (16, 16), 1 / 16, periodic=True),
                conductivity=(0.01, 1.0),
                volume_fraction=0.5,
                filter_radius=0.2,
                checkpoint=Checkpoint(shared, resume=True),
            )

    @pytest.mark.mpi
    @pytest.mark.parametrize("damage", ["flip", "manifest", "format"])
    def test_damaged(self, comm, shared, damage, caplog):
        interrupted(comm, shared, "voxel", 8)
        newest, before = shared / "00000006", shared / "00000003"

        def spoil(path):
            file = path / ("manifest.json" if damage in ("manifest", "format") else "rank_00000.npz")
            content = file.read_bytes()
            if damage == "missing":
                file.unlink()
            elif damage == "flip":
                file.write_bytes(content[:500] + bytes([content[500] ^ 1]) + content[501:])
            elif damage == "format":
                file.write_bytes(content.replace(b'"format": 1', b'"format": 9'))
            else:
                file.write_bytes(content[: len(content) // 2])

        if comm.rank == 0:
            spoil(newest)
        comm.barrier()
        with caplog.at_level(logging.WARNING, logger="fetopo"):
            again = design(comm, "voxel", Checkpoint(shared, every=0, resume=True))
        agree(design(comm, "voxel"), again, 1e-8)
        if comm.rank == 0:
            assert "the one before is taken" in caplog.text
            spoil(before)
        comm.barrier()
        message = "has format 9: this version reads 1" if damage == "format" else "is damaged"
        with pytest.raises(CheckpointError, match=message):
            design(comm, "voxel", Checkpoint(shared, every=0, resume=True))

    def test_negative_interval(self):
        with pytest.raises(ValueError, match="every must be at least 0, found -1"):
            Checkpoint("anywhere", every=-1)


@pytest.mark.mpi
class TestStore:
    def test_keeps_two_and_is_read_as_written(self, comm, shared):
        for number in (1, 2, 30):
            _store.write(comm, shared, number, {"x": np.arange(3.0) + comm.rank}, {"number": number})
        comm.barrier()
        assert sorted(p.name for p in shared.iterdir()) == ["00000002", "00000030"]
        snapshot = _store.read(comm, shared)
        assert snapshot.manifest["number"] == 30
        assert len(snapshot.files) == comm.size
        for rank in range(comm.size):
            assert snapshot.load(rank)["x"].tolist() == [rank, rank + 1, rank + 2]

    def test_a_part_that_was_left_behind_is_no_snapshot(self, comm, shared):
        _store.write(comm, shared, 1, {"x": np.ones(1)}, {})
        if comm.rank == 0:
            (shared / ".00000002.part").mkdir()
        comm.barrier()
        assert _store.read(comm, shared).path.name == "00000001"
        _store.write(comm, shared, 2, {"x": np.ones(1)}, {})
        assert _store.read(comm, shared).path.name == "00000002"
        _store.clear(comm, shared)
        comm.barrier()
        assert list(shared.iterdir()) == []
        assert _store.read(comm, shared) is None

    def test_what_cannot_be_written_is_an_error_everywhere(self, comm, shared):
        if comm.rank == 0:
            (shared / "file").write_text("")
        comm.barrier()
        with pytest.raises(OSError):
            _store.write(comm, shared / "file" / "below", 1, {"x": np.ones(1)}, {})


class TestTransfer:
    """One rank's cells from the files of several."""

    def files(self, points, **values):
        parts = np.array_split(np.random.default_rng(0).permutation(len(points)), 3)
        made = [
            {"positions": points[p]} | {k: v[..., p].reshape(-1) for k, v in values.items()} for p in parts
        ]
        return [*made, {"positions": points[:0]} | {k: v[..., :0].reshape(-1) for k, v in values.items()}]

    def grid(self, n):
        t = (np.arange(n) + 0.5) / n
        return np.stack([x.reshape(-1) for x in np.meshgrid(t, t, indexing="ij")], axis=1)

    def test_the_same_cells_in_another_order(self):
        points = self.grid(8)
        values = np.random.default_rng(1).random((2, 64))
        files = self.files(points, m=values)
        order = np.random.default_rng(2).permutation(64)
        x = points[order] + 1e-12
        distance, place = _transfer.nearest(files.__getitem__, 4, x)
        assert _transfer.same_cells(distance, 1 / 8)
        assert not _transfer.same_cells(_transfer.nearest(files.__getitem__, 4, x + 0.01)[0], 1 / 8)
        assert (_transfer.pick(files.__getitem__, 4, place, "m", 2).reshape(2, -1) == values[:, order]).all()

    def test_between_the_cells(self):
        points, fine = self.grid(16), self.grid(32)
        files = self.files(points, m=np.stack([np.full(256, 0.3), points @ [1.0, 2.0]]))
        found = _transfer.interpolate(files.__getitem__, 4, fine, "m", 2).reshape(2, -1)
        assert found[0] == pytest.approx(np.full(1024, 0.3))
        inside = np.all((fine > 1 / 32) & (fine < 1 - 1 / 32), axis=1)
        assert found[1][inside] == pytest.approx(fine[inside] @ [1.0, 2.0], abs=0.02)
        assert 0 < found[1].min() < found[1].max() < 3

    def test_at_a_cell_it_is_its_value(self):
        points = self.grid(4)
        files = self.files(points, m=np.arange(16.0))
        assert _transfer.interpolate(files.__getitem__, 4, points, "m", 1) == pytest.approx(np.arange(16.0))

    def test_fewer_cells_than_neighbours(self):
        files = [{"positions": np.array([[0.5, 0.5]]), "m": np.array([0.7])}]
        assert _transfer.interpolate(files.__getitem__, 1, self.grid(2), "m", 1) == pytest.approx([0.7] * 4)

    def test_a_rank_without_cells(self):
        files = self.files(self.grid(4), m=np.arange(16.0))
        nothing = np.zeros((0, 2))
        distance, place = _transfer.nearest(files.__getitem__, 4, nothing)
        assert _transfer.same_cells(distance, 1.0)
        assert _transfer.pick(files.__getitem__, 4, place, "m", 1).size == 0
        assert _transfer.interpolate(files.__getitem__, 4, nothing, "m", 1).size == 0


#: A run in a process of its own; the test's directory, the checkpoint's and the interval are its arguments.
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from mpi4py import MPI
from test_checkpoint import design
from fetopo.design.checkpoint import Checkpoint
design(MPI.COMM_WORLD, "voxel", Checkpoint(sys.argv[2], every=1))
"""


def start(command):
    """A process that can be killed with all its children."""
    return subprocess.Popen(
        list(map(str, command)),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_within(process, directory, seconds, iteration=1):
    """SIGKILL so long after the checkpoint of an iteration; returns whether the run was still going on."""
    deadline = time.monotonic() + 120
    while _reached(directory) < iteration and process.poll() is None:
        assert time.monotonic() < deadline, f"no checkpoint of iteration {iteration} in two minutes"
        time.sleep(0.002)
    time.sleep(seconds)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert alive or process.returncode == 0, process.stderr.read()
    process.stderr.close()
    return alive


def _reached(directory):
    """Number of the last complete checkpoint, 0 without any."""
    return max((int(path.name) for path in directory.glob("[0-9]" * 8)), default=0)


@pytest.mark.slow
class TestKilled:
    """SIGKILL at random moments; every resume ends where the uninterrupted run does."""

    def command(self, directory, ranks=1):
        launch = ["mpirun", "-n", ranks] if ranks > 1 else []
        return [*launch, sys.executable, "-c", SCRIPT, Path(__file__).parent, directory]

    def test_at_ten_moments(self, comm, tmp_path):
        # Moments are counted in iterations: how long one takes depends on what else the machine does.
        whole = design(comm, "voxel", Checkpoint(tmp_path / "whole", every=1))
        last = len(whole.result.history)
        takes = whole.result.history[-1].seconds / last
        rng, killed = np.random.default_rng(6), 0
        for k in range(10):
            directory, iteration = tmp_path / str(k), int(rng.integers(1, max(2, 3 * last // 4)))
            moment = rng.uniform(0, takes)
            killed += kill_within(start(self.command(directory)), directory, moment, iteration)
            again = design(comm, "voxel", Checkpoint(directory, every=1, resume=True))
            agree(whole, again, 1e-8)
        assert killed >= 5

    @pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed")
    def test_on_two_ranks(self, comm, tmp_path):
        """What two killed ranks leave goes on on one."""
        directory = tmp_path / "checkpoint"
        kill_within(start(self.command(directory, ranks=2)), directory, 0.1)
        whole = design(comm, "voxel")
        again = design(comm, "voxel", Checkpoint(directory, resume=True))
        assert again.result.objective == pytest.approx(whole.result.objective, rel=1e-6)
        assert len(again.result.history) == len(whole.result.history)

    def test_command_line(self, tmp_path):
        case = tmp_path / "case.toml"
        case.write_text(
            'discretization = "voxel"\n[cell]\nshape = [32, 32]\n[material]\nconductivity = [0.01, 1.0]\n'
            'volume_fraction = 0.5\n[objective]\nmaximize = "isotropic"\n'
        )
        command = [sys.executable, "-m", "fetopo.cli", "design", case, "--no-pictures", "--output"]
        one = tmp_path / "one"
        process = start([*command, one, "--checkpoint-every", 1])
        assert kill_within(process, one / "checkpoint", 0.2)
        assert not (one / "result.json").exists()
        refused = start([*command, one])
        assert "holds a run that did not end" in refused.communicate()[1]
        assert refused.returncode == 2
        changed = tmp_path / "changed.toml"
        changed.write_text(case.read_text().replace("volume_fraction = 0.5", "volume_fraction = 0.4"))
        command[4] = changed
        refused = start([*command, one, "--resume"])
        assert "volume fraction was 0.5, now it is 0.4" in refused.communicate()[1]
        assert refused.returncode == 2
        command[4] = case
        for where, options in ((one, ["--resume"]), (tmp_path / "two", [])):
            process = start([*command, where, *options])
            _, errors = process.communicate()
            assert process.returncode == 0, errors
            if options:
                assert "going on after iteration" in errors
        first, second = (json.loads((tmp_path / n / "result.json").read_text()) for n in ("one", "two"))
        assert first["objective"] == pytest.approx(second["objective"], rel=1e-8)
        assert first["iterations"] == second["iterations"]
        assert first["verified"] == second["verified"]
