"""Files of CURVE keys: `NAME.key` holds the secret, for its owner's eyes, `NAME.pub` what others may know."""

import os
from pathlib import Path

from transport import Curve

from .output import ExitCode, fail


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
