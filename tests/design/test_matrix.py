"""Taylor tests of every functional × filter × interpolation, on uniform and graded meshes and on voxels.

All functionals of a density are evaluated at the same few designs, so that a combination costs no solve of
its own. Cases of one functional alone are in test_adjoint and test_voxels; add a functional here by its name.
"""

import numpy as np
import pytest
import ufl
from test_adjoint import FORMS, Heat, graded, tensor_functions

from fetopo.design import functionals
from fetopo.design.density import DensityMap, HeavisideProjection, chain
from fetopo.design.filters import ConvolutionFilter, HelmholtzFilter, VoxelFilter
from fetopo.design.initial import cell_positions, random_field
from fetopo.design.model import CellModel
from fetopo.design.regions import PassiveRegions
from fetopo.design.symmetry import Symmetry
from fetopo.design.verification import taylor_test
from fetopo.microstructure.mesh import regular_cell
from fetopo.transport.materials import NAMES, law
from fetopo.transport.voxel import VoxelGrid

pytestmark = pytest.mark.mpi

R = 0.3
LEFT = lambda x: x[0] < 0.2
CORNER = lambda x: (x[0] > 0.6) & (x[1] > 0.4)

#: Ways from the design variable to the density of a periodic cell: options of the model and sharpness.
PERIODIC = {
    "no filter": ({}, None),
    "Helmholtz": ({"radius": R}, None),
    "Helmholtz, projection": ({"radius": R}, 4.0),
    "passive regions": ({"radius": R, "passive": {"solid": LEFT, "void": CORNER}}, 4.0),
    "symmetry": ({"radius": R, "symmetry": "xy"}, 4.0),
    "cone weights": ({"radius": R, "filter": "convolution"}, 4.0),
}

CELLS = {
    # Not of volume 1, so that no factor hides.
    "quadrilateral": lambda comm: regular_cell(comm, (8, 6)),
    "triangle": lambda comm: regular_cell(comm, (8, 8), (1.0, 1.5), "triangle"),
    "hexahedron": lambda comm: regular_cell(comm, (4, 4, 3)),
    "graded": graded,
    "voxels": lambda comm: VoxelGrid(comm, (8, 6), (0.15, 0.125), periodic=True),
    "voxels in 3D": lambda comm: VoxelGrid(comm, (6, 4, 5), (0.2, 0.25, 0.15), periodic=True),
}

#: What the meshes do not have: `graded` and `triangle` no mirror images, meshes no average with cone weights.
ABSENT = {(name, "cone weights") for name in ("quadrilateral", "triangle", "hexahedron", "graded")}
ABSENT |= {("graded", "symmetry"), ("triangle", "symmetry")}


class Designs:
    """Values of several functionals at a design, each design solved once."""

    def __init__(self, density, functionals_):
        self.density, self.functionals = density, functionals_
        self.known = {}

    def values(self, m):
        key = self.density.comm.allreduce(float(m.sum()))
        if key not in self.known:
            self.solve(m)
            self.known[key] = [J.value() for J in self.functionals.values()]
        return self.known[key]

    def solve(self, m):
        self.density.forward(m)
        for state in {id(s): s for J in self.functionals.values() for s in J.states}.values():
            state.solve()

    def rates(self, m, dm):
        self.solve(m)
        gradients = [self.density.vjp(J.derivative()) for J in self.functionals.values()]
        found = {}
        for i, (name, gradient) in enumerate(zip(self.functionals, gradients, strict=True)):
            J = lambda x, i=i: self.values(x)[i]
            test = taylor_test(J, m, gradient, dm, comm=self.density.comm, step=5e-4, count=3)
            found[name] = test.rate
        return found


def start(domain):
    x = cell_positions(domain)
    direction = 0.25 + 0.75 * np.sin(x @ np.array([37.0, 91.0, 53.0])[: domain.dim])
    return 0.5 + 0.3 * np.tanh(random_field(domain, seed=3)), direction


