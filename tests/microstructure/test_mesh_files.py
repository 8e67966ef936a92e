"""Meshes to files and back: names of phases, curved cells, several ranks, nothing half written."""

from pathlib import Path

import numpy as np
import pytest
import ufl
from dolfinx import fem, has_adios2

from fetopo.microstructure.generate import overlapping_spheres
from fetopo.microstructure.image import Image
from fetopo.microstructure.mesh import (
    UnitCell,
    read_mesh,
    regular_cell,
    select_phases,
    voxel_cell,
    write_mesh,
    write_surface,
    write_vtx,
    write_xdmf,
)  # fmt: skip
from fetopo.transport.homogenization import effective_conductivity
from fetopo.transport.state import global_sum

meshio = pytest.importorskip("meshio", reason="meshio is not installed")

pytestmark = pytest.mark.mpi


@pytest.fixture
def folder(comm, tmp_path):
    """One folder for all ranks."""
    return Path(comm.bcast(str(tmp_path)))


def named_voxels(comm, dim):
    labels = np.random.default_rng(1).integers(0, 3, size=(4, 5, 3)[:dim])
    cell = voxel_cell(comm, labels, 2e-6)
    return UnitCell(cell.mesh, cell.cell_tags, cell.lower, cell.upper, {"pore": 0, "solid": 1, "CBD": 2})


def inclusions(comm, dim, order):
    pytest.importorskip("gmsh", reason="Gmsh's Python module is not installed")
    from fetopo.microstructure.geometry import inclusion_cell

    centers = [(0.1, 0.5, 0.5)[:dim], (0.6, 0.5, 0.5)[:dim]]
    names = ["graphite", "silicon"]
    return inclusion_cell(comm, centers, [0.25, 0.15], phases=names, mesh_size=0.25, order=order)


CELLS = {
    "quadrilaterals": lambda comm: named_voxels(comm, 2),
    "hexahedra": lambda comm: named_voxels(comm, 3),
    "triangles": lambda comm: inclusions(comm, 2, 1),
    "curved triangles": lambda comm: inclusions(comm, 2, 2),
    "tetrahedra": lambda comm: inclusions(comm, 3, 1),
    "curved tetrahedra": lambda comm: inclusions(comm, 3, 2),
}


def volumes(cell):
    """Volume and first moment along x of every named phase: the moment notices a mesh turned around."""
    dx = ufl.Measure("dx", domain=cell.mesh, subdomain_data=cell.cell_tags)
    x = ufl.SpatialCoordinate(cell.mesh)
    one = fem.Constant(cell.mesh, 1.0)
    return {
        name: [global_sum(fem.form(f * dx(tag))) for f in (one, x[0], x[cell.dim - 1])]
        for name, tag in cell.phases.items()
    }


@pytest.mark.parametrize("suffix", [".msh", ".vtu", ".vtk", ".inp", ".xdmf"])
@pytest.mark.parametrize("kind", CELLS)
def test_there_and_back(comm, folder, kind, suffix):
    cell = CELLS[kind](comm)
    write_mesh(folder / f"cell{suffix}", cell)
    back = read_mesh(comm, folder / f"cell{suffix}")
    assert set(back.phases) == set(cell.phases)
    if suffix != ".inp":  # which has sets but no numbers
        assert back.phases == cell.phases
    expected, found = volumes(cell), volumes(back)
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-9), name
    assert np.allclose(back.lower, cell.lower, atol=1e-9 * cell.lengths.max(), rtol=0)
    assert np.allclose(back.upper, cell.upper, rtol=1e-9)
    assert back.complete
    assert not [p.name for p in folder.iterdir() if "part" in p.name]


def test_what_was_read_is_homogenised_alike(comm, folder):
    cell = inclusions(comm, 2, 1)
    write_mesh(folder / "cell.msh", cell)
    values = {"matrix": 1.0, "graphite": 10.0, "silicon": 0.0}
    back = read_mesh(comm, folder / "cell.msh")
    expected = effective_conductivity(cell, values).tensor
    assert effective_conductivity(back, values).tensor == pytest.approx(expected, rel=1e-8)


def test_part_of_a_box(comm, folder):
    cell = named_voxels(comm, 3)
    pore = select_phases(cell, ["pore"])
    write_mesh(folder / "pore.vtu", pore)
    back = read_mesh(comm, folder / "pore.vtu", scale=1e3)
    assert back.phases == {"pore": 0}
    assert not back.complete
    assert volumes(back)["pore"][0] == pytest.approx(1e9 * volumes(pore)["pore"][0], rel=1e-9)


def test_units_of_a_file(comm, folder):
    cell = named_voxels(comm, 2)
    write_mesh(folder / "mm.inp", cell, scale=1e3)
    back = read_mesh(comm, folder / "mm.inp", scale=1e-3)
    assert np.allclose(back.lengths, cell.lengths, rtol=1e-12)


