"""Builds the gateways to measure against, each in an environment of its own, once.

``python -m bench.gateway.peers`` builds all, with names only those. They lie in
``~/.cache/vestibule/bench-NAME`` (or in ``E2E_CACHE``), nothing of them in the product. nginx is
the system's own.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = {
    "vllm-router": "vllm-router==0.1.17",
    "sglang-router": "sglang-router==0.3.2",
    "litellm": "litellm[proxy]==1.106.0",
}
"""Name -> the requirement, by exact version: other versions, other figures."""
COMPLETE = ".complete"


def folder(name: str) -> Path:
    """Where a peer's environment is kept."""
    named = os.environ.get("E2E_CACHE")
    cache = Path(named) if named else Path.home() / ".cache" / "vestibule"
    return cache / f"bench-{name}"


def binary(name: str, program: str) -> Path | None:
    """A peer's program; None when it is not built, or in another version."""
    stamp = folder(name) / COMPLETE
    built = stamp.is_file() and stamp.read_text() == PACKAGES[name]
    return folder(name) / "bin" / program if built else None


def nginx() -> str | None:
    """The system's nginx, which Debian keeps off the users' PATH."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def build(name: str) -> None:
    """Install one peer anew, whatever is there."""
    place = folder(name)
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    pip = (place / "bin" / "python", "-m", "pip", "install", "--disable-pip-version-check")
    subprocess.run([*pip, "--quiet", PACKAGES[name]], check=True)
    (place / COMPLETE).write_text(PACKAGES[name])


def main() -> None:
    """Build the peers that are named, or all that are missing."""
    words = argparse.ArgumentParser(prog="python -m bench.gateway.peers")
    words.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PACKAGES))
    names = words.parse_args().names
    unknown = set(names) - set(PACKAGES)
    if unknown:
        words.error(f"no peer is called {', '.join(sorted(unknown))}")
    for name in names or PACKAGES:
        if binary(name, "python") is None:
            print(f"{name}: installing {PACKAGES[name]} into {folder(name)}", flush=True)
            build(name)
    if nginx() is None:
        print("nginx: not there (Debian: apt-get install nginx-light)")


if __name__ == "__main__":
    main()
