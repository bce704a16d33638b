"""Puts the modules of this package together: one self-contained text for each server.

Open WebUI and the Pipelines server store and execute one file. Each module's own imports go to the
top, the imports between the modules fall away, and the rest stays as it is written.
"""

import ast
import itertools
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
    """One text: the last module's docstring first, then all imports, then each module's code."""
    parts = [_parts(resources.files(PACKAGE).joinpath(f"{name}.py")) for name in modules]
    imports = sorted(set().union(*(part.imports for part in parts)), key=_plain_ones_first)
    top = "\n".join([parts[-1].head, "", *imports])
    bodies = [f"# ---- {part.about} ----\n\n{part.body}" for part in parts]
    return "\n\n\n".join([top, *bodies]) + "\n"


class _Part(NamedTuple):
    head: str  # the docstring as it is written
    about: str  # its first line
    imports: set[str]  # from elsewhere
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
        body="\n".join(lines[last.end_lineno :]).strip("\n"),
    )


def _is_import(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Import | ast.ImportFrom)


def _single(statement: ast.stmt) -> set[str]:
    """One import for each name, so that two modules may import the same."""
    if isinstance(statement, ast.Import):
        return {f"import {ast.unparse(name)}" for name in statement.names}
    assert isinstance(statement, ast.ImportFrom)
    return {f"from {statement.module} import {ast.unparse(name)}" for name in statement.names}


def _plain_ones_first(line: str) -> tuple[bool, str]:
    return (line.startswith("from"), line)
