"""The compiled part of the annealing."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from fetopo._compile import compiled

SOURCE = Path(__file__).with_name("_kernel.c")
_FUNCTIONS = """
double line_energy(const annealing *s);
double pair_energy(const annealing *s);
int64_t anneal(annealing *s, int64_t proposals, double temperature, double enough, double *energy,
               double *lowest, double *risen);
"""


def declarations() -> str:
    """What Python sees; the structure is declared as it is defined."""
    structure = re.search(r"typedef struct \{.*?\} annealing;", SOURCE.read_text(encoding="utf-8"), re.DOTALL)
    assert structure is not None
    return structure[0] + _FUNCTIONS


@cache
def kernel() -> Any:
    """The compiled module, with `ffi` and `lib`.

    Raises:
        RuntimeError: No C compiler, or it refuses the source.
    """
    return compiled(SOURCE, declarations(), name="annealing")
