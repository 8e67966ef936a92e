"""Gmsh's session: opened and closed by whoever comes first, with the options of this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NAME = "fetopo"
_ours = True  # whether the session is opened and closed here


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

    global _ours
    ours = _ours = not gmsh.isInitialized()
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


def restart(model: Any) -> None:
    """Make the current model of `gmsh_model` empty again after Gmsh failed on it.

    An exception thrown from inside Gmsh leaves it locked: every later mesh of the session is empty without a
    word. (With errors let pass instead it goes on, and can crash.) Only a new session is unlocked.

    Raises:
        RuntimeError: the session is the caller's.
    """
    import gmsh

    if not _ours:
        raise RuntimeError("other ways are tried only in a session of its own: call gmsh.finalize() first")
    gmsh.finalize()
    gmsh.initialize(interruptible=False)
    gmsh.option.setNumber("General.Terminal", 0)
    model.add(_NAME)
