"""Snapshots of a session's states in one safetensors file.

    save_states("lobby.state", {"backbone": state.snapshot(), ...}, {"model": "tiny", "unit": "4711"})

A tensor's key is "component/state". A SHA-256 over tensors and metadata travels in the header, because a cache
with one flipped bit would load and be wrong quietly.
"""

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from wanedge_runtimes.errors import InputError, StateError
from wanedge_runtimes.runtime import Array

_FORMAT, _DIGEST = "wanedge.state", "wanedge.sha256"
_VERSION = "1"


class SavedStates(NamedTuple):
    """states: component -> state name -> tensor. metadata: what `save_states` was given."""

    states: dict[str, dict[str, Array]]
    metadata: dict[str, str]


def save_states(path: Path, states: Mapping[str, Mapping[str, Array]], metadata: Mapping[str, str]) -> None:
    """Write `states` (component -> snapshot) so that `path` holds either the old file or all of the new one.

    Any number of processes and threads may write one path; the last one's file stays. Only the owner can read it.
    Raises StateError when it cannot be written, InputError for a component's name with a slash.
    """
    tensors: dict[str, Array] = {}
    for component, snapshot in states.items():
        if "/" in component:
            raise InputError(f"component {component!r} contains '/'", hint="name components without '/'")
        tensors |= {f"{component}/{name}": np.asarray(values, order="C") for name, values in snapshot.items()}
    header = {**metadata, _FORMAT: _VERSION, _DIGEST: _digest(tensors, metadata)}
    _write_atomically(path, save(tensors, header))


def load_states(path: Path) -> SavedStates:
    """The opposite of `save_states`. Raises StateError: no such file, not a state file, or damaged."""
    if not path.is_file():
        raise StateError(f"there is no saved state {path}", hint="check the path, or start a new session")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata: dict[str, str] = dict(file.metadata() or {})
            tensors: dict[str, Array] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except OSError as e:
        raise StateError(f"the saved state {path} cannot be read: {e.strerror or e}", hint=_OLDER) from e
    except Exception as e:  # safetensors raises what it likes for a header or an element type it cannot read
        raise StateError(f"the saved state {path} is damaged or of an unknown kind: {e}", hint=_OLDER) from e
    version, digest = metadata.pop(_FORMAT, None), metadata.pop(_DIGEST, None)
    if version != _VERSION:
        raise StateError(
            f"{path} is not a saved state of version {_VERSION} (found {version})",
            hint="load it with the wanedge that saved it, or start a new session",
        )
    if digest != _digest(tensors, metadata):
        raise StateError(f"the saved state {path} is damaged: its SHA-256 does not match", hint=_OLDER)
    states: dict[str, dict[str, Array]] = {}
    for key, values in tensors.items():
        component, _, name = key.partition("/")
        states.setdefault(component, {})[name] = values
    return SavedStates(states, metadata)


def _digest(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> str:
    sha = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for key in sorted(tensors):
        values = tensors[key]
        sha.update(f"{key} {values.dtype} {values.shape}\n".encode())
        sha.update(values.tobytes())
    return sha.hexdigest()


def _write_atomically(path: Path, content: bytes) -> None:
    """Write `path` whole or not at all, readable by its owner only: a saved state holds a conversation."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _flush_rename(path.parent)
    except OSError as error:
        hint = (
            "free some space: df -h" if error.errno == errno.ENOSPC else "check the folder and its permissions: ls -ld"
        )
        raise StateError(
            f"the state cannot be saved to {path}: {error.strerror or error}", hint=f"{hint} {path.parent}"
        ) from error
    finally:
        with suppress(OSError):  # the folder may be gone
            temporary.unlink(missing_ok=True)


def _flush_rename(folder: Path) -> None:
    """The new name itself survives a power cut only once the folder is flushed; Windows cannot open one."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_OLDER = "restore an older snapshot, or start a new session"
