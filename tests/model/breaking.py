"""Breaks one comparison of the Lua at a time and asks whether any test turns red.

``python -m tests.model.breaking [FILE ...] [--seconds N]`` works on a private copy of the package,
so nothing here changes the checkout. FILE is a path below ``admission/store/lua`` without ``.lua``.
For each it prints how many broken comparisons were noticed, and each that was not.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LUA = Path("admission/store/lua")
EDGE = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "~=", "~=": "=="}
COMPARISON = re.compile(r"(?<= )(<=|>=|==|~=|<|>)(?= )")
NOT_CODE = re.compile(r"--\[\[.*?\]\]|--[^\n]*|\"[^\"\n]*\"", re.DOTALL)
TURNS = tuple(
    f"tests/store/test_{name}.py"
    for name in ("tickets", "requests", "deadlines", "found", "nobody", "repeats", "priorities")
)
POOL = ("tests/store/test_pool.py", "tests/store/test_deadlines.py")
ORDER = ("tests/store/test_request_pools.py", "tests/store/test_offers.py")
NEWS = tuple(f"tests/store/test_{name}.py" for name in ["messages", "news", "batches", "places"])
WORKERS = ("tests/store/test_workers.py", "tests/store/test_pool.py")
ESTIMATE = ("tests/store/test_estimate.py",)
FLEET = ("tests/store/test_fleet.py", "tests/store/test_fleet_commands.py", "tests/fleet")
# What notices most of a file's errors, asked first; the rest is asked about those it let pass.
NEAR = {
    "lib/order": ORDER,
    "lib/told": NEWS,
    "lib/clock": NEWS,
    "lib/publish": NEWS,
    "announce": NEWS,
    "remind": NEWS,
    "attend": NEWS,
    "positions": NEWS,
    "lib/estimate": ESTIMATE,
    "lib/forecast": ESTIMATE,
    "lib/learn": ESTIMATE,
    "close_pool": ("tests/store/test_found.py", "tests/store/test_pool.py"),
    "list": ("tests/model",),
    "metrics": POOL,
    "configure": (*POOL, *ORDER),
    **dict.fromkeys(
        (
            "drain_worker",
            "expire_workers",
            "list_workers",
            "register_worker",
            "release_worker",
            "steer_worker",
        ),
        WORKERS,
    ),
    "report_worker": WORKERS,
    **{f"fleet/{name}": FLEET for name in ("records", "write", "take", "note", "ask", "drain")},
    **dict.fromkeys(("threads/append", "threads/facts"), ("tests/frontends/test_thread_store.py",)),
}
REST = ("tests/store", "tests/model")
NEAR_S, REST_S = 90.0, 400.0  # a broken script that never ends is noticed too


@dataclass(frozen=True)
class Break:
    """One comparison, by its place in a file's text."""

    file: str
    start: int
    old: str
    new: str
    line: int
    text: str

    def applied_to(self, source: str) -> str:
        return source[: self.start] + self.new + source[self.start + len(self.old) :]


def breaks(file: str) -> Iterator[Break]:
    """Every comparison of a file, at its edge and reversed; comments and texts have none."""
    source = (ROOT / LUA / f"{file}.lua").read_text()
    code = NOT_CODE.sub(lambda found: re.sub(r"[^\n]", "_", found.group()), source)
    for found in COMPARISON.finditer(code):
        line = source.count("\n", 0, found.start()) + 1
        text = source.splitlines()[line - 1].strip()
        for table in (EDGE, OPPOSITE):
            if new := table.get(found.group()):
                yield Break(file, found.start(), found.group(), new, line, text)


def noticed(copy: Path, tests: tuple[str, ...], seconds: float) -> bool:
    """Whether a test fails against the copy; so does one that never ends."""
    options = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "-k", "not under_any_load"]
    paths = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", *tests, *options],
        cwd=copy,
        env=paths,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as run:
        try:
            return run.wait(seconds) != 0
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)  # with its server
            return True


def judge(copy: Path, each: Break, *, near_only: bool) -> bool:
    target = copy / LUA / f"{each.file}.lua"
    whole = target.read_text()
    target.write_text(each.applied_to(whole))
    try:
        if noticed(copy, NEAR.get(each.file, TURNS), NEAR_S):
            return True
        return not near_only and noticed(copy, REST, REST_S)
    finally:
        target.write_text(whole)


def copied(folder: Path) -> Path:
    for part in ("admission", "infra", "scheduler", "tests", "worker_image", "owui_pipeline"):
        shutil.copytree(ROOT / part, folder / part)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--near", action="store_true", help="ask only the tests near each file")
    given = parser.parse_args()
    every = sorted(
        path.relative_to(ROOT / LUA).with_suffix("").as_posix()
        for path in (ROOT / LUA).rglob("*.lua")
    )
    deadline = time.monotonic() + given.seconds
    with tempfile.TemporaryDirectory(prefix="vst-broken-") as folder:
        copy = copied(Path(folder))
        for file in given.files or every:
            green = not noticed(copy, NEAR.get(file, TURNS), NEAR_S)
            assert green, f"the tests near {file} are red or too slow with nothing broken"
            judged: list[tuple[Break, bool]] = []
            for each in breaks(file):
                if time.monotonic() < deadline:
                    judged.append((each, judge(copy, each, near_only=given.near)))
            found = sum(seen for _, seen in judged)
            print(f"{file:20} {len(judged):3} broken {found:3} noticed", flush=True)
            for each, seen in judged:
                if not seen:
                    change = f"{each.old} -> {each.new}"
                    print(f"    line {each.line}: {change}   {each.text}", flush=True)


if __name__ == "__main__":
    main()
