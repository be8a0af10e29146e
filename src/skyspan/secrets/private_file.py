"""Owns the writing and reading of files that only their owner may read."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from skyspan.model.error import SealError

_READABLE_BY_OTHERS = 0o077


def create_once(path: Path, content: bytes) -> None:
    """Write `content` to `path` (0600, durable) unless the file exists; whoever comes second changes nothing.

    Missing folders are made (0700). Raises SealError when it cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = _draft(path, content)
        try:
            # A link appears at once and with its whole content, so that a racing process never reads half a file.
            os.link(draft, path)
        except FileExistsError:
            return
        finally:
            draft.unlink()
        _sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error


def replace(path: Path, content: bytes) -> None:
    """Put `content` in the place of what `path` holds, durably and at once (0600). Raises SealError."""
    try:
        draft = _draft(path, content)
        try:
            draft.replace(path)
        except OSError:
            draft.unlink()
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error


@contextmanager
def drafting(path: Path) -> Iterator[IO[bytes]]:
    """A file to be written in the block and put in the place of `path` at its end, durably and at once (0600).

    A block that raises leaves `path` as it was. Raises SealError when it cannot be written."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error


def read(path: Path) -> bytes | None:
    """The content of `path`, None when it does not exist.

    Raises SealError when it cannot be read, or when others than its owner may read it, as ssh does with its keys.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & _READABLE_BY_OTHERS:
                raise SealError(
                    f"{path} may be read by others (mode {mode:04o}), so what it protects may be known to them",
                    hint=f"run `chmod 600 {path}`; if others have had access to this machine, replace the secrets",
                )
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SealError(f"cannot read {path}: {error.strerror}", hint="run as the user who owns it") from error


def signature(path: Path) -> tuple[int, int, int] | None:
    """What changes whenever `path` is replaced; None when it does not exist. Raises SealError."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SealError(f"cannot read {path}: {error.strerror}", hint="run as the user who owns it") from error
    return status.st_ino, status.st_mtime_ns, status.st_size


def rename(old: Path, new: Path) -> None:
    """Put `old` in the place of `new`, durably and at once. Raises SealError."""
    try:
        old.replace(new)
        _sync_folder(new.parent)
    except OSError as error:
        raise _unwritable(new, error) from error


def remove(path: Path) -> None:
    """Remove `path`, durably; absent is success. Raises SealError."""
    try:
        path.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error


def _draft(path: Path, content: bytes) -> Path:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        draft.unlink()
        raise
    return draft


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> SealError:
    return SealError(
        f"cannot write {path}: {error.strerror}",
        hint="free space on that disk, or choose a writable home with `--home`",
    )
