"""Better cells near an interface, an interface on its level set, a phase volume met: by moving nodes.

Every move is guarded: where a cell would become worse than it is and worse than `GOOD`, its nodes take half
the step, a quarter, none. So the worst cell never becomes worse, and no cell is inverted.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from fetopo.microstructure.mesh._cut import Parts
from fetopo.microstructure.mesh._interface import area_vectors, sum_at
from fetopo.microstructure.mesh._lattice import Array, Ints, shape, volumes

#: Shape (1 for equilateral simplices, 0 for flat ones) from which a cell may become worse.
GOOD = 0.5

#: E = 1/shape above which the nodes of a cell may leave the level set to make it better.
BAD = 3.0


def _shape_gradient(x: Array, cells: Ints) -> tuple[Array, Array, Array]:
    """E = Σ l²/(c V^(2/d)), 1 for equilateral simplices, its gradient (m, d + 1, d), its curvature."""
    m, k = cells.shape
    d = k - 1
    points = [x[cells[:, i]] for i in range(k)]
    mean = sum(points) / k
    lengths = k * sum(((p - mean) ** 2).sum(axis=1) for p in points)
    volume = volumes(x, cells)
    c = 4 * np.sqrt(3.0) if d == 2 else 12 * 3 ** (2 / 3)
    root = c * np.maximum(volume, 1e-300) ** (2 / d)
    energy = np.where(volume > 0, lengths / root, np.inf)
    gradient = np.empty((m, k, d))
    for i in range(k):
        others = [points[j] for j in range(k) if j != i]
        if d == 2:
            e = others[1] - others[0]
            g = np.stack([-e[:, 1], e[:, 0]], axis=1) / 2
        else:
            g = np.cross(others[1] - others[0], others[2] - others[0]) / 6
        # The gradient of the volume points to the node from the facet across.
        g *= np.sign(np.einsum("ij,ij->i", g, points[i] - others[0]))[:, None]
        gradient[:, i] = (2 * k * (points[i] - mean) - (2 / d) * (lengths / volume)[:, None] * g) / root[
            :, None
        ]
    return energy, gradient, 2 * d / root


class Smoother:
    """Moves the nodes near the interface of a complex.

    Args:
        parts: the divided mesh; the positions of its nodes change.
        worst: whether only cells with E > `BAD` and their neighbours take part, else two layers of cells
            on either side of the interface.
    """

    def __init__(self, parts: Parts, worst: bool = False) -> None:
        mesh = parts.mesh
        self.mesh, self.surface, self.on = mesh, parts.facets, parts.on
        same = mesh.same[mesh.cells]
        active: npt.NDArray[np.bool_] = parts.on.copy()
        active[same[active[same].any(axis=1)]] = True
        near = active[same].any(axis=1)
        if worst:
            rows = np.flatnonzero(near)
            active[:] = False
            active[same[rows[shape(mesh.nodes(), mesh.cells[rows]) < 1 / BAD]]] = True
            near = active[same].any(axis=1)
        self.cells, self.same = mesh.cells[near], same[near]
        self.moving = active[:, None] & ~mesh.fixed
        self.inside = parts.inside[near]
        x = mesh.nodes()
        self.base = float(
            volumes(x, mesh.cells[parts.inside]).sum() - volumes(x, self.cells[self.inside]).sum()
        )

    def normals(self) -> Array:
        """Unit normals at the nodes, out of the phase, within the faces of the box; 0 off the interface."""
        x = self.mesh.nodes()
        vectors = np.repeat(area_vectors(x, self.surface), self.surface.shape[1], axis=0)
        total = sum_at(len(self.mesh.at), self.mesh.same[self.surface].reshape(-1), vectors)
        total[~self.moving] = 0.0
        size = np.linalg.norm(total, axis=1, keepdims=True)
        return total / np.where(size > 0, size, 1.0)

    def volume(self, at: Array | None = None) -> float:
        """Volume of the inner phase."""
        return self.base + float(volumes(self.mesh.nodes(at), self.cells[self.inside]).sum())

    def move(self, step: Array, halvings: int = 2) -> float:
        """Add a step to the nodes, less of it where a cell would suffer; returns the part that moved."""
        mesh = self.mesh
        wanted = np.where(self.moving, step, 0.0)
        size = np.abs(wanted).max(axis=1)
        asked = max(int((size > 0).sum()), 1)
        tries = np.zeros(len(size), dtype=np.int8)
        candidates = np.flatnonzero((size > 0)[self.same].any(axis=1))
        before = np.full(len(self.cells), GOOD)
        before[candidates] = np.minimum(shape(mesh.nodes(), self.cells[candidates]), GOOD)
        while candidates.size:
            new = mesh.nodes(mesh.at + wanted)
            worse = candidates[shape(new, self.cells[candidates]) < before[candidates]]
            stop = np.unique(self.same[worse])
            stop = stop[size[stop] > 0]
            if not stop.size:
                break
            tries[stop] += 1
            factor = np.where(tries[stop] > halvings, 0.0, 0.5)
            wanted[stop] *= factor[:, None]
            size[stop] *= factor
            touched = np.zeros(len(size), dtype=bool)
            touched[stop] = True
            candidates = np.flatnonzero(touched[self.same].any(axis=1))
        mesh.at += wanted
        return float((size > 0).sum()) / asked

    def relax(
        self,
        level: Callable[[Array], Array],
        size: float,
        probe: float,
        *,
        power: float = 3.0,
        pace: float = 0.5,
        free_worst: bool = False,
    ) -> float:
        """One step that lowers Σ E^p, along the interface only for its nodes, and these back to level 0.

        Args:
            level: the level-set function minus the level, of points.
            size: edge of the lattice; no node moves more than a fifth of it.
            probe: distance over which the level-set function is differentiated.
            power: p; E = 1 for equilateral cells.
            pace: part of the step of the simplest quadratic model.
            free_worst: whether nodes of cells with E > `BAD` may leave the interface.
        """
        mesh, count = self.mesh, len(self.mesh.at)
        x = mesh.nodes()
        energy, gradient, curvature = _shape_gradient(x, self.cells)
        weight = energy ** (power - 1)
        rows = self.same.reshape(-1)
        g = sum_at(count, rows, (weight[:, None, None] * gradient).reshape(len(rows), mesh.dim))
        h = np.bincount(rows, weights=np.repeat(weight * curvature, self.same.shape[1]), minlength=count)
        step = -pace * g / np.where(h > 0, h, 1.0)[:, None]
        n = self.normals()
        step[~self.moving] = 0.0
        if free_worst:
            n[np.unique(self.same[energy > BAD])] = 0.0
        step -= (step * n).sum(axis=1, keepdims=True) * n
        length = np.linalg.norm(step, axis=1, keepdims=True)
        step *= np.minimum(1.0, 0.2 * size / np.where(length > 0, length, 1.0))
        nodes = np.flatnonzero(self.on & (np.abs(n).max(axis=1) > 0))
        at = mesh.at[nodes] + step[nodes]
        slope = (level(at + probe * n[nodes]) - level(at - probe * n[nodes])) / (2 * probe)
        value = level(at)
        with np.errstate(divide="ignore", invalid="ignore"):
            back = np.where(slope < 0, -value / slope, 0.0)
        step[nodes] += np.clip(back, -0.1 * size, 0.1 * size)[:, None] * n[nodes]
        return self.move(step)

    def meet_volume(self, wanted: float, tolerance: float, size: float, rounds: int = 12) -> float:
        """Shift the interface along its normals until the inner phase has a volume; returns what it has."""
        n = self.normals()
        x = self.mesh.nodes()
        area = float(np.linalg.norm(area_vectors(x, self.surface), axis=1).sum())
        gain = 1.0
        for _ in range(rounds):
            have = self.volume()
            if abs(have - wanted) <= tolerance * wanted:
                break
            shift = np.clip(gain * (wanted - have) / area, -0.05 * size, 0.05 * size)
            self.move(shift * n)
            got = self.volume() - have
            # Nodes that may not move leave their share to the others.
            if got * shift > 0:
                gain = float(np.clip(gain * shift * area / (gain * got) if got else 1.0, 0.5, 4.0))
            n = self.normals()
        return self.volume()
