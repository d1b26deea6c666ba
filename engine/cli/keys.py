"""Files of CURVE keys: `NAME.key` holds the secret, for its owner's eyes, `NAME.pub` what others may know; and files of
the keys that a server lets in (`transport.Curve.allowed`).
"""

import os
from pathlib import Path

from transport import Curve, EndpointError

from .output import ExitCode, fail

KEY_LENGTH = 40  # Characters of Z85.


def make(name: Path) -> tuple[Path, Path]:
    """Make a pair of keys; return the files of the secret and of the public one. Nothing is overwritten."""
    public, secret = Curve.new_keys()
    files = Path(f"{name}.key"), Path(f"{name}.pub")
    for path, text, mode in zip(files, (secret, public), (0o600, 0o644), strict=True):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            raise fail(f"{path} is there already: choose another name, or remove it", ExitCode.USAGE) from None
        except OSError as error:
            raise fail(f"{path} cannot be written: {error.strerror}", ExitCode.USAGE) from None
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(f"{text}\n")
    return files


def show(name: Path) -> str:
    """Return the public key of a pair, worked out from its secret if that is there; `name` is that of the pair."""
    secret, public = Path(f"{name}.key"), Path(f"{name}.pub")
    path = secret if secret.exists() else public
    return _read(path) if path is public else pair(path)[0]


def pair(secret: Path) -> tuple[str, str]:
    """Return the public key and the secret one of a pair, of the file of the secret one."""
    key = _read(secret)
    try:
        return Curve.public_key_of(key), key
    except EndpointError:
        raise fail(f"{secret} holds no secret key", ExitCode.USAGE) from None


def public_key(key: str) -> str:
    """Return a public key, given as it is or as its `.pub` file."""
    return key if len(key) == KEY_LENGTH else _read(Path(key))


def allow(file: Path, key: str, name: str) -> bool:
    """Add a public key, or that of a `.pub` file, to the keys that a server lets in; False if it was among them.

    Servers that have the file as `allowed` let it in from their next look on. The file is made if there is none.
    What is no key is not written: those servers would refuse the whole file, and let nobody in.
    """
    key = public_key(key)
    try:
        Curve(*Curve.new_keys(), allowed={key})  # Raises for what is no key.
        found = file.read_text(encoding="ascii") if file.exists() else ""
        if any(line.split()[:1] == [key] for line in found.splitlines()):
            return False
        with open(file, "a", encoding="ascii") as lines:
            lines.write(("" if found.endswith("\n") or not found else "\n") + " ".join([key, *name.split()]) + "\n")
    except (OSError, ValueError, EndpointError) as error:
        raise fail(f"{file}: {error}", ExitCode.USAGE) from None
    return True


def _read(path: Path) -> str:
    try:
        key = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise fail(f"{path} cannot be read: {error}", ExitCode.USAGE) from None
    if len(key) != KEY_LENGTH:
        raise fail(f"{path} holds no key: one is {KEY_LENGTH} characters", ExitCode.USAGE)
    return key
