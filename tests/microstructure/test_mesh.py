"""Meshes of cells and voxel images: every voxel in its place, counted once, on any number of ranks."""

import numpy as np
import pytest
import ufl
from dolfinx import fem

from fetopo.microstructure.mesh import (
    UnitCell,
    regular_cell,
    select_phases,
    to_image,
    voxel_cell,
    voxel_of_cells,
)
from fetopo.transport.state import global_sum

pytestmark = pytest.mark.mpi


def image(shape, labels=3, seed=0):
    return np.random.default_rng(seed).integers(0, labels, shape, dtype=np.uint8)


def tag_function(cell: UnitCell) -> fem.Function:
    """The tags as a DG0 function."""
    f = fem.Function(fem.functionspace(cell.mesh, ("DG", 0)))
    f.x.array[f.function_space.dofmap.list.reshape(-1)[cell.cell_tags.indices]] = cell.cell_tags.values
    return f


def cells_of(cell: UnitCell) -> int:
    return cell.mesh.topology.index_map(cell.dim).size_global


class TestRegular:
    @pytest.mark.parametrize(
        ("shape", "kind", "count"),
        [
            ((5, 3), "quadrilateral", 15),
            ((5, 3), "triangle", 30),
            ((4, 3, 2), "hexahedron", 24),
            ((4, 3, 2), "tetrahedron", 144),
        ],
    )
    def test_counts_box_and_tags(self, comm, shape, kind, count):
        cell = regular_cell(comm, shape, cell_type=kind)
        assert cells_of(cell) == count
        assert cell.mesh.topology.cell_name() == kind
        assert cell.tags() == [1]
        assert cell.complete
        assert np.allclose(cell.lengths, np.array(shape) / max(shape))
        assert global_sum(fem.form(fem.Constant(cell.mesh, 1.0) * ufl.dx)) == pytest.approx(cell.volume)
        assert cell.grid == (shape if kind in ("quadrilateral", "hexahedron") else None)

    def test_default_kinds(self, comm):
        assert regular_cell(comm, (3, 3)).mesh.topology.cell_name() == "quadrilateral"
        assert regular_cell(comm, (3, 3, 3)).mesh.topology.cell_name() == "hexahedron"

    def test_lengths_in_metres(self, comm):
        cell = regular_cell(comm, (4, 2), lengths=(2e-6, 3e-6))
        assert cell.lengths.tolist() == [2e-6, 3e-6]
        assert cell.volume == pytest.approx(6e-12)

    @pytest.mark.parametrize(
        ("shape", "lengths", "kind", "message"),
        [
            ((0, 3), None, None, r"\(0, 3\)"),
            ((2.5, 3), None, None, r"2\.5"),
            ((3,), None, None, "2 or 3 positive"),
            ((3, 3), (1.0,), None, "lengths must be 2"),
            ((3, 3), (1.0, -1.0), None, "-1.0"),
            ((3, 3), (1.0, np.nan), None, "nan"),
            ((3, 3), None, "hexahedron", "triangle, quadrilateral"),
            ((3, 3, 3), None, "wedge", "tetrahedron, hexahedron"),
        ],
    )
    def test_refused(self, comm, shape, lengths, kind, message):
        with pytest.raises(ValueError, match=message):
            regular_cell(comm, shape, lengths, kind)


