"""Reads the floor plan out of ARCHITECTURE.md, and out of the sources the imports to hold against it."""

import ast
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "lastcall"
SOURCES = ROOT / "src" / PACKAGE
# The version file stands at the very top: it imports nothing, and everything may import it.
ABOVE_ALL = [f"{PACKAGE}._version"]
# `python -m lastcall` stands below everything: nobody imports it.
BELOW_ALL = [f"{PACKAGE}.__main__"]


@dataclass(frozen=True)
class Import:
    """One import statement of one module."""

    module: str  # who imports
    target: str  # the module imported, as far down as it is a module of ours
    line: int
    in_function: bool
    for_types: bool  # under `if TYPE_CHECKING:`, so that it never runs

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"

    @property
    def root(self) -> str:
        return self.target.split(".")[0]


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    return {dotted_name(path): path for path in sorted(SOURCES.rglob("*.py"))}


def dotted_name(path: Path) -> str:
    """`src/lastcall/_core/_plan.py` is `lastcall._core._plan`, and an `__init__.py` is its package."""
    parts = path.relative_to(SOURCES.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def planned(page: str) -> list[str]:
    """The modules and packages that the page's layout lists, from the top down.

    A package whose files are listed one by one stands below the last of them, because its `__init__` may
    gather them up; and the package itself, `lastcall`, stands below the core that it re-exports.
    """
    listing = page.split("## Layout", 1)[1].split("```")[1]
    plan: list[str] = list(ABOVE_ALL)
    folders: list[tuple[int, str]] = []
    for line in listing.splitlines():
        if not line.strip() or line.startswith("src/"):
            continue
        depth, entry = len(line) - len(line.lstrip()), line.split()[0]
        if not entry.endswith((".py", "/")):
            continue
        while folders and folders[-1][0] >= depth:
            plan.append(folders.pop()[1])
        name = ".".join([folders[-1][1] if folders else PACKAGE, entry.removesuffix("/").removesuffix(".py")])
        if entry.endswith("/"):
            folders.append((depth, name))
        else:
            plan.append(name)
    plan.extend(name for _, name in reversed(folders))
    plan.insert(plan.index(f"{PACKAGE}._core") + 1, PACKAGE)
    return plan + BELOW_ALL


def place(module: str, plan: list[str]) -> str | None:
    """The entry of the plan a module belongs to: its own line, or that of the nearest package above it."""
    name = module
    while name != PACKAGE:
        if name in plan:
            return name
        name = name.rpartition(".")[0]
    return PACKAGE if module == PACKAGE else None


def imports(module: str, path: Path, known: set[str]) -> list[Import]:
    """Every import of a module, those inside functions and under `if TYPE_CHECKING:` included and marked."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: list[Import] = []

    def visit(node: ast.AST, in_function: bool, for_types: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(
                Import(module, alias.name, node.lineno, in_function, for_types) for alias in node.names
            )
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            for alias in node.names:
                submodule = f"{base}.{alias.name}"
                target = submodule if submodule in known else base
                found.append(Import(module, target, node.lineno, in_function, for_types))
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in node.body:
                visit(child, in_function, True)
            for child in node.orelse:
                visit(child, in_function, for_types)
            return
        inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside, for_types)

    visit(tree, in_function=False, for_types=False)
    return found


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])
