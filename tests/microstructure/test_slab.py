"""Images spread over ranks: every rank has its rows only, and all results are those of the whole image."""

import tracemalloc

import numpy as np
import pytest
from dolfinx import fem
from scipy import ndimage

from fetopo.microstructure import _labelling
from fetopo.microstructure.connectivity import connectivity, percolating_fraction, trim
from fetopo.microstructure.image import Image, Slab, read_slabs, write
from fetopo.microstructure.mesh import to_image, voxel_cell, voxel_of_cells
from fetopo.transport.tortuosity import tortuosity

pytestmark = pytest.mark.mpi


def noise(shape, fraction, seed):
    """Random voxels, a little smoothed so that clusters wind."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 0.6, mode="wrap")
    return field < np.quantile(field, fraction)


def uneven(comm, values, voxel_size=1.0):
    """A slab of rows as they fall, the last rank without any where there are several."""
    cuts = [0, *sorted(np.random.default_rng(7).integers(0, len(values) + 1, comm.size - 1)), len(values)]
    if comm.size > 1:
        cuts[-2] = len(values)
    return Slab(comm, values[cuts[comm.rank] : cuts[comm.rank + 1]], voxel_size)


class TestSlab:
    def test_rows_and_shape(self, comm):
        values = np.arange(7 * 4 * 3).reshape(7, 4, 3)
        for slab in (Slab.share(comm, values), uneven(comm, values)):
            assert slab.shape == (7, 4, 3)
            assert slab.size == values.size
            assert np.array_equal(slab.values, values[slab.first : slab.first + len(slab.values)])
            assert slab.count() == values.size - 1

    def test_phases_and_mask(self, comm):
        labels = np.random.default_rng(0).integers(0, 4, (6, 5))
        labels[labels == 2] = 9
        for slab in (Slab.share(comm, labels), uneven(comm, labels)):
            assert slab.phases() == Image(labels).phases
            mask = slab.mask([0, 9])
            assert mask.count() == np.isin(labels, [0, 9]).sum()
            with pytest.raises(ValueError, match="phase 2: expected labels of the image, 0, 1, 3, 9"):
                slab.mask(2)

    def test_neighbours(self, comm):
        values = np.arange(20).reshape(10, 2)
        slab = uneven(comm, values)
        before, after = slab.neighbours()
        stop = slab.first + len(slab.values)
        if len(slab.values):
            assert before is None if slab.first == 0 else np.array_equal(before, values[slab.first - 1])
            assert after is None if stop == 10 else np.array_equal(after, values[stop])
        else:
            assert (before, after) == (None, None)

    def test_values_of_any_voxels(self, comm):
        values = np.random.default_rng(1).normal(size=(5, 4, 3))
        rng = np.random.default_rng(comm.rank)
        for slab in (Slab.share(comm, values), uneven(comm, values)):
            asked = rng.integers(0, (5, 4, 3), (30 * comm.rank, 3))
            assert np.array_equal(slab.at(asked), values[tuple(asked.T)])

    @pytest.mark.parametrize("bad", [(5, 0, 0), (-1, 0, 0), (0, 0, 3)])
    def test_values_outside(self, comm, bad):
        slab = Slab.share(comm, np.zeros((5, 4, 3)))
        asked = np.array([bad]) if comm.rank == comm.size - 1 else np.zeros((0, 3), int)
        with pytest.raises(ValueError, match=r"outside an image of shape \(5, 4, 3\)"):
            slab.at(asked)

    def test_refused(self, comm):
        with pytest.raises(ValueError, match="image is empty"):
            Slab(comm, np.zeros((0, 3), int))
        with pytest.raises(ValueError, match="voxel_size is 0"):
            Slab.share(comm, np.zeros((3, 3), int), 0)
        with pytest.raises(ValueError, match="2D or 3D"):
            Slab.share(comm, np.zeros(3, int))
        if comm.size > 1:
            with pytest.raises(ValueError, match="expected rows of one 2D or 3D image"):
                Slab(comm, np.zeros((2, 3 + comm.rank), int))


@pytest.mark.parametrize("suffix", ["tif", "npy", "npz", "vti"])
def test_read(comm, suffix, tmp_path_factory):
    labels = np.random.default_rng(3).integers(0, 5, (7, 6, 5)).astype(np.uint8)
    folder = comm.bcast(tmp_path_factory.mktemp("slabs") if comm.rank == 0 else None)
    if comm.rank == 0:
        write(folder / f"image.{suffix}", Image(labels, 2e-6))
    comm.barrier()
    for crop in (None, 2, ((1, 0, 2), (5, 4, 3))):
        slab = read_slabs(comm, folder / f"image.{suffix}", crop=crop, voxel_size=2e-6)
        whole = Image(labels) if crop is None else Image(labels).crop(crop)
        assert slab.shape == whole.shape
        assert slab.voxel_size == (2e-6,) * 3
        assert np.array_equal(slab.values, whole.labels[slab.first : slab.first + len(slab.values)])
        assert slab.phases() == whole.phases
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_slabs(comm, folder / "nothing.tif")


class TestConnectivity:
    @pytest.mark.parametrize("seed", range(6))
    @pytest.mark.parametrize("shape", [(12, 9, 10), (40, 30)])
    def test_as_of_the_whole_image(self, comm, shape, seed, monkeypatch):
        mask = noise(shape, 0.3 + 0.05 * seed, seed)
        labels, count = ndimage.label(mask)
        sizes = np.bincount(labels.ravel())
        expected = []
        for axis in range(mask.ndim):
            both = np.intersect1d(labels.take(0, axis), labels.take(-1, axis))
            expected.append(np.isin(labels, both[both > 0]))
        for block in (1, 25, 2**24):
            monkeypatch.setattr(_labelling, "BLOCK", block)
            for given in (mask, Slab.share(comm, mask), uneven(comm, mask)):
                rows = slice(None)
                if isinstance(given, Slab):
                    rows = slice(given.first, given.first + len(given.values))
                for found, through in zip(connectivity(given), expected, strict=True):
                    assert found.clusters == count
                    assert found.voxels == mask.sum()
                    assert found.percolating == through.sum()
                    assert np.array_equal(found.through, through[rows])
                    near = np.union1d(labels.take(0, found.axis), labels.take(-1, found.axis))
                    assert found.isolated == sizes[np.setdiff1d(np.arange(1, count + 1), near)].sum()
                    assert percolating_fraction(given, found.axis) == through.sum() / mask.sum()

    def test_a_path_that_comes_back(self, comm):
        """A cluster that only the last row of the image makes one."""
        mask = np.zeros((9, 5), dtype=bool)
        mask[:, [0, 2, 4]] = True
        mask[8, :3] = True
        mask[0, 3] = True
        found = connectivity(Slab.share(comm, mask))
        assert [f.clusters for f in found] == [1, 1]
        assert [f.percolating_fraction for f in found] == [1.0, 1.0]

    def test_trim(self, comm):
        mask = noise((20, 16), 0.5, 3)
        slab = Slab.share(comm, mask)
        kept, lost = trim(slab, 0)
        whole, share = trim(mask, 0)
        assert lost == share
        assert np.array_equal(kept, whole[slab.first : slab.first + len(kept)])

    def test_nothing_and_everything(self, comm):
        for value in (False, True):
            slab = Slab.share(comm, np.full((4, 3, 2), value))
            for found in connectivity(slab):
                assert (found.percolating, found.clusters) == (24 * value, int(value))
                assert found.through.sum() == slab.values.sum()


class TestMesh:
    @pytest.mark.parametrize("shape", [(7, 5), (6, 5, 4), (1, 4), (2, 3, 1)])
    @pytest.mark.parametrize("phases", [None, [0, 2]])
    def test_as_from_the_whole_image(self, comm, shape, phases):
        labels = np.random.default_rng(5).integers(0, 3, shape)
        labels.flat[:3] = (0, 1, 2)
        for slab in (Slab.share(comm, labels, 2e-6), uneven(comm, labels, 2e-6)):
            cell = voxel_cell(comm, slab, phases=phases)
            assert cell.grid == shape
            assert np.allclose(cell.upper, 2e-6 * np.array(shape))
            # The tags of ghosts too.
            assert np.array_equal(cell.cell_tags.values, labels[tuple(voxel_of_cells(cell).T)])
            f = fem.Function(fem.functionspace(cell.mesh, ("DG", 0)))
            f.x.array[:] = 1.0
            there = to_image(cell, f.x.array)
            assert np.array_equal(there, np.isin(labels, [0, 1, 2] if phases is None else phases))
            nodes = np.zeros(np.array(shape) + 1, dtype=bool)
            for corner in np.argwhere(there):
                nodes[tuple(slice(c, c + 2) for c in corner)] = True
            V = fem.functionspace(cell.mesh, ("Lagrange", 1))
            assert V.dofmap.index_map.size_global == nodes.sum()

    def test_tortuosity(self, comm):
        mask = noise((14, 12, 10), 0.6, 1)
        whole = tortuosity(comm, mask)
        for slab in (Slab.share(comm, mask), uneven(comm, mask)):
            for one, other in zip(whole, tortuosity(comm, slab), strict=True):
                assert one.porosity == other.porosity == mask.mean()
                assert one.percolating_fraction == other.percolating_fraction
                assert one.relative_diffusivity == pytest.approx(other.relative_diffusivity, rel=1e-7)

    def test_no_array_of_the_whole_image(self, comm):
        """What a rank takes for a thin phase is a part of the image, and less the more ranks there are."""
        shape = (240, 120, 120)
        rows = 240 * comm.rank // comm.size, 240 * (comm.rank + 1) // comm.size
        values = np.zeros((rows[1] - rows[0], *shape[1:]), dtype=np.uint8)
        values[:, 60, 60] = 1
        slab = Slab(comm, values)
        del values
        voxel_cell(comm, slab, phases=[1])  # compiled code, caches
        tracemalloc.start()
        mask = slab.mask(1)
        parts = connectivity(mask, [0])[0]
        assert parts.percolating_fraction == 1.0
        cell = voxel_cell(comm, mask.like(parts.through), phases=[1])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert cell.mesh.topology.index_map(3).size_global == 240
        # Masks take a byte, node numbers and labels of clusters eight and four for each voxel of the slab.
        assert peak < 30 * slab.values.size
        if comm.size > 1:
            assert all(part.nbytes < slab.size for part in (mask.values, parts.through))