class TestVoxels:
    @pytest.mark.parametrize("shape", [(7, 5), (1, 6), (6, 1), (5, 4, 3), (1, 1, 4), (3, 1, 2), (1, 1)])
    def test_every_voxel_once_with_its_label(self, comm, shape):
        labels = image(shape)
        cell = voxel_cell(comm, labels)
        assert cells_of(cell) == labels.size
        assert np.array_equal(to_image(cell, tag_function(cell).x.array), labels)
        assert cell.tags() == sorted(set(labels.ravel().tolist()))
        assert cell.complete

    @pytest.mark.parametrize("shape", [(7, 5), (5, 4, 3)])
    def test_nodes_are_shared(self, comm, shape):
        cell = voxel_cell(comm, image(shape))
        V = fem.functionspace(cell.mesh, ("Lagrange", 1))
        assert V.dofmap.index_map.size_global == np.prod(np.array(shape) + 1)

    def test_axis_0_is_x(self, comm):
        labels = np.zeros((4, 3, 2), dtype=int)
        labels[3] = 1
        cell = voxel_cell(comm, labels)
        x = ufl.SpatialCoordinate(cell.mesh)
        f = tag_function(cell)
        volume, moment = global_sum(fem.form(f * ufl.dx)), global_sum(fem.form(f * x[0] * ufl.dx))
        assert moment / volume == pytest.approx(3.5)

    def test_some_phases(self, comm):
        labels = image((6, 5, 4))
        cell = voxel_cell(comm, labels, phases=[0, 2])
        assert cells_of(cell) == (labels != 1).sum()
        assert cell.tags() == [0, 2]
        assert not cell.complete
        assert np.allclose(cell.upper, labels.shape)
        shown = to_image(cell, tag_function(cell).x.array, fill=-1)
        assert np.array_equal(shown, np.where(labels == 1, -1.0, labels))

    def test_some_phases_share_nodes_only_where_they_touch(self, comm):
        labels = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]])
        cell = voxel_cell(comm, labels, phases=[1])
        V = fem.functionspace(cell.mesh, ("Lagrange", 1))
        assert V.dofmap.index_map.size_global == 6 + 4

    def test_planes_without_voxels(self, comm):
        """Slabs are cut by the number of voxels kept, not by planes."""
        labels = np.zeros((20, 2), dtype=int)
        labels[[0, 19]] = 1
        cell = voxel_cell(comm, labels, phases=[1])
        assert cells_of(cell) == 4
        assert np.array_equal(to_image(cell, tag_function(cell).x.array), labels)

    def test_voxel_size_per_axis(self, comm):
        cell = voxel_cell(comm, image((4, 3, 2)), (1e-6, 2e-6, 3e-6))
        assert np.allclose(cell.lengths, [4e-6, 6e-6, 6e-6])
        assert global_sum(fem.form(fem.Constant(cell.mesh, 1.0) * ufl.dx)) == pytest.approx(cell.volume)

    def test_boolean_image(self, comm):
        mask = image((5, 5), 2).astype(bool)
        assert cells_of(voxel_cell(comm, mask, phases=[1])) == mask.sum()

    @pytest.mark.parametrize(
        ("labels", "options", "message"),
        [
            (np.zeros(4, int), {}, "2D or 3D"),
            (np.zeros((0, 3), int), {}, "2D or 3D"),
            (np.zeros((2, 2)), {}, "integers, found float64"),
            (np.zeros((2, 2), int), {"voxel_size": -1.0}, "positive"),
            (np.zeros((2, 2), int), {"voxel_size": (1.0, np.inf)}, "positive"),
            (np.zeros((2, 2), int), {"phases": [1]}, r"\[1\] are not all in the image, which has \[0\]"),
            (np.zeros((2, 2), int), {"phases": []}, "are not all"),
        ],
    )
    def test_refused(self, comm, labels, options, message):
        with pytest.raises(ValueError, match=message):
            voxel_cell(comm, labels, **options)


class TestToImage:
    def test_complete_on_every_rank(self, comm):
        cell = regular_cell(comm, (4, 5, 3))
        owned = cell.mesh.topology.index_map(3).size_local
        flat = np.ravel_multi_index(tuple(voxel_of_cells(cell)[:owned].T), cell.grid)
        assert np.array_equal(to_image(cell, flat.astype(float)), np.arange(60.0).reshape(4, 5, 3))

    def test_simplices_have_no_voxels(self, comm):
        cell = regular_cell(comm, (3, 3), cell_type="triangle")
        with pytest.raises(ValueError, match="not a regular grid"):
            voxel_of_cells(cell)


class TestSelect:
    def test_submesh_keeps_tags_box_and_place(self, comm):
        labels = image((6, 7))
        part = select_phases(voxel_cell(comm, labels), [0, 2])
        assert cells_of(part) == (labels != 1).sum()
        assert part.tags() == [0, 2]
        assert not part.complete
        assert part.volume == labels.size
        shown = to_image(part, tag_function(part).x.array, fill=1)
        assert np.array_equal(shown, labels)

    def test_all_phases_change_nothing(self, comm):
        cell = voxel_cell(comm, image((4, 4)))
        assert select_phases(cell, [0, 1, 2]) is cell

    def test_names(self, comm):
        bare = voxel_cell(comm, image((4, 4)))
        cell = UnitCell(bare.mesh, bare.cell_tags, bare.lower, bare.upper, {"pore": 0, "rock": 1, "clay": 2})
        part = select_phases(cell, ["pore"])
        assert part.phases == {"pore": 0}
        assert part.tag("pore") == 0
        with pytest.raises(ValueError, match="no phase 'gas'; this cell has pore, rock, clay"):
            select_phases(cell, ["gas"])

    @pytest.mark.parametrize("phases", [[7], []])
    def test_refused(self, comm, phases):
        with pytest.raises(ValueError, match=r"are not all in the cell, which has tags \[0, 1, 2\]"):
            select_phases(voxel_cell(comm, image((4, 4))), phases)

    def test_phase_on_one_rank_only(self, comm):
        """A phase so small that most ranks have none of it."""
        labels = np.zeros((8, 8), dtype=int)
        labels[0, 0] = 1
        part = select_phases(voxel_cell(comm, labels), [1])
        assert cells_of(part) == 1
        assert np.array_equal(to_image(part, tag_function(part).x.array), labels)
