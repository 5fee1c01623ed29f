"""Which modules of the project a module really imports, at its top or inside its functions, directly or not."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent


def _file(module: str) -> Path | None:
    path = ROOT / Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _named(source: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in ("comat", "stages")}


def project_imports(module: str) -> set[str]:
    """Paths, relative to the root, of `module` and of every project module that its import can run.

    Packages that hold nothing but their docstring are left out.
    """
    todo, seen = [module], set()
    while todo:
        name = todo.pop()
        parts = name.split(".")
        for prefix in [".".join(parts[:i]) for i in range(1, len(parts) + 1)]:
            source = _file(prefix)
            if source and source not in seen:
                seen.add(source)
                todo += _named(source)
    return {str(source.relative_to(ROOT)) for source in seen if not _only_a_docstring(source)}


def _only_a_docstring(source: Path) -> bool:
    return source.name == "__init__.py" and len(ast.parse(source.read_text()).body) == 1


def room_of(file: str) -> str:
    """The room that a file of the package stands in: its folder below `comat/`, or itself; the shapes world is two."""
    parts = file.split("/")
    return "/".join(parts[: 3 if parts[1] == "shapes" else 2])


def room_imports() -> dict[str, set[str]]:
    """For each room of `comat/` the other rooms that its files name in an import."""
    rooms: dict[str, set[str]] = {}
    for source in sorted((ROOT / "comat").rglob("*.py")):
        own = room_of(str(source.relative_to(ROOT)))
        found = {_file(name) for name in _named(source)} - {None, ROOT / "comat/__init__.py"}
        named = {room_of(str(file.relative_to(ROOT))) for file in found if not _only_a_docstring(file)}
        rooms.setdefault(own, set()).update(named - {own})
    return rooms
