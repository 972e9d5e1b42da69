"""The folder of an embedded collection: whose it is, what it holds, how it is made and opened.

<collection>/lock             held while open (flock), with the holder's process id
<collection>/collection.json  embedding model and dimensions
<collection>/shard/           the engine's files
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import qdrant_edge as qd

from memory.vectors import DENSE, SPARSE, VectorStoreError, VectorStoreHeld, VectorStoreMismatch


def lock_folder(path: Path) -> int:
    """Take the folder for this process and return the file whose closing gives it back.

    Raises:
        VectorStoreHeld: when another process has it.
    """
    file = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(file, 20).decode() or "unknown"
        os.close(file)
        raise _held(path, f"process {holder}") from None
    os.ftruncate(file, 0)
    os.write(file, str(os.getpid()).encode())
    return file


def _held(path: Path, holder: str) -> VectorStoreHeld:
    return VectorStoreHeld(
        f"vector store {path} is open in {holder}: ask that server, stop it, or set QDRANT_URL to share a Qdrant server"
    )


def create_shard(shard: Path, dimensions: int) -> None:
    """Make an empty shard beside its place (``shard.new``); what a killed attempt left there is thrown away."""
    new = shard.with_name(shard.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    config = qd.EdgeConfig(
        vectors={DENSE: qd.EdgeVectorParams(size=dimensions, distance=qd.Distance.Cosine)},
        sparse_vectors={SPARSE: qd.EdgeSparseVectorParams(modifier=qd.Modifier.Idf)},
    )
    new.mkdir()
    empty = qd.EdgeShard.create(str(new), config)
    empty.flush()
    empty.close()


def load_shard(shard: Path) -> qd.EdgeShard:
    """Open the engine's files.

    Raises:
        VectorStoreHeld: when another process has them open.
        VectorStoreError: when they cannot be read.
    """
    try:
        return qd.EdgeShard.load(str(shard))
    except Exception as error:  # the engine raises nothing more precise
        if "WouldBlock" in str(error):
            raise _held(shard.parent, "another process") from error
        raise VectorStoreError(
            f"vector store {shard.parent} cannot be read ({error}): move the folder away and crawl again"
        ) from error


def check_same(path: Path, there: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    """Raise ``VectorStoreMismatch`` unless the collection was made for this model and dimension."""
    if dict(there) != dict(wanted):
        raise VectorStoreMismatch(
            f"vector store {path} holds {there.get('dimensions')} dimensions of {there.get('model')}, not "
            f"{wanted['dimensions']} of {wanted['model']}: set EMBEDDING_MODEL back, or move the folder away and crawl "
            "again"
        )
