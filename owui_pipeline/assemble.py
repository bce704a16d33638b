"""Puts the modules of this package together: one self-contained text for each server.

Open WebUI and the Pipelines server store and execute one file. Each module's own imports go to the
top, the imports between the modules fall away, and the rest stays as it is written.
"""

import ast
import itertools
from collections import Counter
from importlib import resources
from importlib.resources.abc import Traversable
from typing import NamedTuple

SHARED = (
    "languages",
    "words",
    "calls",
    "webui",
    "screen",
    "coming_back",
    "lobby",
    "turn",
    "session",
    "valves",
)
PACKAGE = "owui_pipeline"


def function() -> str:
    """The filter Function for Open WebUI."""
    return assemble(*SHARED, "function")


def pipeline() -> str:
    """The filter for the Pipelines server."""
    return assemble(*SHARED, "remote", "pipeline")


def assemble(*modules: str) -> str:
    """One text: the last module's docstring first, then all imports, then each module's code.

    Raises:
        ValueError: two modules give one name to two things, of which only the later would stay.
    """
    parts = [_parts(resources.files(PACKAGE).joinpath(f"{name}.py")) for name in modules]
    names = Counter(name for part in parts for name in part.names)
    if twice := sorted(name for name, count in names.items() if count > 1):
        raise ValueError(f"more than one of {', '.join(modules)} has: {', '.join(twice)}")
    imports = sorted(set().union(*(part.imports for part in parts)), key=_plain_ones_first)
    top = "\n".join([parts[-1].head, "", *imports])
    bodies = [f"# ---- {part.about} ----\n\n{part.body}" for part in parts]
    return "\n\n\n".join([top, *bodies]) + "\n"


class _Part(NamedTuple):
    head: str  # the docstring as it is written
    about: str  # its first line
    imports: set[str]  # from elsewhere
    names: set[str]  # of its own
    body: str


def _parts(module: Traversable) -> _Part:
    text = module.read_text("utf-8")
    tree = ast.parse(text)
    docstring, *statements = tree.body
    lines, last, imports = text.splitlines(), docstring, set()
    for statement in itertools.takewhile(_is_import, statements):
        last = statement
        imports |= {line for line in _single(statement) if f" {PACKAGE}." not in line}
    return _Part(
        head="\n".join(lines[: docstring.end_lineno]),
        about=(ast.get_docstring(tree) or "").split("\n")[0],
        imports=imports,
        names=set().union(*map(_defined, statements)),
        body="\n".join(lines[last.end_lineno :]).strip("\n"),
    )


def _is_import(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Import | ast.ImportFrom)


def _defined(statement: ast.stmt) -> set[str]:
    """The names that a statement of a module gives to something of its own."""
    match statement:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()


def _single(statement: ast.stmt) -> set[str]:
    """One import for each name, so that two modules may import the same."""
    if isinstance(statement, ast.Import):
        return {f"import {ast.unparse(name)}" for name in statement.names}
    assert isinstance(statement, ast.ImportFrom)
    return {f"from {statement.module} import {ast.unparse(name)}" for name in statement.names}


def _plain_ones_first(line: str) -> tuple[bool, str]:
    return (line.startswith("from"), line)
