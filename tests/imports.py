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
    """Paths, relative to the root, of `module` and of every project module that its import can run."""
    todo, seen = [module], set()
    while todo:
        name = todo.pop()
        parts = name.split(".")
        for prefix in [".".join(parts[:i]) for i in range(1, len(parts) + 1)]:
            source = _file(prefix)
            if source and source not in seen:
                seen.add(source)
                todo += _named(source)
    return {str(source.relative_to(ROOT)) for source in seen}
