"""A Unix socket that a server listens on, made here; over ZeroMQ it is accepted on by that (ZMQ_USE_FD).

Theory of operation. ZeroMQ's own bind removes whatever stands at the path, so the path is taken here. A file that a
server left behind as it died is a socket on which no process answers: only such a one is removed. Servers that start at
once look and take in turn, each holding an advisory lock on the folder meanwhile.

A listener of ZeroMQ's cannot pause, and its process is aborted if a connection comes while no descriptor is left. So
`shut` puts another socket in the place of the one that ZeroMQ accepts on: clients wait in its queue, in which they cost
nothing here, until `reopen` puts the first one back. (Those in the queue see it end then, and connect again.)

    open --shut--> at the path a socket without accept, ZeroMQ's under a hidden name --reopen--> open
    any --remove--> gone
"""

import errno
import os
import socket as sockets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from transport.descriptors import to_keep
from transport.endpoint import MAX_IPC_PATH, Endpoint
from transport.errors import EndpointError

#: Connections that may wait to be accepted.
BACKLOG = 1024

_KINDS = (
    (stat.S_ISDIR, "a folder"), (stat.S_ISREG, "a file"), (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a named pipe"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"),
)  # fmt: skip


class Taken(EndpointError):
    """A server has the endpoint: it may be one that is just closing."""


class UnixListener:
    """A socket that listens at the path, or under the abstract name, of an endpoint.

    Raises: EndpointError, which says what is there; `Taken` for a server that answers.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._folder = ""
        name = endpoint.name
        if name == "*":
            self._folder = tempfile.mkdtemp(prefix="callport-")
            name = os.path.join(self._folder, "socket")
        #: What the socket is called: the endpoint's name, or the path that was chosen.
        self.name = name
        self._scheme = endpoint.scheme
        self.abstract: bool = name.startswith("@")
        # The working directory may change before the path is removed.
        self._path = os.path.abspath(name)
        self._hidden = f"{self._path}.{os.getpid()}"
        # So few that those who come at once leave some of the descriptors that are kept. The others try again.
        self._backlog = min(BACKLOG, to_keep() // 2)
        # In whose queue clients wait while shut.
        self._waiting: sockets.socket | None = None
        # What that is made of: there may be no descriptor for it then.
        self._spare: sockets.socket | None = None
        # Which file is the socket's, or (0, 0).
        self._file = (0, 0)
        self._socket = sockets.socket(sockets.AF_UNIX)
        try:
            self._listen()
            if not self.abstract:
                self._spare = sockets.socket(sockets.AF_UNIX)
        except BaseException:
            self.remove()
            raise

    def _listen(self) -> None:
        try:
            if self.abstract:
                self._socket.bind("\0" + self.name[1:])
                self._socket.listen(self._backlog)
            else:
                self._take_path()
        except EndpointError as error:
            raise type(error)(f"cannot bind {self._scheme}://{self.name}: {error}") from None
        except (OSError, ValueError) as error:
            taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            kind = Taken if taken else EndpointError
            raise kind(f"cannot bind {self._scheme}://{self.name}: {_why(self._path, error)}") from error

    def _take_path(self) -> None:
        with _alone_in(os.path.dirname(self._path)):
            try:
                self._socket.bind(self.name)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                _remove_left_behind(self.name)
                self._socket.bind(self.name)
            self._file = _identity(self._path)
            # Before the folder is left: a socket that does not listen looks as if it had been left behind.
            self._socket.listen(self._backlog)

    def detach(self) -> int:
        """Return the descriptor, which is the caller's to close."""
        return self._socket.detach()

    def shut(self) -> None:
        """Have those who connect wait. Repeating it does nothing."""
        if _identity(self._path) == self._file:
            os.rename(self._path, self._hidden)
        if self._waiting is None:
            with suppress(OSError):  # Without it, or before it is there, they find no listener, and try again.
                self._make_wait()

    def _make_wait(self) -> None:
        waiting, self._spare = self._spare or sockets.socket(sockets.AF_UNIX), None
        try:
            waiting.bind(self._path if len(os.fsencode(self._path)) <= MAX_IPC_PATH else self.name)
            os.chmod(self._path, stat.S_IMODE(os.lstat(self._hidden).st_mode))
            waiting.listen(BACKLOG)
        except BaseException:
            waiting.close()
            raise
        self._waiting = waiting

    def reopen(self) -> None:
        """Have connections accepted again. Repeating it does nothing."""
        self._put_back()
        if self._spare is None:
            with suppress(OSError):  # Then it is made when it is needed, if that can be.
                self._spare = sockets.socket(sockets.AF_UNIX)

    def _put_back(self) -> None:
        with suppress(FileNotFoundError):  # It is in its place.
            os.rename(self._hidden, self._path)
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.close()

    def remove(self) -> None:
        """Remove the path, unless it is another server's by now. Repeating it does nothing."""
        self._socket.close()  # Nothing, once it is detached.
        if self._file != (0, 0):
            self._put_back()
            if _identity(self._path) == self._file:
                with suppress(OSError):  # It may stay: the next server removes what no process answers on.
                    os.unlink(self._path)
        if self._spare is not None:
            self._spare.close()
        if self._folder:
            with suppress(OSError):  # Something else was put into it, or it is gone.
                os.rmdir(self._folder)


def _identity(path: str) -> tuple[int, int]:
    """Which file this is; (0, 0) if there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _remove_left_behind(path: str) -> None:
    """Remove a socket on which no process answers; raise EndpointError for whatever else is there."""
    with suppress(FileNotFoundError):  # Nothing is there, or no longer.
        mode = os.lstat(path).st_mode
        if not stat.S_ISSOCK(mode):
            what = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
            raise EndpointError(f"{what} is there, which is no socket and stays: choose another path")
        _require_dead(path)
        try:
            os.unlink(path)
        except PermissionError as error:
            raise EndpointError("a socket of another user's is there, on which nobody answers: remove it") from error


def _require_dead(path: str) -> None:
    """Raise EndpointError unless connecting to this socket shows that no process listens on it."""
    with sockets.socket(sockets.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return  # It is dead, or gone.
        except BlockingIOError:
            pass  # So many are waiting to be accepted that there is no room.
        except PermissionError as error:
            raise EndpointError("a socket is there that this user may not ask whether somebody listens") from error
        except OSError as error:
            raise EndpointError(f"a socket of another kind is there, which stays: {error.strerror}") from error
    raise Taken("a server listens there")


def _why(path: str, error: Exception) -> str:
    """What keeps a socket from being made at a path."""
    folder = os.path.dirname(path)
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"{folder} is no folder" if os.path.lexists(folder) else f"the folder {folder} does not exist"
    if isinstance(error, PermissionError):
        return f"this user may not make a socket in {folder}"
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return "a server listens there"
    return getattr(error, "strerror", None) or str(error)


@contextmanager
def _alone_in(folder: str) -> Iterator[None]:
    """Keep other servers from taking a path in this folder; raises `Taken` while another one does."""
    import fcntl  # Where there are no Unix sockets there is none.

    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # It is not there, or may not be read: then there is only the bind to ask.
        yield
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Taken("its folder is locked by another process") from error
        except OSError:  # Not on this file system.
            pass
        yield
    finally:
        os.close(descriptor)
