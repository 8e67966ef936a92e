"""fetopo design --starts: the same case from several starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fetopo.cli._common import InputError, at_root, emit, one_line_each, see_writable


def design_starts(
    comm: Any,
    path: Path,
    output: Path,
    count: int,
    *,
    groups: int | None,
    overwrite: bool,
    resume: bool,
    checkpoint_every: int,
    pictures: bool,
    as_json: bool,
) -> None:
    """Design a case from several starts, and report which structures are different. Collective."""
    from fetopo.case import CaseError
    from fetopo.case_starts import case_starts, run_starts
    from fetopo.report_starts import starts_report, starts_values

    case, first, images = at_root(comm, lambda: _prepare(path, output, overwrite, resume))
    one_line_each()
    try:
        result = run_starts(
            case,
            comm,
            case_starts(case, count, first=first, images=images),
            output,
            groups=groups,
            resume=resume,
            checkpoint_every=checkpoint_every,
            pictures=pictures,
        )
    except CaseError as error:
        raise InputError(str(error)) from None
    emit(comm, as_json, starts_values(result), lambda: starts_report(result, output))


def _prepare(path: Path, output: Path, overwrite: bool, resume: bool) -> tuple[Any, Any, Any]:
    """Read the case and what it names, and see that the output can be written, before any work."""
    from fetopo.case import CaseError, images_to_start_from, read_case, start_from_image

    case = read_case(path)
    see_writable(output)
    held = [*output.glob("start-*/start.json"), *output.glob("start*.json"), *output.glob("result.json")]
    if held and not (overwrite or resume):
        raise CaseError(
            f"--output: {output} already holds a run; name another directory, go on with --resume or add "
            "--overwrite"
        )
    return case, start_from_image(case, path), images_to_start_from(case, path)
