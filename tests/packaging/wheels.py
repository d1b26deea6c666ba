"""Builds the wheel and the sdist into dist/ and tries them: `python -m tests.packaging.wheels [--quick] PYTHON...`.

    build      both, the wheel from the sdist
    contents   the wheel has what version control has of the packages, and nothing else; the sdist has what a clone has
    twine      what an index would refuse: the metadata, and the README as its page
    smoke      `smoke.py` in a new environment of each PYTHON: the wheel alone, then with its extra `cli`; of the first
               one with `perf`, too, which is large, and so left out by `--quick`

Needs `callport[package]`, and a clone. Ends with 1 after the first thing that is wrong.
"""

import argparse
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
DIST = ROOT / "dist"
SMOKE = Path(__file__).with_name("smoke.py")
PACKAGES = ("engine", "transport", "perf")
MARKERS = {f"{package}/py.typed" for package in PACKAGES}
PATIENCE = 600  # Seconds for one command, installing from a slow index included.


def run(*command: str | Path, where: Path = ROOT) -> str:
    """Run a command; return what it printed. Ends this process with all that it said if it fails."""
    done = subprocess.run(
        list(map(str, command)), cwd=where, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        stdin=subprocess.DEVNULL, timeout=PATIENCE,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed with {done.returncode}:\n{done.stdout}")
    return done.stdout


def difference(name: str, found: set[str], wanted: set[str]) -> list[str]:
    """Return a line for each file that is missing, and for each that is too much."""
    return [f"{name} lacks {path}" for path in sorted(wanted - found)] + [
        f"{name} has {path}, which does not belong there" for path in sorted(found - wanted)
    ]


def check_contents(wheel: Path, sdist: Path) -> None:
    """Compare both with what version control has."""
    tracked = set(run("git", "ls-files").splitlines())
    with zipfile.ZipFile(wheel) as archive:
        files = {path for path in archive.namelist() if ".dist-info/" not in path}
    packages = {path for path in tracked if path.startswith(tuple(f"{package}/" for package in PACKAGES))}
    wrong = difference(wheel.name, files, packages | MARKERS)
    with tarfile.open(sdist) as packed:
        files = {member.name.partition("/")[2] for member in packed.getmembers() if member.isfile()}
    wrong += difference(sdist.name, files, tracked | {"PKG-INFO"})
    if wrong:
        sys.exit("\n".join(wrong))


def smoke(python: str, wheel: Path, extras: Sequence[str]) -> None:
    """Install the wheel into an environment of its own, and try it there: alone, then with each extra."""
    with TemporaryDirectory(prefix="callport-wheel-") as folder:
        run(python, "-m", "venv", "--clear", Path(folder, "venv"))
        inside = Path(folder, "venv", "Scripts" if sys.platform == "win32" else "bin", "python")
        empty = Path(folder, "empty")
        empty.mkdir()
        for extra in ("", *extras):
            asked = f"{wheel}[{extra}]" if extra else str(wheel)
            run(inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", asked, where=empty)
            print(" ", run(inside, "-I", SMOKE, where=empty).strip(), flush=True)


def main(pythons: Sequence[str], quick: bool) -> None:
    """Build, compare, try."""
    began = time.monotonic()
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", DIST)  # Its environment has the build backend.
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    check_contents(wheel, sdist)
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    print(f"{wheel.name} and {sdist.name}: {time.monotonic() - began:.0f} s")
    for number, python in enumerate(pythons):
        smoke(python, wheel, ("cli",) if number or quick else ("cli", "perf"))
    print(f"{len(pythons)} environments tried, {time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the wheel and the sdist, and try them.")
    parser.add_argument("--quick", action="store_true", help="leave the large extra out")
    parser.add_argument("pythons", nargs="*", metavar="PYTHON", default=[sys.executable])
    options = parser.parse_args()
    main(options.pythons, options.quick)
