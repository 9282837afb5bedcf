"""Print how large the rooms are: modules, folders, files, who imports whom, and callable aliases.

python .ci/sizes.py [FOLDER]      FOLDER holds the package `servingd`; default: this checkout
"""

from __future__ import annotations

import ast
import collections
import re
import sys
from pathlib import Path

GENERATED = "_pb"
ALIAS = re.compile(r'^[A-Z]\w*(?:: TypeAlias)? = "?Callable\b', re.MULTILINE)
DEFAULT_LAMBDA = re.compile(r"[:\w\]] = lambda\b")


def modules(root: Path) -> dict[str, Path]:
    """Every module by its dotted name, but for those that are generated."""
    found = {}
    for path in sorted(root.joinpath("servingd").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if GENERATED not in parts:
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def importers(known: dict[str, Path]) -> dict[str, set[str]]:
    """By module, who imports it."""
    found: dict[str, set[str]] = collections.defaultdict(set)
    for name, path in known.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                for target in (node.module, *(f"{node.module}.{a.name}" for a in node.names)):
                    if target in known and target != name:
                        found[target].add(name)
    return found


def entries(folder: Path) -> int:
    """What one sees in a folder, but for caches and `__init__`."""
    hidden = {"__pycache__", "__init__.py", "py.typed"}
    return sum(1 for entry in folder.iterdir() if entry.name not in hidden)


def main(root: Path) -> None:
    """Print the sizes."""
    known = modules(root)
    own = {n: p for n, p in known.items() if p.name != "__init__.py"}
    lines = {name: len(path.read_text().splitlines()) for name, path in own.items()}
    text = {name: path.read_text() for name, path in own.items()}
    by = importers(known)
    single = [name for name in own if len(by[name]) == 1]
    folders = {path.parent for path in own.values()}
    sizes = sorted(((entries(f), str(f.relative_to(root))) for f in folders), reverse=True)
    longest = sorted(((count, name) for name, count in lines.items()), reverse=True)
    away = [n for n in single if next(iter(by[n])).rpartition(".")[0] != n.rpartition(".")[0]]
    server = ast.parse(known["servingd.server"].read_text())
    imported = {n.module for n in ast.walk(server) if isinstance(n, ast.ImportFrom)}
    rows = [
        ("modules", len(own)),
        ("packages", len(folders)),
        ("lines", sum(lines.values())),
        ("entries of the largest folders", ", ".join(f"{n} {f}" for n, f in sizes[:4])),
        ("longest files", ", ".join(f"{n} {m}" for n, m in longest[:4])),
        ("files over 400 lines", sum(count > 400 for count in lines.values())),
        ("files under 50 lines", sum(count < 50 for count in lines.values())),
        ("modules with one importer", len(single)),
        ("... which lies in another package", len(away)),
        ("callable aliases", sum(len(ALIAS.findall(t)) for t in text.values())),
        ("lambdas as defaults", sum(len(DEFAULT_LAMBDA.findall(t)) for t in text.values())),
        ("modules that server.py imports", len({m for m in imported if m and "servingd" in m})),
        ("lines of server.py", lines["servingd.server"]),
    ]
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        print(f"{label:<{width}}  {value}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1])
