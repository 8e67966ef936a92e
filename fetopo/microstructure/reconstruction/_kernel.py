"""The compiled part of the annealing: built once by the C compiler that DOLFINx needs anyway, then kept."""

import hashlib
import importlib.util
import logging
import os
import re
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("_kernel.c")
_DECLARATIONS = """
double line_energy(const annealing *s);
double pair_energy(const annealing *s);
int64_t anneal(annealing *s, int64_t proposals, double temperature, double enough, double *energy,
               double *lowest, double *risen);
"""


def cache_directory() -> Path:
    """Where compiled code is kept between runs: `$XDG_CACHE_HOME/fetopo`, else `~/.cache/fetopo`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "fetopo"


@cache
def kernel() -> Any:
    """The compiled module, with `ffi` and `lib`.

    Raises:
        RuntimeError: No C compiler, or it refuses the source.
    """
    source = SOURCE.read_text(encoding="utf-8")
    key = hashlib.sha256(f"{source}{_DECLARATIONS}{sys.version}".encode()).hexdigest()[:16]
    name = f"_fetopo_annealing_{key}"
    folder = cache_directory()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="fetopo-"))
    found = sorted(folder.glob(f"{name}*.so"))
    return _load(name, found[0] if found else _build(name, source, folder))


def _build(name: str, source: str, folder: Path) -> Path:
    """Compile beside the place of the result, so that ranks and processes that do so at once do no harm."""
    import cffi

    # The structure is declared as it is defined.
    structure = re.search(r"typedef struct \{.*?\} annealing;", source, re.DOTALL)
    assert structure is not None
    builder = cffi.FFI()
    builder.cdef(structure[0] + _DECLARATIONS)
    builder.set_source(name, source, extra_compile_args=["-O3"])
    work = Path(tempfile.mkdtemp(prefix=f".{name}", dir=folder))
    try:
        logger.info("compiling %s", SOURCE.name)
        built = Path(builder.compile(tmpdir=str(work)))
        os.replace(built, folder / built.name)
        return folder / built.name
    except cffi.VerificationError as error:
        raise RuntimeError(f"{SOURCE.name} cannot be compiled (a C compiler is needed): {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _load(name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
