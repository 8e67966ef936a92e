"""Users' own Gmsh models as cells: names of phases kept, faces alike, errors that say what is missing."""

from pathlib import Path

import numpy as np
import pytest
import ufl
from dolfinx import fem

gmsh = pytest.importorskip("gmsh", reason="Gmsh's Python module is not installed")

from fetopo.microstructure.geometry import gmsh_cell  # noqa: E402
from fetopo.transport.homogenization import effective_conductivity  # noqa: E402
from fetopo.transport.periodic import periodic_space  # noqa: E402
from fetopo.transport.state import global_sum  # noqa: E402

pytestmark = pytest.mark.mpi


@pytest.fixture
def folder(comm, tmp_path):
    """One folder for all ranks."""
    return Path(comm.bcast(str(tmp_path)))


def volume(cell, name):
    dx = ufl.Measure("dx", domain=cell.mesh, subdomain_data=cell.cell_tags)
    return global_sum(fem.form(fem.Constant(cell.mesh, 1.0) * dx(cell.tag(name))))


def layers(model, *, groups=True, dim=3):
    """A box 2 × 1 (× 1) of two layers that meet at x = 0.5."""
    if dim == 3:
        parts = [(3, model.occ.addBox(0, 0, 0, 0.5, 1, 1)), (3, model.occ.addBox(0.5, 0, 0, 1.5, 1, 1))]
    else:
        parts = [
            (2, model.occ.addRectangle(0, 0, 0, 0.5, 1)), (2, model.occ.addRectangle(0.5, 0, 0, 1.5, 1))
        ]  # fmt: skip
    model.occ.fragment(parts[:1], parts[1:])
    model.occ.synchronize()
    if groups:
        model.addPhysicalGroup(dim, [parts[0][1]], 7, "foil")
        model.addPhysicalGroup(dim, [parts[1][1]], 3, "coating")


GEO = """
SetFactory("OpenCASCADE");
Rectangle(1) = {0, 0, 0, 1, 1};
Disk(2) = {0.5, 0.5, 0, 0.3};
BooleanFragments{ Surface{1}; Delete; }{ Surface{2}; Delete; }
Physical Surface("fibre", 5) = {2};
Physical Surface("resin", 6) = {3};
Physical Curve("left", 9) = {1};
Mesh.MeshSizeMax = 0.1;
"""


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("dim", [2, 3])
def test_function_that_builds(comm, dim, order):
    """Layers in series and parallel: exact on any mesh."""
    cell = gmsh_cell(
        comm, lambda model: layers(model, dim=dim), mesh_size=0.4, periodic=True, order=order, scale=1e-6
    )
    assert cell.phases == {"foil": 7, "coating": 3}
    assert np.allclose(cell.lengths, np.array([2, 1, 1])[:dim] * 1e-6, rtol=1e-12)
    assert volume(cell, "foil") == pytest.approx(0.5e-6**1 * 1e-6 ** (dim - 1), rel=1e-9)
    assert cell.complete
    tensor = effective_conductivity(cell, {"foil": 4.0, "coating": 1.0}).tensor
    assert tensor[0, 0] == pytest.approx(1 / (0.25 / 4 + 0.75), rel=1e-8)
    assert tensor[1, 1] == pytest.approx(0.25 * 4 + 0.75, rel=1e-8)


def test_geo_file(comm, folder):
    if comm.rank == 0:
        (folder / "fibre.geo").write_text(GEO)
    comm.Barrier()
    cell = gmsh_cell(comm, folder / "fibre.geo", periodic=True)
    assert cell.phases == {"fibre": 5, "resin": 6}
    assert cell.facets == {"left": 9}
    assert cell.facet_tags is not None
    assert volume(cell, "fibre") == pytest.approx(np.pi * 0.09, rel=0.02)
    periodic_space(fem.functionspace(cell.mesh, ("Lagrange", 2)), cell.lower, cell.upper)


def test_msh_file_of_gmsh(comm, folder):
    """Gmsh's own format (4.1) with the mesh in it."""
    if comm.rank == 0:
        gmsh.initialize(interruptible=False)
        try:
            gmsh.option.setNumber("General.Terminal", 0)
            gmsh.model.add("mine")
            layers(gmsh.model)
            gmsh.model.mesh.generate(3)
            gmsh.write(str(folder / "layers.msh"))
        finally:
            gmsh.finalize()
    comm.Barrier()
    cell = gmsh_cell(comm, folder / "layers.msh")
    assert cell.phases == {"foil": 7, "coating": 3}
    assert volume(cell, "coating") == pytest.approx(1.5, rel=1e-12)