def test_array_of_another_name(comm, folder):
    if comm.rank == 0:
        points = np.array([[0, 0], [1, 0], [1, 1], [0, 1.0]])
        cells = [("triangle", np.array([[0, 1, 2], [0, 2, 3]])), ("line", np.array([[0, 1]]))]
        data = {
            "grain": [np.array([4.0, 7.0]), np.array([0.0])],
            "field": [np.array([0.5, 1.0]), np.zeros(1)],
        }
        meshio.write(folder / "a.vtu", meshio.Mesh(points, cells, cell_data=data))
    comm.Barrier()
    assert read_mesh(comm, folder / "a.vtu", name="grain").tags() == [4, 7]
    assert read_mesh(comm, folder / "a.vtu").tags() == [1]
    with pytest.raises(ValueError, match="no cell data 'phase', found grain, field"):
        read_mesh(comm, folder / "a.vtu", name="phase")
    with pytest.raises(ValueError, match="not one whole number"):
        read_mesh(comm, folder / "a.vtu", name="field")


class TestRefused:
    def write(self, comm, path, points, cells, **options):
        if comm.rank == 0:
            meshio.write(path, meshio.Mesh(np.asarray(points, dtype=float), cells, **options))
        comm.Barrier()

    def test_files(self, comm, folder):
        with pytest.raises(FileNotFoundError, match=r"absent\.vtu"):
            read_mesh(comm, folder / "absent.vtu")
        if comm.rank == 0:
            (folder / "text.vtu").write_text("no mesh")
            (folder / "mesh.unknown").write_text("no mesh")
        comm.Barrier()
        for name in ("text.vtu", "mesh.unknown"):
            with pytest.raises(ValueError, match=f"{name}: meshio cannot read it"):
                read_mesh(comm, folder / name)
        with pytest.raises(ValueError, match="scale is 0"):
            read_mesh(comm, folder / "text.vtu", scale=0)

    def test_cells(self, comm, folder):
        square = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [2, 0, 0]]
        mixed = [("quad", [[0, 1, 2, 3]]), ("triangle", [[1, 4, 2]])]
        self.write(comm, folder / "mixed.vtu", square, mixed)
        with pytest.raises(ValueError, match="quad, triangle: expected one of"):
            read_mesh(comm, folder / "mixed.vtu")
        self.write(comm, folder / "lines.vtu", square, [("line", [[0, 1]])])
        with pytest.raises(ValueError, match="no triangles"):
            read_mesh(comm, folder / "lines.vtu")
        bent = [[0, 0, 0], [1, 0, 0], [1, 1, 1]]
        self.write(comm, folder / "bent.vtu", bent, [("triangle", [[0, 1, 2]])])
        with pytest.raises(ValueError, match="surface in space"):
            read_mesh(comm, folder / "bent.vtu")
        bent[2][0] = np.nan
        self.write(comm, folder / "nan.vtu", bent, [("triangle", [[0, 1, 2]])])
        with pytest.raises(ValueError, match="NaN"):
            read_mesh(comm, folder / "nan.vtu")

    def test_sets(self, comm, folder):
        square = [[0, 0], [1, 0], [1, 1], [0, 1]]
        cells = [("triangle", [[0, 1, 2], [0, 2, 3]])]
        self.write(comm, folder / "sets.inp", square, cells, cell_sets={"a": [[0, 1]], "b": [[1]]})
        with pytest.raises(ValueError, match="0 cells are in no set and 1 in several"):
            read_mesh(comm, folder / "sets.inp")

    def test_writing(self, comm, folder):
        cell = named_voxels(comm, 2)
        with pytest.raises(ValueError, match=r"meshio writes no '\.png'"):
            write_mesh(folder / "a.png", cell)
        with pytest.raises(ValueError, match=r"ends in \.xdmf"):
            write_xdmf(folder / "a.vtu", cell)
        with pytest.raises(ValueError, match=r"ends in \.bp"):
            write_vtx(folder / "a.vtu", cell)
        with pytest.raises(ValueError, match=r"ends in \.stl"):
            write_surface(folder / "a.obj", cell, 0)
        with pytest.raises(ValueError, match="needs a 3D cell"):
            write_surface(folder / "a.stl", cell, 0)
        with pytest.raises(ValueError, match="no phase 'air'"):
            write_surface(folder / "a.stl", cell, "air")
        assert not list(folder.iterdir())

    def test_a_failed_write_leaves_the_old_file(self, comm, folder, monkeypatch):
        cell = named_voxels(comm, 2)
        write_mesh(folder / "a.vtu", cell)
        before = (folder / "a.vtu").read_bytes()

        def broken(path, *_, **__):
            Path(path).write_text("half")
            raise OSError("disk full")

        monkeypatch.setattr(meshio, "write", broken)
        with pytest.raises(ValueError, match="disk full"):
            write_mesh(folder / "a.vtu", cell)
        assert (folder / "a.vtu").read_bytes() == before
        assert [p.name for p in folder.iterdir()] == ["a.vtu"]