SLOW = pytest.mark.slow
KINDS = ["quadrilateral", "graded", "voxels", "voxels in 3D"]
KINDS += [pytest.param(kind, marks=SLOW) for kind in ("triangle", "hexahedron")]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_functions_of_the_tensor(comm, kind, name):
    domain = CELLS[kind](comm)
    model = CellModel(domain, 0.0)
    rising, falling = (model.state(kappa, name) for kappa in ((0.01, 1.0), (1.0, 0.02)))
    if isinstance(domain, VoxelGrid):
        rising.problem.rtol = falling.problem.rtol = 1e-11
    wanted = {n: model.tensor_functional(rising, f) for n, f in tensor_functions(domain.dim).items()}
    wanted["falling"] = model.tensor_functional(falling, functionals.mean_resistivity)
    wanted["mean_density"] = model.mean_density()
    for way, (options, beta) in PERIODIC.items():
        if (kind, way) in ABSENT:
            continue
        options = dict(options)
        other = CellModel(domain, options.pop("radius", 0.0), **options)
        other.projection.beta = beta or 1e-3  # all but linear
        model.density.steps = other.density.steps
        # Zero in a symmetric cell.
        these = {n: J for n, J in wanted.items() if (way, n) != ("symmetry", "off_diagonal")}
        found = Designs(model.density, these).rates(*start(domain))
        assert min(found.values()) > 1.9, (way, found)


def filters_of(cell):
    """Ways to the density of a domain with boundaries."""
    mesh = cell.mesh
    neumann, robin = HelmholtzFilter(mesh, R), HelmholtzFilter(mesh, R, boundary="robin")
    passive = PassiveRegions(cell, solid=LEFT, void=CORNER)
    return {
        "no filter": [],
        "Neumann": [neumann],
        "Robin": [robin, HeavisideProjection(4.0)],
        "passive regions": chain(robin, HeavisideProjection(4.0), passive=passive),
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["quadrilateral", "graded", pytest.param("hexahedron", marks=SLOW)])
def test_forms(comm, kind, name):
    cell = CELLS[kind](comm)
    heat = Heat(cell, law(name, cell.dim), density_source=True)
    wanted = {n: heat.functional(f(heat)) for n, f in FORMS.items()}
    wanted["compliance"] = heat.functional(functionals.compliance(heat.u, heat.source))
    wanted["user"] = heat.functional(ufl.exp(heat.u) * heat.rho * ufl.ds)
    designs = Designs(heat.density, wanted)
    for way, heat.density.steps in filters_of(cell).items():
        designs.known.clear()
        found = designs.rates(*start(cell))
        assert min(found.values()) > 1.9, (way, found)


def test_walls_of_a_grid(comm):
    """Filters of a grid that is not periodic, on a function of the density."""
    grid = VoxelGrid(comm, (9, 8), (0.1, 0.15), (True, False))
    for F in (VoxelFilter(grid, R), VoxelFilter(grid, R, boundary="robin"), ConvolutionFilter(grid, R)):
        density = DensityMap(grid, Symmetry(grid, "y"), F, HeavisideProjection(4.0))
        m, dm = start(grid)
        weights = 1 + np.cos(7 * dm)
        J = lambda x, w=weights, density=density: grid.sum(float(w @ density.forward(x) ** 2))
        J(m)
        gradient = density.vjp(2 * weights * density.values)
        assert taylor_test(J, m, gradient, dm, comm=density.comm, step=1e-2).rate > 1.9


def test_of_the_matrix(comm):
    """A step without its transpose is seen on a graded mesh."""
    cell = graded(comm)
    model = CellModel(cell, R)
    state = model.state((0.01, 1.0))
    designs = Designs(model.density, {"J": model.tensor_functional(state, functionals.mean_resistivity)})
    model.filter.vjp = model.filter.forward
    assert designs.rates(*start(cell))["J"] < 1.5
