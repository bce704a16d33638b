"""House rules that no linter knows: sizes, homes of imports and calls, names."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PRODUCT = ("admission", "scheduler", "infra", "worker_image", "owui_pipeline")
FILE_LINES_MAX = 450
# This one is shipped as one file (DESIGN section 9), so it holds several nouns.
SHIPPED_ALONE = {"worker_image/agent.py": 2020}
FUNCTION_LINES_MAX = 50
LUA_LINES_MAX = 250
LUA_FUNCTION = re.compile(
    r"^( *)(?:local )?(?:function|\w+ = function)\b(?![^\n]*\bend$).*?^\1end", re.M | re.S
)
DOCSTRING = re.compile(r'(?:#.*\n)*r?"""\s*[^\s"]')
HOMELESS_NAMES = {"utils", "helpers", "common", "manager", "misc"}
# A call and the modules in which it belongs (`time` lives in Redis, settings in one module).
HOMES = {
    "os.environ": {"infra/", "worker_image/", "admission/functions.py", "scheduler/functions.py"},
    "time.time": {
        "admission/accounting/",
        "admission/auth/",
        "admission/functions.py",
        "admission/rates.py",
        "infra/demo_model.py",
        "infra/providers/",
    },
    "asyncio.sleep": {
        "admission/accounting/",
        "admission/auth/keyring.py",
        "admission/background.py",
        "admission/client",
        "admission/directory.py",
        "admission/gateway/memory.py",
        "admission/gateway/tasks.py",
        "admission/audience.py",
        "admission/bulletin.py",
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


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def test_a_file_says_what_it_knows_and_is_read_in_one_sitting() -> None:
    wrong = []
    for path in _files(*PRODUCT, "tests", "bench"):
        text = path.read_text()
        name, lines = _relative(path), len(text.splitlines())
        if not DOCSTRING.match(text):
            wrong.append(f"{name}: the module docstring is missing")
        if lines > SHIPPED_ALONE.get(name, FILE_LINES_MAX):
            wrong.append(f"{name}: {lines} lines")
        if path.stem in HOMELESS_NAMES:
            wrong.append(f"{name}: a name that says nothing")
    assert not wrong, "\n".join(wrong)


def test_a_function_fits_on_a_screen() -> None:
    long = [
        f"{_relative(path)}: {node.name}"
        for path in _files(*PRODUCT)
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno > FUNCTION_LINES_MAX
    ]
    assert not long, "\n".join(long)


def test_time_sleep_and_environment_stay_where_they_belong() -> None:
    wrong = []
    for path in _files(*PRODUCT):
        nodes = ast.walk(_tree(path))
        calls = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute)}
        for call in calls & HOMES.keys():
            if not _relative(path).startswith(tuple(HOMES[call])):
                wrong.append(f"{_relative(path)}: {call} belongs in {sorted(HOMES[call])}")
    assert not wrong, "\n".join(wrong)


def test_a_home_is_lived_in() -> None:
    """One that is not is left over, and would let the call come back unnoticed."""
    texts = {_relative(path): path.read_text() for path in _files(*PRODUCT)}
    empty = [
        f"{home}: no {call}"
        for call, homes in HOMES.items()
        for home in homes
        if not any(call in text for name, text in texts.items() if name.startswith(home))
    ]
    assert not empty, "\n".join(empty)


def test_a_lua_file_and_its_functions_are_read_in_one_sitting() -> None:
    wrong = []
    for path in sorted((ROOT / "admission").rglob("*.lua")):
        text, name = path.read_text(), _relative(path)
        if len(text.splitlines()) > LUA_LINES_MAX:
            wrong.append(f"{name}: more than {LUA_LINES_MAX} lines")
        functions = [found[0] for found in LUA_FUNCTION.finditer(text)]
        wrong += [f"{name}: {f.split('(')[0]}" for f in functions if f.count("\n") > 50]
    assert not wrong, "\n".join(wrong)


def test_redis_and_boto3_have_one_home() -> None:
    line = re.compile(r"^(?:from|import) (redis|boto3)\b", re.MULTILINE)
    importing = {_relative(path): line.findall(path.read_text()) for path in _files(*PRODUCT)}
    homes = {"redis": "admission/store/", "boto3": "infra/providers/aws/"}
    for library, home in homes.items():
        assert not [n for n, found in importing.items() if library in found and home not in n]