def test_xdmf_with_functions(comm, folder):
    cell = named_voxels(comm, 2)
    u = fem.Function(fem.functionspace(cell.mesh, ("Lagrange", 1)), name="potential")
    write_xdmf(folder / "a.xdmf", cell, [u])
    if comm.rank == 0:
        text = (folder / "a.xdmf").read_text()
        assert 'Name="potential"' in text
        assert 'Name="phase:CBD" Value="2"' in text
        assert sorted(p.name for p in folder.iterdir()) == ["a.h5", "a.xdmf"]
    comm.Barrier()
    with pytest.raises(ValueError, match="no cell tags 'grain', found phase"):
        read_mesh(comm, folder / "a.xdmf", name="grain")


@pytest.mark.skipif(not has_adios2, reason="DOLFINx without ADIOS2")
@pytest.mark.parametrize("order", [1, 2])
def test_vtx(comm, folder, order):
    cell = inclusions(comm, 2, order)
    for _ in range(2):  # the second replaces the first
        write_vtx(folder / "phase.bp", cell)
    V = fem.functionspace(cell.mesh, ("Lagrange", order))
    functions = [fem.Function(V, name=name) for name in "uv"]
    write_vtx(folder / "fields.bp", cell, functions)
    other = fem.Function(fem.functionspace(cell.mesh, ("DG", order)))
    with pytest.raises(ValueError, match="one element"):
        write_vtx(folder / "fields.bp", cell, [*functions, other])
    comm.Barrier()
    assert sorted(p.name for p in folder.iterdir()) == ["fields.bp", "phase.bp"]


def triangles_of(path):
    raw = path.read_bytes()
    kind = [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")]
    rows = np.frombuffer(raw, dtype=kind, offset=84)
    assert int.from_bytes(raw[80:84], "little") == len(rows)
    return rows["corners"].astype(float), rows["normal"].astype(float)


def enclosed(triangles):
    return float(np.einsum("ij,ij->", triangles[:, 0], np.cross(triangles[:, 1], triangles[:, 2]))) / 6


def check_closed(triangles):
    """Every directed edge occurs as often as its reverse."""
    _, number = np.unique(triangles.reshape(-1, 3), axis=0, return_inverse=True)
    number = number.reshape(-1, 3)
    edges = np.concatenate([number[:, [0, 1]], number[:, [1, 2]], number[:, [2, 0]]])
    there, back = (np.sort(e[:, 0] * (number.max() + 1) + e[:, 1]) for e in (edges, edges[:, ::-1]))
    assert (there == back).all()


class TestSurface:
    @pytest.mark.parametrize("kind", ["tetrahedra", "curved tetrahedra", "hexahedra"])
    def test_encloses_the_phase(self, comm, folder, kind):
        cell = CELLS[kind](comm)
        for name, (volume, *_) in volumes(cell).items():
            count = write_surface(folder / f"{name}.stl", cell, name)
            assert comm.allreduce(count) > 0
            comm.Barrier()
            triangles, normals = triangles_of(folder / f"{name}.stl")
            check_closed(triangles)
            # In millimetres; flat triangles cut something off curved faces.
            assert enclosed(triangles) == pytest.approx(
                1e9 * volume, rel=0.05 if kind == "curved tetrahedra" else 1e-5
            )
            own = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
            assert (np.einsum("ij,ij->i", own, normals) > 0).all()

    def test_of_an_image_is_that_of_its_voxel_mesh(self, comm, folder):
        image = overlapping_spheres((6, 7, 5), volume_fraction=0.4, radius=1.2e-6, voxel_size=1e-6, seed=2)
        cell = voxel_cell(comm, image.labels, image.voxel_size)
        write_surface(folder / "cell.stl", cell, 1, scale=1e6)
        if comm.rank == 0:
            write_surface(folder / "image.stl", image, 1, scale=1e6)
        comm.Barrier()
        found = [triangles_of(folder / f"{name}.stl")[0] for name in ("cell", "image")]
        for triangles in found:
            check_closed(triangles)
            assert enclosed(triangles) == pytest.approx(int((image.labels == 1).sum()), rel=1e-6)
        corners = [np.unique(t.reshape(-1, 3).round(3), axis=0) for t in found]
        assert np.array_equal(*corners)

    def test_refused_images(self, tmp_path):
        with pytest.raises(ValueError, match="needs a 3D image"):
            write_surface(tmp_path / "a.stl", Image(np.zeros((3, 3), dtype=int), (1e-6,) * 2), 0)
        with pytest.raises(ValueError, match="no voxels of phase 2"):
            write_surface(tmp_path / "a.stl", Image(np.zeros((3, 3, 3), dtype=int), (1e-6,) * 3), 2)


def test_mesh_without_phases(comm, folder):
    write_mesh(folder / "a.vtu", regular_cell(comm, (3, 2)))
    assert read_mesh(comm, folder / "a.vtu").phases == {}
