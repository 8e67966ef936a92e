"""Numbered snapshots in a directory, of which a kill at any moment leaves a complete one.

Every rank writes a file of its own into a directory with another name; rank 0 adds a manifest with sizes and
checksums, and the directory gets its name once all of that is on the disk. Older ones go after that.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fetopo._mpi import get_logger, on_every_rank, require

FORMAT = 1
_KEPT = 2
_MANIFEST = "manifest.json"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message is one sentence."""


@dataclass(frozen=True)
class Snapshot:
    """A complete snapshot.

    Attributes:
        path: its directory.
        manifest: what holds for all ranks.
        files: names of the files, in the order of the ranks that wrote them.
    """

    path: Path
    manifest: dict[str, Any]
    files: list[str]

    def load(self, rank: int) -> dict[str, npt.NDArray[Any]]:
        """The arrays that a rank wrote."""
        with np.load(self.path / self.files[rank], allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}


def write(
    comm: Any,
    directory: Path,
    number: int,
    arrays: Mapping[str, npt.NDArray[Any]] | None,
    manifest: dict[str, Any],
) -> None:
    """Write a snapshot and remove all but the last two. Collective.

    Args:
        comm: communicator of all ranks.
        directory: where the snapshots are; made if need be.
        number: of the snapshot, rising.
        arrays: of this rank; None where it has none to write, after all that do.
        manifest: what holds for all ranks; that of rank 0 counts.
    Raises:
        OSError: on every rank, if a file cannot be written on one.
    """
    final, part = directory / f"{number:08d}", directory / f".{number:08d}.part"
    with on_every_rank(comm):
        if comm.rank == 0:
            directory.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
    entry: dict[str, Any] | None = None
    with on_every_rank(comm):
        if arrays is not None:
            buffer = io.BytesIO()
            np.savez(buffer, **dict[str, Any](arrays))
            name = f"rank_{comm.rank:05d}.npz"
            _write_durably(part / name, buffer.getbuffer())
            entry = {"name": name, "bytes": buffer.getbuffer().nbytes, "sha256": _digest(buffer.getbuffer())}
    entries = comm.gather(entry)
    with on_every_rank(comm):
        if comm.rank == 0:
            listed = manifest | {"format": FORMAT, "files": [e for e in entries if e is not None]}
            _write_durably(part / _MANIFEST, json.dumps(listed, ensure_ascii=False).encode())
            _sync(part)
            shutil.rmtree(final, ignore_errors=True)
            part.rename(final)
            _sync(directory)
            for old in _numbered(directory)[_KEPT:]:
                shutil.rmtree(old, ignore_errors=True)


def read(comm: Any, directory: Path) -> Snapshot | None:
    """The newest snapshot that is not damaged, None where there has never been one. Collective.

    Raises:
        CheckpointError: on every rank, where all are damaged or written by another version.
    """
    found = comm.bcast(_numbered(directory) if comm.rank == 0 else None)
    problem = ""
    for path in found:
        manifest, own = None, None
        if comm.rank == 0:
            manifest, own = _manifest(path)
        manifest = comm.bcast(manifest)
        if manifest is not None:
            files = manifest["files"]
            own = next((p for f in files[comm.rank :: comm.size] if (p := _damage(path, f))), None)
        problems = [p for p in comm.allgather(own) if p is not None]
        if not problems and manifest is not None:
            return Snapshot(path, manifest, [f["name"] for f in manifest["files"]])
        problem = problem or problems[0]
        if path is not found[-1]:
            get_logger(__name__, comm).warning("%s; the one before is taken", problems[0])
    require(comm, not problem, problem, CheckpointError)
    return None


def exists(directory: Path) -> bool:
    """Whether there is a snapshot, whole or not."""
    return bool(_numbered(directory))


def clear(comm: Any, directory: Path) -> None:
    """Remove all snapshots. Collective."""
    with on_every_rank(comm):
        if comm.rank == 0:
            for path in [*_numbered(directory), *directory.glob(".*.part")]:
                shutil.rmtree(path)


def _numbered(directory: Path) -> list[Path]:
    """Snapshots, the newest first."""
    if not directory.is_dir():
        return []
    return sorted((p for p in directory.iterdir() if p.name.isdecimal() and p.is_dir()), reverse=True)


def _manifest(path: Path) -> tuple[dict[str, Any] | None, str | None]:
    """The manifest, or what is wrong with it."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        version = manifest["format"]
        if version != FORMAT:
            return None, f"the checkpoint {path} has format {version}: this version reads {FORMAT}"
        if all({"name", "bytes", "sha256"} <= set(f) for f in manifest["files"]):
            return manifest, None
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None, f"the checkpoint {path} is damaged: its {_MANIFEST} cannot be read"


def _damage(path: Path, file: Mapping[str, Any]) -> str | None:
    """What is wrong with a file, if anything."""
    try:
        content = (path / file["name"]).read_bytes()
    except OSError:
        return f"the checkpoint {path} is damaged: {file['name']} cannot be read"
    if len(content) != file["bytes"] or _digest(content) != file["sha256"]:
        return f"the checkpoint {path} is damaged: {file['name']} is not as it was written"
    return None


def _digest(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_durably(path: Path, content: Any) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    """Names in a directory reach the disk too."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
