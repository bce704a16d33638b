"""``vestibule aws package``: the functions as a zip for AWS Lambda."""

import argparse
import base64
import hashlib
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from infra.aws import archive, bytecode, modules
from infra.aws.runtime import (
    ARCHITECTURE,
    MACHINES,
    PACKED_BYTES_MAX,
    PYTHON,
    PYTHONS,
    UNPACKED_BYTES_MAX,
    Runtime,
)
from infra.errors import CommandError

ROOT = Path(__file__).parent.parent.parent
LOCK = "infra/lock/functions.txt"
HANDLERS = ("admission.functions.handler", "scheduler.functions.handler")
PROGRAMS = {"secrets_first": "infra/aws/secrets_first.py"}
"""Name in the zip -> the file: what Lambda starts itself, before Python."""
SHOWN = 5  # files by name, of those that are not committed
INSTALLERS = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
"""What pip writes about itself and this machine into a library's metadata."""


@dataclass(frozen=True)
class Package:
    """A written zip. ``code_sha256`` is its checksum as Lambda shows it (base64)."""

    path: Path
    sha256: str
    code_sha256: str
    packed_bytes: int
    unpacked_bytes: int


def configure(parser: argparse.ArgumentParser) -> None:
    """The words of ``vestibule aws package``."""
    parser.description = (
        "Write the functions as a zip for AWS Lambda: what they import of Vestibule, and the"
        f" libraries that {LOCK} names, for Lambda's machines. The same commit gives the same"
        " bytes."
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("dist"),
        metavar="PATH",
        help="a folder, or a file *.zip; default: dist",
    )
    parser.add_argument(
        "--python", choices=[*PYTHONS], default=PYTHON, help=f"of the runtime; default: {PYTHON}"
    )
    parser.add_argument(
        "--architecture", choices=[*MACHINES], default=ARCHITECTURE, help=f"default: {ARCHITECTURE}"
    )
    parser.add_argument(
        "--compiled",
        action="store_true",
        help="with bytecode, which a cold start else makes anew; needs the runtime's Python here",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write it, tell of it, and say 0. Raises `CommandError` as ``build`` does."""
    made = build(args.output, args.python, args.architecture, compiled=args.compiled)
    print(
        f"{made.path}\n"
        f"  packed      {made.packed_bytes / 2**20:.1f} MB (of {PACKED_BYTES_MAX >> 20} MB)\n"
        f"  unpacked    {made.unpacked_bytes / 2**20:.1f} MB (of {UNPACKED_BYTES_MAX >> 20} MB)\n"
        f"  SHA-256     {made.sha256}\n"
        f"  CodeSha256  {made.code_sha256}"
    )
    return 0


def build(
    output: Path,
    python: str = PYTHON,
    architecture: str = ARCHITECTURE,
    say: Callable[[str], None] = print,
    root: Path = ROOT,
    *,
    compiled: bool = False,
) -> Package:
    """Write the zip to ``output``: a file ``*.zip``, or a folder, in which it gets its own name.
    ``root`` is the checkout whose functions they are; ``compiled``: with bytecode beside the code.

    Raises:
        CommandError: no checkout, no folder for it, no pip, no wheel for that runtime, or too large
            for Lambda; this Python writes another bytecode.
    """
    runtime = Runtime(python, architecture)
    if not (root / LOCK).is_file():
        raise CommandError(f"{LOCK} is not in {root}: package from a checkout of the repository")
    if compiled:
        bytecode.must_be_of(runtime)
    path = output
    if output.suffix != ".zip":
        path = output / f"vestibule-functions-{runtime.name}-{architecture}.zip"
    _make_folder(path.parent)
    say(f"libraries for {runtime.name} on {architecture}, as {LOCK} names them")
    with tempfile.TemporaryDirectory(prefix="vestibule-package-") as folder:
        _install(root / LOCK, Path(folder), runtime)
        files = {**_libraries(Path(folder)), **_ours(root)}
    if compiled:
        files |= bytecode.of(files)
    say(f"{len(files)} files, of {_commit(root, files)}")
    archive.write(path, files, PROGRAMS)
    return _checked(path, sum(map(len, files.values())))


def _make_folder(folder: Path) -> None:
    """Before pip takes its time."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = (error.strerror or "").lower()
        raise CommandError(f"{folder} cannot be made for the zip: {why}") from error


def _install(lock: Path, folder: Path, runtime: Runtime) -> None:
    """What ``lock`` names and nothing else, as wheels, for a machine that is not this one."""
    if find_spec("pip") is None:
        raise CommandError(f"pip is needed: {sys.executable} -m ensurepip")
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--no-input", "--no-compile"),
            *("--no-deps", "--require-hashes", "--only-binary=:all:", "--implementation=cp"),
            f"--python-version={runtime.python}",
            *(f"--platform={platform}" for platform in runtime.platforms()),
            f"--target={folder}",
            f"--requirement={lock}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        why = [line for line in ended.stderr.splitlines() if line.startswith("ERROR: ")]
        told = "\n".join(why) or ended.stderr.strip()
        raise CommandError(
            f"no libraries for {runtime.name} on {runtime.architecture}: pip says\n{told}"
        )


def _libraries(folder: Path) -> dict[str, bytes]:
    """What pip installed, less its commands and what it wrote of itself."""
    return _read(
        folder,
        (
            path
            for path in folder.rglob("*")
            if path.is_file()
            and path.parent != folder / "bin"
            and not (path.parent.name.endswith(".dist-info") and path.name in INSTALLERS)
        ),
    )


def _ours(root: Path) -> dict[str, bytes]:
    """What the handlers import, and who they are: without its metadata a version is unknown."""
    files = modules.files_of(root, (handler.rpartition(".")[0] for handler in HANDLERS))
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    metadata = f"Metadata-Version: 2.1\nName: vestibule\nVersion: {version}\n"
    about = f"vestibule-{version}.dist-info"
    return {
        **_read(root, files),
        **{name: (root / file).read_bytes() for name, file in PROGRAMS.items()},
        f"{about}/METADATA": metadata.encode(),
        f"{about}/licenses/LICENSE": (root / "LICENSE").read_bytes(),
    }


def _read(folder: Path, paths: Iterable[Path]) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _commit(root: Path, names: Collection[str]) -> str:
    """The checkout's commit, and which of the packaged files are not as it has them."""
    sources = {*names, *PROGRAMS.values(), LOCK, "pyproject.toml", "LICENSE"}
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        status = _git(root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all")
    except (OSError, subprocess.CalledProcessError):
        return "no known commit"
    changed = [
        line[3:]
        for line in status.split("\0")
        if line[3:] in sources or ("D" in line[:2] and line[3:].startswith(_packages()))
    ]
    if not changed:
        return f"commit {commit}"
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return f"commit {commit}, but for {', '.join(changed[:SHOWN])}{more}, not committed"


def _packages() -> tuple[str, ...]:
    return tuple(f"{handler.partition('.')[0]}/" for handler in HANDLERS)


def _git(root: Path, *words: str) -> str:
    ended = subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
    )
    return ended.stdout.removesuffix("\n")


def _checked(path: Path, unpacked_bytes: int) -> Package:
    """
    Raises:
        CommandError: Lambda would not take it; it is not there any more.
    """
    content = path.read_bytes()
    digest = hashlib.sha256(content)
    for what, size, most in (
        ("packed", len(content), PACKED_BYTES_MAX),
        ("unpacked", unpacked_bytes, UNPACKED_BYTES_MAX),
    ):
        if size > most:
            path.unlink()
            raise CommandError(
                f"{path}: {size / 2**20:.1f} MB {what}, and Lambda takes {most >> 20} MB"
            )
    code_sha256 = base64.b64encode(digest.digest()).decode()
    return Package(path, digest.hexdigest(), code_sha256, len(content), unpacked_bytes)
