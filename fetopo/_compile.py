"""C sources of the package: built once by the C compiler that DOLFINx needs anyway, then kept.

`python3 -m fetopo._compile` builds all of them into the cache, as the Docker image does.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


def cache_directory() -> Path:
    """Where compiled code is kept between runs: `$XDG_CACHE_HOME/fetopo`, else `~/.cache/fetopo`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "fetopo"


def places() -> tuple[Path, ...]:
    """Where compiled code is looked for: the cache, and what came with the installation."""
    return cache_directory(), Path(sys.prefix) / "share" / "fetopo"


@cache
def processor() -> str:
    """What the compiler may make use of here: code built with -march=native runs on such processors only."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    known = sorted({line for line in lines if line.startswith(("flags", "Features"))})
    return " ".join([platform.machine(), *known])


def compiled(
    source: Path,
    declarations: str,
    *,
    name: str,
    flags: Sequence[str] = ("-O3",),
    headers: Sequence[Path] = (),
) -> Any:
    """The compiled module of a C source, with `ffi` and `lib`.

    Built where it is not yet in the cache, whose key is all that it depends on: source, declarations, flags,
    Python and, with -march=native, the processor.

    Args:
        source: C file.
        declarations: what of it Python sees, as cffi reads it.
        name: short name, part of the module's.
        flags: of the compiler, and of the linker.
        headers: files beside the source that it includes.
    Raises:
        RuntimeError: No C compiler, or it refuses the source.
    """
    texts = [path.read_text(encoding="utf-8") for path in (source, *headers)]
    parts = [*texts, declarations, sys.version, *flags]
    if "-march=native" in flags:
        parts.append(processor())
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    module = f"_fetopo_{name}_{key}"
    folder = places()[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="fetopo-"))
    for place in (folder, *places()):
        for found in place.glob(f"{module}*.so"):
            return load(module, found)
    return load(module, build(module, source, declarations, folder, flags))


def build(module: str, source: Path, declarations: str, folder: Path, flags: Sequence[str]) -> Path:
    """Compile beside the place of the result, so that ranks and processes that do so at once do no harm."""
    import cffi

    builder = cffi.FFI()
    builder.cdef(declarations)
    text = source.read_text(encoding="utf-8")
    builder.set_source(
        module,
        text,
        include_dirs=[str(source.parent)],
        extra_compile_args=list(flags),
        extra_link_args=list(flags),
    )
    work = Path(tempfile.mkdtemp(prefix=f".{module}", dir=folder))
    try:
        logger.info("compiling %s", source.name)
        built = Path(builder.compile(tmpdir=str(work)))
        os.replace(built, folder / built.name)
        return folder / built.name
    except cffi.VerificationError as error:
        raise RuntimeError(f"{source.name} cannot be compiled (a C compiler is needed): {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def load(module: str, path: Path) -> Any:
    """Import a compiled module from its file."""
    spec = importlib.util.spec_from_file_location(module, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def main() -> None:
    """Build every source of the package."""
    from fetopo.design.oc import kernel as criteria
    from fetopo.design.subproblem import kernel as optimizer
    from fetopo.microstructure._runs import kernel as runs
    from fetopo.microstructure.reconstruction._kernel import kernel as annealing
    from fetopo.transport.regular import kernel as elements
    from fetopo.transport.voxel import _kernels as voxel

    for build_one in (
        optimizer, criteria, runs, annealing, elements, voxel.multigrid, voxel.energy, voxel.clusters,
        voxel.pieces,
    ):  # fmt: skip
        build_one()


if __name__ == "__main__":
    main()
