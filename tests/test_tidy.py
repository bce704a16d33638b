"""House rules that no linter knows: sizes, homes of imports and calls, names."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PRODUCT = ("admission", "scheduler", "infra", "worker_image", "owui_pipeline")
FILE_LINES_MAX = 450
# This one is shipped as one file (DESIGN section 9), so it holds several nouns.
SHIPPED_ALONE = {"worker_image/agent.py": 850}
FUNCTION_LINES_MAX = 50
LUA_LINES_MAX = 250
LUA_FUNCTION = re.compile(
    r"^( *)(?:local )?(?:function|\w+ = function)\b(?![^\n]*\bend$).*?^\1end", re.M | re.S
)
HOMELESS_NAMES = {"utils", "helpers", "common", "manager", "misc"}
# A call and the modules in which it belongs (`time` lives in Redis, settings in one module).
HOMES = {
    "os.environ": {"infra/", "worker_image/"},
    "time.time": {
        "admission/auth/",
        "admission/rates.py",
        "infra/demo_model.py",
    },
    "asyncio.sleep": {
        "admission/auth/keyring.py",
        "admission/background.py",
        "admission/directory.py",
        "admission/gateway/tasks.py",
        "admission/audience.py",
        "admission/news.py",
        "admission/store/news.py",
        "infra/",
        "worker_image/",
        "owui_pipeline/",
    },
}


def _files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", _files(*PRODUCT, "tests", "bench"), ids=_relative)
def test_a_file_says_what_it_knows_and_is_read_in_one_sitting(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "the module docstring is missing"
    assert len(text.splitlines()) <= SHIPPED_ALONE.get(_relative(path), FILE_LINES_MAX)
    assert path.stem not in HOMELESS_NAMES


@pytest.mark.parametrize("path", _files(*PRODUCT), ids=_relative)
def test_a_function_fits_on_a_screen(path: Path) -> None:
    functions = (
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    long = [f.name for f in functions if (f.end_lineno or 0) - f.lineno > FUNCTION_LINES_MAX]
    assert not long


@pytest.mark.parametrize("path", _files(*PRODUCT), ids=_relative)
def test_time_sleep_and_environment_stay_where_they_belong(path: Path) -> None:
    calls = {
        ast.unparse(node)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    for call, homes in HOMES.items():
        at_home = any(_relative(path).startswith(home) for home in homes)
        assert at_home or call not in calls, f"{call} belongs in {', '.join(sorted(homes))}"


@pytest.mark.parametrize(("call", "home"), [(c, h) for c in HOMES for h in sorted(HOMES[c])])
def test_a_home_is_lived_in(call: str, home: str) -> None:
    """One that is not is left over, and would let the call come back unnoticed."""
    paths = [path for path in _files(*PRODUCT) if _relative(path).startswith(home)]
    assert any(call in path.read_text() for path in paths)


@pytest.mark.parametrize("path", sorted((ROOT / "admission").rglob("*.lua")), ids=_relative)
def test_a_lua_file_and_its_functions_are_read_in_one_sitting(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LUA_LINES_MAX
    long = [f[0].split("(")[0] for f in LUA_FUNCTION.finditer(text) if f[0].count("\n") > 50]
    assert not long


def test_redis_and_boto3_have_one_home() -> None:
    line = re.compile(r"^(?:from|import) (redis|boto3)\b", re.MULTILINE)
    importing = {_relative(path): line.findall(path.read_text()) for path in _files(*PRODUCT)}
    at_home = "admission/store/"
    assert not [n for n, found in importing.items() if "redis" in found and at_home not in n]
    assert not [n for n, found in importing.items() if "boto3" in found]
