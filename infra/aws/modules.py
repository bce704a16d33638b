"""What a module of ours imports of ours: the part of the code that a function's package holds."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path


def files_of(root: Path, modules: Iterable[str]) -> list[Path]:
    """The files under ``root`` which these modules need: every module they may ever import, also
    in a function, and the data that lies in its package. Imports of type checkers do not count.

    Raises:
        ModuleNotFoundError: one of ``modules`` is not there.
    """
    found: dict[str, Path] = {}
    todo = [*modules]
    for name in todo:
        if _file(root, name) is None:
            raise ModuleNotFoundError(f"there is no module {name} in {root}", name=name)
    while todo:
        name = todo.pop()
        path = _file(root, name)
        if path is None or name in found:
            continue
        found[name] = path
        parent = name.rpartition(".")[0]
        todo += [*([parent] if parent else []), *_imported(ast.parse(path.read_bytes()))]
    packages = [path.parent for path in found.values() if path.name == "__init__.py"]
    data = [file for folder in packages for file in _data(folder)]
    return sorted({*found.values(), *data})


def _file(root: Path, module: str) -> Path | None:
    """Where a module of ours is; None for somebody else's, and for a name in a module."""
    path = root.joinpath(*module.split("."))
    for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
        if file.is_file():
            return file
    return None


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        for other in node.orelse:
            yield from _imported(other)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _imported(child)


def _data(folder: Path) -> Iterator[Path]:
    """What lies there beside code, down to the next package."""
    for path in folder.iterdir():
        if path.name.startswith((".", "__")):
            continue
        if path.is_dir():
            if not (path / "__init__.py").exists():
                yield from _data(path)
        elif path.suffix not in (".py", ".pyc"):
            yield path
