"""Gmsh's session: opened and closed by whoever comes first, with the options of this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NAME = "fetopo"


@contextmanager
def gmsh_model() -> Iterator[Any]:
    """A new, empty, current model; a session that a caller has opened stays open, and its model current.

    Raises:
        ImportError: Gmsh's Python module is not installed.
    """
    try:
        import gmsh
    except ImportError as error:
        raise ImportError("body-fitted meshes need Gmsh's Python module: install gmsh") from error

    ours = not gmsh.isInitialized()
    if ours:
        gmsh.initialize(interruptible=False)
    before = gmsh.model.getCurrent() if not ours else None
    terminal = gmsh.option.getNumber("General.Terminal")
    gmsh.option.setNumber("General.Terminal", 0)
    gmsh.model.add(_NAME)
    try:
        yield gmsh.model
    finally:
        gmsh.model.setCurrent(_NAME)
        gmsh.model.remove()
        if ours:
            gmsh.finalize()
        else:
            gmsh.option.setNumber("General.Terminal", terminal)
            if before in gmsh.model.list():
                gmsh.model.setCurrent(before)


def reset(model: Any) -> None:
    """Make the current model of `gmsh_model` empty again."""
    model.remove()
    model.add(_NAME)


def generate(model: Any, dim: int, order: int = 1) -> None:
    """Mesh the current model.

    An exception thrown from inside Gmsh leaves it locked, and every later mesh of the session is empty
    without a word. So errors are let pass, and read from its log after each dimension: volumes within
    surfaces that failed can crash it.

    Raises:
        RuntimeError: Gmsh's first error.
    """
    import gmsh

    abort = gmsh.option.getNumber("General.AbortOnError")
    gmsh.option.setNumber("General.AbortOnError", 0)
    gmsh.logger.start()

    def check() -> None:
        errors = [line[7:] for line in gmsh.logger.get() if line.startswith("Error: ")]
        if errors:
            raise RuntimeError(errors[0].strip())

    try:
        for d in range(1, dim + 1):
            model.mesh.generate(d)
            check()
        if order > 1:
            model.mesh.setOrder(order)
            check()
    finally:
        gmsh.logger.stop()
        gmsh.option.setNumber("General.AbortOnError", abort)
