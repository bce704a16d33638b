"""The functions' zip: the same bytes wherever it is made, nothing in it that they do not run."""

import argparse
import ast
import base64
import json
import marshal
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from email.parser import Parser
from importlib.metadata import version
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from infra import cli
from infra.aws import archive, modules, package
from infra.aws.package import HANDLERS, LOCK, ROOT, Package, build
from infra.aws.runtime import MACHINES, PYTHON, PYTHONS, Runtime
from infra.errors import CommandError
from tests.aws.built import PYTHON as HERE
from tests.aws.built import alone, names
from tests.contract import environment
from tests.functions.conftest import SERVICE, event

OURS = ("admission", "scheduler")
INSTALLED = {
    "lib/__init__.py": "",
    "lib/native.so": "machine code",
    "lib/RECORD": "a file that is only called so",
    "lib-1.0.dist-info/METADATA": "Name: lib",
    "lib-1.0.dist-info/licenses/LICENSE": "as you like",
    "lib-1.0.dist-info/RECORD": "{folder}",
    "lib-1.0.dist-info/INSTALLER": "pip",
    "lib-1.0.dist-info/REQUESTED": "",
    "lib-1.0.dist-info/direct_url.json": "{folder}",
    "bin/lib": "#!{folder}/bin/python",
}
KEPT = {"lib/__init__.py", "lib/native.so", "lib/RECORD"} | {
    f"lib-1.0.dist-info/{name}" for name in ("METADATA", "licenses/LICENSE")
}


def quiet(_: str) -> None:
    pass


@pytest.fixture
def without_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """One small library stands for all that pip would install."""

    def install(lock: Path, folder: Path, runtime: Runtime) -> None:
        for name, text in INSTALLED.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text.format(folder=folder))

    monkeypatch.setattr(package, "_install", install)


