"""A lock that keeps a second job out of a folder, and that ends with the process that holds it."""

import errno
import fcntl
import json
import logging
import os
import socket
import time
import weakref
from pathlib import Path

from vggrpo.config.errors import RunError

LOCK_NAME = ".lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system answers that has no locks."""

logger = logging.getLogger(__name__)


class FolderLock:
    """This process' exclusive use of a folder, as long as the object lives; made by `lock_folder`.

    However the process ends, the system drops the lock; the file stays and says who came last.
    """

    def __init__(self, descriptor: int) -> None:
        self._close = weakref.finalize(self, os.close, descriptor)


_held: "weakref.WeakValueDictionary[tuple[int, int], FolderLock]" = weakref.WeakValueDictionary()
"""Of this process, by device and inode of the file."""


def lock_folder(folder: Path | str) -> FolderLock:
    """Keeps other processes, also on other machines that share the file system, out of an existing folder.

    Asked twice, a process gets the same lock. Where the file system has no locks, a warning says so.

    Raises:
        RunError: if another process uses the folder; names it.
        OSError: if the folder cannot be written.
    """
    path = Path(folder) / LOCK_NAME
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    file = os.fstat(descriptor)
    lock = _held.get((file.st_dev, file.st_ino))
    if lock is not None:
        os.close(descriptor)
        return lock
    lock = FolderLock(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunError(
            f"{folder} is in use by {_owner(descriptor)}; wait until it is done, end it, or choose another "
            "--output"
        ) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        logger.warning("%s is on a file system without locks: nothing keeps a second job out of it", folder)
        return lock
    _held[file.st_dev, file.st_ino] = lock
    mine = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%F %T %z")}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(mine).encode(), 0)
    return lock


def _owner(descriptor: int) -> str:
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"  # it has not yet written who it is