def test_step_file_without_names(comm, folder):
    """A CAD file in millimetres, whose solids have no names: the caller says which is which."""
    path = folder / "layers.step"
    if comm.rank == 0:
        gmsh.initialize(interruptible=False)
        try:
            gmsh.option.setNumber("General.Terminal", 0)
            gmsh.model.add("mine")
            layers(gmsh.model, groups=False)
            gmsh.write(str(path))
        finally:
            gmsh.finalize()
    comm.Barrier()
    cell = gmsh_cell(comm, path, phases={"foil": [1], "coating": [2]}, scale=1e-3, mesh_size=0.5)
    assert cell.phases == {"foil": 1, "coating": 2}
    assert volume(cell, "foil") == pytest.approx(0.5e-9, rel=1e-9)
    with pytest.raises(ValueError, match=r"phase 'air' is made of entities \[9\]: the model has \[1, 2\]"):
        gmsh_cell(comm, path, phases={"air": [9]})


def test_part_of_a_box_is_not_complete(comm):
    def wedge(model):
        points = [model.geo.addPoint(x, y, 0, 0.3) for x, y in ((0, 0), (1, 0), (0, 1))]
        lines = [model.geo.addLine(points[k], points[k - 2]) for k in range(3)]
        face = model.geo.addPlaneSurface([model.geo.addCurveLoop(lines)])
        model.geo.synchronize()
        model.addPhysicalGroup(2, [face], name="pore")

    assert not gmsh_cell(comm, wedge).complete


def spheres(model):
    model.occ.addSphere(0, 0, 0, 1)
    model.occ.synchronize()
    model.addPhysicalGroup(2, [1], name="shell")


def half_named(model):
    layers(model, groups=False)
    model.addPhysicalGroup(3, [1], name="foil")


def twice_named(model):
    layers(model)
    model.addPhysicalGroup(3, [1], 8, "again")


def tilted(model):
    model.occ.addRectangle(0, 0, 0, 1, 1)
    model.occ.rotate([(2, 1)], 0, 0, 0, 1, 0, 0, 0.5)
    model.occ.synchronize()
    model.addPhysicalGroup(2, [1], name="sheet")


def mixed_cells(model):
    layers(model, dim=2)
    model.mesh.setRecombine(2, 1)


def unlike_faces(model):
    box = model.occ.addBox(0, 0, 0, 1, 1, 1)
    model.occ.cut([(3, box)], [(3, model.occ.addSphere(0, 0.5, 0.5, 0.2))])
    model.occ.synchronize()
    model.addPhysicalGroup(3, [1], name="matrix")


def broken(model):
    raise KeyError("radius")


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        (lambda model: None, {}, ValueError, "neither volumes nor surfaces"),
        (
            lambda model: layers(model, groups=False),
            {},
            ValueError,
            "no physical group of its 2 volumes: name",
        ),
        (
            spheres,
            {},
            ValueError,
            r"no physical group of its 1 volumes \(it has groups of dimension \[2\] only",
        ),
        (half_named, {}, ValueError, "entity 2 of dimension 3 is in 0 physical groups"),
        (twice_named, {}, ValueError, "entity 1 of dimension 3 is in 2 physical groups"),
        (tilted, {}, ValueError, "outside of the plane z = 0"),
        (mixed_cells, {}, ValueError, "cells of several types"),
        (unlike_faces, {"periodic": True}, ValueError, "faces of the box across axis 0 differ"),
        (broken, {}, KeyError, "radius"),
        (layers, {"scale": 0}, ValueError, "scale is 0"),
        (layers, {"order": 3}, ValueError, "order is 3"),
        (layers, {"mesh_size": -1}, ValueError, "mesh_size is -1"),
        ("a.stl", {}, ValueError, r"unknown suffix '\.stl', expected \.geo"),
        ("absent.geo", {}, FileNotFoundError, r"absent\.geo: no such file"),
    ],
)
def test_refused(comm, model, options, error, message):
    with pytest.raises(error, match=message):
        gmsh_cell(comm, model, **options)
    assert not gmsh.isInitialized()


def test_file_with_an_error(comm, folder):
    if comm.rank == 0:
        (folder / "bad.geo").write_text("Rectangel(1) = {0};")
    comm.Barrier()
    with pytest.raises(ValueError, match=r"bad\.geo: Gmsh cannot read it"):
        gmsh_cell(comm, folder / "bad.geo")