def _checkout(folder: Path, of: Path = ROOT) -> Path:
    """A copy of what is packaged, as another machine would have it."""
    for name in OURS:
        shutil.copytree(of / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (LOCK, "pyproject.toml", "LICENSE", *package.PROGRAMS.values()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(of / name, folder / name)
    return folder


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.usefixtures("without_pip")
def test_the_same_files_make_the_same_bytes(tmp_path: Path, umask: Callable[[int], int]) -> None:
    here = _checkout(tmp_path / "checkout")
    one = build(tmp_path / "one", say=quiet, root=here)
    umask(0o077)
    elsewhere = _checkout(tmp_path / "another" / "checkout", here)
    for path in elsewhere.rglob("*.py"):
        os.utime(path, (1e9, 1e9))
    (elsewhere / "admission" / "__pycache__").mkdir()
    (elsewhere / "admission" / "__pycache__" / "functions.cpython-311.pyc").write_bytes(b"old")
    other = build(tmp_path / "other.zip", say=quiet, root=elsewhere)
    assert (other.sha256, other.code_sha256) == (one.sha256, one.code_sha256)
    assert other.path.read_bytes() == one.path.read_bytes()
    (elsewhere / "admission" / "store" / "lua" / "join.lua").write_text("return 1")
    assert build(tmp_path / "other.zip", say=quiet, root=elsewhere).sha256 != one.sha256


@pytest.mark.usefixtures("without_pip")
def test_a_file_is_as_lambda_wants_it(tmp_path: Path) -> None:
    made = build(tmp_path, say=quiet)
    assert made.path.name == f"vestibule-functions-python{PYTHON}-x86_64.zip"
    assert list(tmp_path.iterdir()) == [made.path]
    with zipfile.ZipFile(made.path) as written:
        found = written.infolist()
        content = {one.filename: written.read(one) for one in found}
    assert [one.filename for one in found] == sorted(content)
    assert {one.date_time for one in found} == {archive.WHEN}
    for one in found:
        mode = stat.filemode(one.external_attr >> 16)
        assert mode == ("-rwxr-xr-x" if one.filename in package.PROGRAMS else "-rw-r--r--")
    assert made.unpacked_bytes == sum(map(len, content.values()))
    assert made.packed_bytes == made.path.stat().st_size
    assert not [name for name, text in content.items() if str(tmp_path.parent).encode() in text]


@pytest.mark.usefixtures("without_pip")
def test_it_holds_what_the_functions_run_and_no_more(tmp_path: Path) -> None:
    found = set(names(build(tmp_path, say=quiet).path))
    theirs = {name for name in found if "lib" in name.split("/")[0]} | (found & {"bin/lib"})
    assert theirs == KEPT
    code = {name for name in found if name.startswith(OURS)}
    assert {f"{handler.rpartition('.')[0].replace('.', '/')}.py" for handler in HANDLERS} <= code
    lua = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("admission/**/*.lua")}
    assert lua
    assert lua <= code
    left_out = ("admission/gateway/", "admission/app.py", "admission/client", "scheduler/clock")
    assert not [name for name in code if name.startswith(left_out)]
    assert not [name for name in found if "__pycache__" in name or name.endswith(".pyc")]
    (about,) = {name.split("/")[0] for name in found - code - theirs - {*package.PROGRAMS}}
    assert re.fullmatch(r"vestibule-[\d.]+\.dist-info", about)


def test_every_import_is_of_the_standard_library_or_in_the_lock() -> None:
    """SQL comes in a layer, where the functions keep accounts."""
    imported = {
        name.split(".")[0]
        for file in modules.files_of(ROOT, (handler.rpartition(".")[0] for handler in HANDLERS))
        if file.suffix == ".py"
        for node in ast.walk(ast.parse(file.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    locked = {
        line.split("==")[0] for line in (ROOT / LOCK).read_text().splitlines() if "==" in line
    }
    imported_as = {"pyjwt": "jwt"}
    known = {imported_as.get(name, name) for name in locked} | {*sys.stdlib_module_names, *OURS}
    assert imported - known == {"sqlalchemy"}


def test_the_functions_run_the_services_versions() -> None:
    """A lock that was written anew alone would let them drift apart."""
    mine, services = (
        set(re.findall(r"^[\w-]+==[\w.]+", (ROOT / lock).read_text(), re.MULTILINE))
        for lock in (LOCK, "infra/lock/run.txt")
    )
    assert len(mine) > 20
    assert mine <= services


def test_what_only_a_type_checker_imports_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "ours" / "data").mkdir(parents=True)
    (tmp_path / "ours" / "deeper").mkdir()
    for name, text in {
        "ours/__init__.py": "",
        "ours/first.py": "import os\nfrom typing import TYPE_CHECKING\nfrom ours import second\n"
        "if TYPE_CHECKING:\n    from ours.types import T\n",
        "ours/second.py": "def late():\n    from ours.deeper.third import x\n",
        "ours/types.py": "T = int",
        "ours/unused.py": "",
        "ours/data/one.lua": "",
        "ours/.one.lua.swp": "",
        "ours/deeper/__init__.py": "",
        "ours/deeper/third.py": "x = 1",
        "ours/deeper/two.toml": "",
    }.items():
        (tmp_path / name).write_text(text)
    found = [
        path.relative_to(tmp_path).as_posix() for path in modules.files_of(tmp_path, ["ours.first"])
    ]
    assert found == [
        "ours/__init__.py",
        "ours/data/one.lua",
        "ours/deeper/__init__.py",
        "ours/deeper/third.py",
        "ours/deeper/two.toml",
        "ours/first.py",
        "ours/second.py",
    ]
    with pytest.raises(ModuleNotFoundError, match=r"ours\.gone"):
        modules.files_of(tmp_path, ["ours.gone"])


@pytest.mark.usefixtures("without_pip")
@pytest.mark.parametrize("what", ["packed", "unpacked"])
def test_more_than_lambda_takes_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(package, f"{what.upper()}_BYTES_MAX", 2**10)
    with pytest.raises(CommandError, match=rf"\.zip: 0\.\d MB {what}, and Lambda takes"):
        build(tmp_path, say=quiet)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("without_pip")
def test_compiled_it_has_the_bytecode_of_every_module(tmp_path: Path) -> None:
    """Made anew it is the same; it says where the code lies in Lambda, not where it lay here."""
    root = _checkout(tmp_path / "checkout")
    one, other = (
        build(tmp_path / folder, HERE, say=quiet, root=root, compiled=True)
        for folder in ("one", "other")
    )
    assert other.sha256 == one.sha256
    found = names(one.path)
    code = [name for name in found if name.endswith(".py")]
    assert len(code) > 50
    assert {cache_from_source(name) for name in code} == {n for n in found if n.endswith(".pyc")}
    with zipfile.ZipFile(one.path) as written:
        content = written.read(cache_from_source("admission/functions.py"))
    assert content[4:8] == b"\1\0\0\0"  # PEP 552: by its hash, and not checked
    assert marshal.loads(content[16:]).co_filename == "/var/task/admission/functions.py"


def test_another_pythons_bytecode_is_refused(tmp_path: Path) -> None:
    other = next(python for python in PYTHONS if python != HERE)
    with pytest.raises(CommandError, match=f"this is Python {HERE}, .* --python {HERE}, or"):
        build(tmp_path, other, say=quiet, compiled=True)
    assert not list(tmp_path.iterdir())


def test_without_a_checkout_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=f"{LOCK} is not in .*: package from a checkout"):
        build(tmp_path, say=quiet, root=tmp_path)


def test_without_a_folder_for_it_that_is_said_before_anything_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said: list[str] = []
    with pytest.raises(CommandError, match="/file/dist cannot be made for the zip: not a dir"):
        build(tmp_path / "file" / "dist", say=said.append)
    assert said == []


def test_without_pip_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "find_spec", lambda name: None)
    with pytest.raises(CommandError, match="pip is needed: .* -m ensurepip"):
        build(tmp_path, say=quiet)


def test_a_library_without_a_wheel_is_named(tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    (root / LOCK).parent.mkdir(parents=True)
    (root / LOCK).write_text(
        f"--no-index\n--find-links file:{tmp_path}/gone\nnowhere==1.0 --hash=sha256:{'0' * 64}\n"
    )
    with pytest.raises(CommandError) as error:
        build(tmp_path, "3.12", "arm64", quiet, root)
    lines = str(error.value).splitlines()
    assert lines[0] == "no libraries for python3.12 on arm64: pip says"
    assert {line.partition(": ")[0] for line in lines[1:]} == {"ERROR"}  # no warnings
    assert "No matching distribution found for nowhere==1.0" in lines[-1]
    assert list(tmp_path.iterdir()) == [root]


@pytest.mark.usefixtures("without_pip")
def test_who_writes_over_one_has_the_old_or_the_new(tmp_path: Path) -> None:
    path = build(tmp_path, say=quiet).path
    before = path.read_bytes()
    with pytest.raises(TypeError):
        archive.write(path, {"a": b"whole", "b": None})  # type: ignore[dict-item]
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def _git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    told = subprocess.run(
        ["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True
    )
    return told.stdout.strip()


@pytest.mark.usefixtures("without_pip")
def test_it_is_said_which_commit_it_is_of(tmp_path: Path) -> None:
    root, said = _checkout(tmp_path / "checkout"), list[str]()

    def told() -> str:
        build(tmp_path / "out", say=said.append, root=root)
        return said[-1].partition(", of ")[2]

    assert told() == "no known commit"
    _git(root, "init", "--quiet")
    (root / "tests.md").write_text("not packaged")
    _git(root, "add", ".")
    _git(root, "commit", "--quiet", "--message", "one")
    commit = f"commit {_git(root, 'rev-parse', '--short=12', 'HEAD')}"
    assert told() == commit
    (root / "README.md").write_text("not packaged")
    (root / "admission" / "unused.py").write_text("not packaged")
    assert told() == commit
    (root / "scheduler" / "ticks.py").write_text("")
    (root / "admission" / "store" / "lua" / "new.lua").write_text("")
    (root / "admission" / "store" / "lua" / "join.lua").unlink()
    (root / "tests.md").unlink()
    changed = "admission/store/lua/join.lua, scheduler/ticks.py, admission/store/lua/new.lua"
    assert told() == f"{commit}, but for {changed}, not committed"
    for path in (root / "admission" / "store" / "lua").glob("c*.lua"):
        path.write_text("")
    assert re.search(r"(, [\w/.]+){5} and \d more, not committed$", told().replace(" but for", ""))


@pytest.mark.usefixtures("without_pip")
def test_the_command_tells_what_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["aws", "package", "--output", str(tmp_path), "--architecture", "arm64"]
    assert cli.main(words) == 0
    first, second, path, *rows = capsys.readouterr().out.splitlines()
    assert first == f"libraries for python{PYTHON} on arm64, as {LOCK} names them"
    assert re.fullmatch(r"\d+ files, of .+", second)
    assert path == f"{tmp_path}/vestibule-functions-python{PYTHON}-arm64.zip"
    shown = dict(row.split(maxsplit=1) for row in rows)
    digest = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True)
    assert shown["SHA-256"] == digest.stdout.split()[0]
    assert base64.b64decode(shown["CodeSha256"]).hex() == shown["SHA-256"]
    assert shown["packed"].endswith("(of 50 MB)")
    assert shown["unpacked"].endswith("(of 250 MB)")


@pytest.mark.parametrize("words", [["--python", "3.9"], ["--architecture", "aarch64"]])
def test_what_lambda_has_not_is_refused(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    package.configure(parser)
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(words)
    assert stop.value.code == 2


# --- with what pip really installs --------------------------------------------------------------


def _whole(found: Package, runtime: Runtime) -> list[str]:
    """What is wrong with a package: machine code for others, libraries that are missing."""
    with zipfile.ZipFile(found.path) as written:
        listed = written.namelist()
        metadata = [
            Parser().parsestr(written.read(name).decode())
            for name in listed
            if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)
        ]
    tag = runtime.python.replace(".", "")
    machine = {"x86_64": "x86_64", "arm64": "aarch64"}[runtime.architecture]
    right = re.compile(rf"\.(cpython-{tag}-{machine}-linux-gnu|abi3)\.so$")
    wrong = [name for name in listed if name.endswith(".so") and not right.search(name)]
    environment = {
        "python_version": runtime.python,
        "python_full_version": f"{runtime.python}.9",
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "extra": "",
    }
    there = {canonicalize_name(one["Name"]) for one in metadata}
    needed = [
        Requirement(line) for one in metadata for line in one.get_all("Requires-Dist", failobj=[])
    ]
    return wrong + [
        f"{one} is missing"
        for one in needed
        if canonicalize_name(one.name) not in there
        and (one.marker is None or one.marker.evaluate(environment))
    ]


def _invoked(handler: str, event: object, redis: str) -> dict[str, Any]:
    """What a handler of the package answers in a process that has the package alone."""
    ended = subprocess.run(
        alone(Path(environment.__file__)),
        input=json.dumps(event) + "\n",
        env={"_HANDLER": handler, "REDIS_URL": redis, "VESTIBULE_SERVICE_KEY": SERVICE},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(ended.stdout)
    return answer


@pytest.mark.soak
def test_both_handlers_run_with_the_package_alone(valkey: str) -> None:
    """The contract is asked of it in tests/contract; here is what no rule there asks."""
    admission, scheduler = HANDLERS
    told = _invoked(admission, event("GET", "/openapi.json"), valkey)
    assert told["statusCode"] == 200, told
    assert json.loads(told["body"])["info"]["version"] == version("vestibule")
    assert "errorType" not in (done := _invoked(scheduler, {}, valkey)), done
    assert "expire" in done["done"]


@pytest.mark.soak
@pytest.mark.parametrize("architecture", MACHINES)
def test_each_architecture_gets_its_own_and_twice_the_same(
    tmp_path: Path, umask: Callable[[int], int], architecture: str
) -> None:
    here = _checkout(tmp_path / "checkout")
    one = build(tmp_path, PYTHON, architecture, quiet, here)
    umask(0o077)
    elsewhere = _checkout(tmp_path / "another", here)
    other = build(tmp_path / "other", PYTHON, architecture, quiet, elsewhere)
    assert other.path.read_bytes() == one.path.read_bytes()
    assert _whole(one, Runtime(PYTHON, architecture)) == []
    with zipfile.ZipFile(one.path) as written:
        paths = (
            str(tmp_path).encode(),
            str(ROOT).encode(),
            sys.prefix.encode(),
            b"vestibule-package-",
        )
        inside = [
            name for name in written.namelist() if any(p in written.read(name) for p in paths)
        ]
    assert inside == []


@pytest.mark.soak
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.14"])
def test_every_other_runtime_has_all_its_libraries(tmp_path: Path, python: str) -> None:
    for architecture in MACHINES:
        made = build(tmp_path, python, architecture, quiet)
        assert _whole(made, Runtime(python, architecture)) == []
