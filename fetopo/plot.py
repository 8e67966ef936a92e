"""Pictures, with no display: Matplotlib for planes and curves, PyVista for volumes.

Both are optional: pip's extra `plot`. Rank 0 draws; everything here works on arrays that rank holds.
"""

from __future__ import annotations

import atexit
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from fetopo._compat import geometry_dofmap
from fetopo.design.problem import Record
from fetopo.figure import length_unit, new_figure
from fetopo.microstructure.mesh import UnitCell

Array = npt.NDArray[np.float64]

_LIGHT, _DARK = "#f2efe6", "#1f4e79"


def render_volume(
    volume: npt.NDArray[Any],
    lengths: Sequence[float],
    *,
    size: tuple[int, int] = (900, 850),
    color: str = "#c98b3c",
    label: str | None = None,
) -> npt.NDArray[np.uint8]:
    """Picture of the part of a 3D array that is above ½, as an RGB array.

    Args:
        volume: values between 0 and 1, axis 0 is x; cut open at the faces of the box.
        lengths: edges of the box.
        size: pixels.
        color: of the surface.
        label: text in the upper left corner.
    """
    pyvista = _pyvista()
    volume = np.asarray(volume, dtype=float)
    if volume.ndim != 3:
        raise ValueError(f"a 3D array is needed, found {volume.ndim}D")
    spacing = np.asarray(lengths, dtype=float) / volume.shape / max(lengths)
    # A layer of zeros around the box closes the surface where it meets the faces.
    grid = pyvista.ImageData(
        dimensions=np.array(volume.shape) + 2, spacing=tuple(spacing), origin=tuple(-0.5 * spacing)
    )
    # Smoothed by less than a voxel, so that a surface and not its staircase is seen.
    smooth = ndimage.gaussian_filter(volume, 0.7, mode="nearest")
    grid["phase"] = np.pad(smooth, 1).ravel(order="F")
    surface = grid.contour([0.5], scalars="phase")
    plotter = pyvista.Plotter(off_screen=True, window_size=list(size))
    plotter.set_background("white")
    if surface.n_points:
        plotter.add_mesh(
            surface,
            color=color,
            smooth_shading=True,
            split_sharp_edges=True,
            feature_angle=40,
            specular=0.15,
            ambient=0.15,
        )
    box = pyvista.Box(bounds=[v for n, h in zip(volume.shape, spacing, strict=True) for v in (0, n * h)])
    plotter.add_mesh(box.extract_all_edges(), color="#555555", line_width=1.5)
    if label:
        plotter.add_text(label, font_size=11, color="black", position="upper_left")
    plotter.view_vector((1.6, 1.0, 0.75), viewup=(0, 0, 1))
    plotter.camera.zoom(1.05)
    picture = plotter.screenshot(None, return_img=True)
    plotter.close()
    return np.asarray(picture)


def render_cells(
    cell: UnitCell,
    colors: Mapping[str, str],
    hide: Mapping[str, Callable[[Array], npt.NDArray[np.bool_]]] | None = None,
    *,
    size: tuple[int, int] = (900, 850),
) -> npt.NDArray[np.uint8]:
    """Picture of the tetrahedra of a mesh with their edges, as an RGB array.

    Args:
        cell: three-dimensional cell that is whole on this rank.
        colors: of the phases to show, by name.
        hide: for phases to cut open, a marker: which cells to leave out, from their midpoints (3, n).
        size: pixels.
    """
    pyvista = _pyvista()
    mesh = cell.mesh
    nodes = geometry_dofmap(mesh)
    if mesh.topology.cell_name() != "tetrahedron":
        raise ValueError(f"a mesh of tetrahedra is needed, found {mesh.topology.cell_name()}s")
    x = mesh.geometry.x / cell.lengths.max()
    middle = mesh.geometry.x[nodes].mean(axis=1).T
    plotter = pyvista.Plotter(off_screen=True, window_size=list(size))
    plotter.set_background("white")
    for name, color in colors.items():
        shown = cell.cell_tags.values == cell.tag(name)
        if hide and name in hide:
            shown &= ~hide[name](middle)
        part = pyvista.UnstructuredGrid({pyvista.CellType.TETRA: nodes[shown]}, x).extract_surface()
        plotter.add_mesh(
            part, color=color, show_edges=True, edge_color="#404040", line_width=0.6, ambient=0.35
        )
    plotter.view_vector((1.6, 1.0, 0.75), viewup=(0, 0, 1))
    plotter.camera.zoom(0.95)
    picture = plotter.screenshot(None, return_img=True)
    plotter.close()
    return np.asarray(picture)


def draw_plane(axes: Any, values: npt.NDArray[Any], lengths: Sequence[float], **options: Any) -> Any:
    """Draw a 2D array with x to the right and y up, and axes in the unit of `lengths`."""
    unit, scale = length_unit(max(lengths))
    extent = (0, lengths[0] / scale, 0, lengths[1] / scale)
    image = axes.imshow(
        np.asarray(values).T, origin="lower", extent=extent, interpolation="nearest", **options
    )
    axes.set_xlabel(f"x{unit}")
    axes.set_ylabel(f"y{unit}")
    return image


def save_density(
    path: str | Path, density: Array, labels: npt.NDArray[Any], lengths: Sequence[float], title: str = ""
) -> None:
    """Picture of a design: the density and the crisp structure, in 2D repeated 3×3, in 3D as surfaces."""
    from matplotlib.colors import ListedColormap

    figure = new_figure(10.0, 4.9)
    left, right = figure.subplots(1, 2)
    if density.ndim == 2:
        shown = draw_plane(left, density, lengths, cmap="Blues", vmin=0, vmax=1)
        figure.colorbar(shown, ax=left, label="density ρ", shrink=0.85)
        left.set_title("density")
        draw_plane(
            right, np.tile(labels, (3, 3)), [3 * a for a in lengths], cmap=ListedColormap([_LIGHT, _DARK])
        )
        right.set_title("crisp structure, 3×3 cells")
    else:
        middle = density[:, :, density.shape[2] // 2]
        shown = draw_plane(left, middle, lengths[:2], cmap="Blues", vmin=0, vmax=1)
        figure.colorbar(shown, ax=left, label="density ρ", shrink=0.85)
        left.set_title("density, plane at half height")
        right.imshow(render_volume(labels, lengths, color=_DARK))
        right.set_axis_off()
        right.set_title("crisp structure")
    _finish(figure, path, title)


def save_flux(path: str | Path, flux: Array, lengths: Sequence[float], title: str = "") -> None:
    """Picture of a flux: magnitude relative to its mean, with streamlines; in 3D on the plane at half height.

    Args:
        path: file to write.
        flux: array of shape (*grid, d).
        lengths: edges of the cell.
        title: above the picture.
    """
    dim = flux.shape[-1]
    size = np.linalg.norm(flux, axis=-1)
    plane = flux if dim == 2 else flux[:, :, flux.shape[2] // 2]
    shown = size if dim == 2 else size[:, :, size.shape[2] // 2]
    figure = new_figure(6.2, 5.2)
    axes = figure.subplots()
    image = draw_plane(axes, shown / size.mean(), lengths[:2], cmap="magma")
    figure.colorbar(image, ax=axes, label="flux, relative to its mean")
    _, scale = length_unit(max(lengths[:2]))
    x, y = ((np.arange(n) + 0.5) / n * a / scale for n, a in zip(shown.shape, lengths[:2], strict=True))
    # Thin where little flows, and no lines where next to nothing does: they would fill a poor conductor.
    width = 0.2 + 1.2 * shown.T / shown.max()
    still = shown.T < 0.05 * size.mean()
    u, v = (np.ma.array(plane[..., i].T, mask=still) for i in range(2))
    axes.streamplot(x, y, u, v, color="white", density=0.9, linewidth=width, arrowsize=0.7)
    _finish(figure, path, title)


def save_comparison(
    path: str | Path,
    volumes: Sequence[tuple[str, npt.NDArray[Any], Sequence[float]]],
    bars: Sequence[tuple[str, float]],
    bound: float,
    *,
    quantity: str,
    title: str = "",
) -> None:
    """Structures side by side, and beside them what they reach against a bound.

    Args:
        path: file to write.
        volumes: for each structure its name, a 3D array (the part above ½ is shown) and its edges.
        bars: names and values.
        bound: drawn as a line.
        quantity: label of the values.
        title: above the picture.
    """
    figure = new_figure(4.4 * len(volumes) + 4.0, 4.8)
    *left, right = figure.subplots(1, len(volumes) + 1, width_ratios=[4.4] * len(volumes) + [3.8])
    for axes, (name, volume, lengths) in zip(left, volumes, strict=True):
        axes.imshow(render_volume(volume, lengths))
        axes.set_axis_off()
        unit, scale = length_unit(max(lengths))
        edges = " × ".join(f"{a / scale:.3g}" for a in lengths)
        axes.set_title(f"{name}, {edges}{unit.replace('(', '').replace(')', '')}", fontsize=10)
    colors = ["#8aa4bf"] * (len(bars) - 1) + ["#c98b3c"]
    drawn = right.bar([name for name, _ in bars], [value for _, value in bars], color=colors)
    values = [value for _, value in bars]
    for shown, where, color in ((True, "center", "white"), (False, "edge", "black")):
        # A bar that is hardly there has no room for its label.
        labels = [f"{v:.3f}" if (v > 0.06 * bound) is shown else "" for v in values]
        right.bar_label(drawn, labels=labels, fontsize=9, label_type=where, color=color)
    right.axhline(bound, color="#b03030", linestyle="--", linewidth=1.2)
    right.text(-0.45, bound * 1.015, f"Hashin–Shtrikman bound {bound:.3f}", color="#b03030", fontsize=9)
    right.set_ylabel(quantity)
    right.set_ylim(0, bound * 1.15)
    _finish(figure, path, title)


def save_convergence(
    path: str | Path,
    history: Sequence[Record],
    *,
    name: str = "objective",
    transform: Any = None,
    bound: float | None = None,
) -> None:
    """Objective, constraint violation and grey level against the iteration."""
    transform = transform or (lambda value: value)
    steps = [r.iteration for r in history]
    figure = new_figure(7.2, 6.0)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    top.plot(steps, [transform(r.objective) for r in history], color=_DARK, label=name)
    if bound is not None:
        top.axhline(bound, color="#b03030", linestyle="--", linewidth=1, label="bound")
    top.set_ylabel(name)
    top.legend(loc="lower right")
    bottom.semilogy(steps, [max(r.grey, 1e-6) for r in history], color="#777777", label="grey level")
    for key in history[0].constraints:
        violation = [max(r.constraints[key], 1e-6) for r in history]
        bottom.semilogy(steps, violation, label=f"violation: {key.replace('_', ' ')}")
    bottom.set_xlabel("iteration")
    bottom.legend(loc="upper right")
    changes = [r.iteration for before, r in pairwise(history) if r.stage != before.stage]
    edges = [steps[0], *changes, steps[-1] + 1]
    for i, (a, b) in enumerate(pairwise(edges)):
        for axes in (top, bottom):
            axes.axvspan(a, b, color="black", alpha=0.06 if i % 2 else 0.0, linewidth=0)
    top.set_title("shaded: stages of the continuation", fontsize=9, color="#555555")
    _finish(figure, path, "")


def _finish(figure: Any, path: str | Path, title: str) -> None:
    if title:
        figure.suptitle(title)
    figure.savefig(path, dpi=130)


def _pyvista() -> Any:
    try:
        import pyvista
    except ImportError as error:
        raise ImportError("pictures of volumes need PyVista: install fetopo[plot]") from error
    _start_display()
    return pyvista


_display: subprocess.Popen[bytes] | None = None


def _start_display() -> None:
    """VTK before 9.5 needs an X server even off-screen: start a virtual one where there is none."""
    global _display
    if (
        _display is not None
        or os.name != "posix"
        or os.environ.get("DISPLAY")
        or os.uname().sysname != "Linux"
    ):
        return
    reading, writing = os.pipe()
    try:
        # The server picks a free display itself, so that several runs do not meet.
        _display = subprocess.Popen(
            ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1280x1024x24", "-nolisten", "tcp"],
            pass_fds=(writing,),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        os.close(reading)
        return
    finally:
        os.close(writing)
    with os.fdopen(reading) as answer:
        number = answer.readline().strip()
    if number:
        os.environ["DISPLAY"] = f":{number}"
    atexit.register(_stop_display)


def _stop_display() -> None:
    if _display is not None:
        _display.terminate()
        _display.wait()
