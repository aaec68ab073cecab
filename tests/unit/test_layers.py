"""The packages form a stack: an import may only point to a package before the importing one."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vggrpo

SOURCE = Path(vggrpo.__file__).parent

LAYERS = (
    "config",
    "io",
    "geometry",
    "flow",
    "backbones",
    "lgm",
    "rewards",
    "rollout",
    "data",
    "world",
    "viewer",
    "evaluation",
    "training",
    "cli",
)

INTERNAL_IMPORTS = {"geometry": set(), "flow": set(), "rewards": {"geometry"}}
"""Packages that know less of the project than their place in the stack would allow."""

EXTERNAL_IMPORTS = {"geometry": {"torch"}, "flow": {"torch"}}
"""Packages that know only these third-party modules."""

NO_TORCH = {"config"}

LONGEST_MODULE = 500


def imported_modules(file: Path, root: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of every import, wherever it stands; `from a import b` counts as a.b."""
    package = [root.name, *file.relative_to(root).parent.parts]
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{prefix}.{alias.name}"


def violations(root: Path) -> list[str]:
    """Every import below the package folder `root` that points against the order of the layers."""
    found = []
    for file in sorted(root.rglob("*.py")):
        relative = file.relative_to(root)
        layer = relative.parts[0] if len(relative.parts) > 1 else None
        if layer is not None and layer not in LAYERS:
            found.append(f"{relative}: {layer} is not one of the layers")
            continue
        for line, name in imported_modules(file, root):
            problem = _problem(layer, name, root)
            if problem:
                found.append(f"{relative}:{line}: {problem}")
    return found


def _problem(layer: str | None, name: str, root: Path) -> str | None:
    top, _, rest = name.partition(".")
    if top != root.name:
        if layer in NO_TORCH and top == "torch":
            return f"{layer} imports torch"
        if layer in EXTERNAL_IMPORTS and top not in EXTERNAL_IMPORTS[layer] | sys.stdlib_module_names:
            return f"{layer} imports {top}"
        return None
    target = rest.split(".")[0]
    if layer is None or target == layer or not (root / target).is_dir():
        return None
    if layer in INTERNAL_IMPORTS and target not in INTERNAL_IMPORTS[layer]:
        return f"{layer} imports {target}"
    if target not in LAYERS or LAYERS.index(target) > LAYERS.index(layer):
        return f"{layer} imports {target}, which comes later"
    return None


def test_every_import_follows_the_order() -> None:
    assert violations(SOURCE) == []


def test_no_module_is_too_long() -> None:
    lengths = {file: len(file.read_text("utf-8").splitlines()) for file in SOURCE.rglob("*.py")}
    assert lengths, "no modules found"
    assert {str(file): length for file, length in lengths.items() if length > LONGEST_MODULE} == {}


@pytest.mark.parametrize(
    ("file", "code", "complaint"),
    [
        ("io/a.py", "from vggrpo.training import x", "io/a.py:1: io imports training, which comes later"),
        ("io/a.py", "import vggrpo.training.losses as t", "io imports training, which comes later"),
        ("io/a.py", "from vggrpo import training", "io imports training, which comes later"),
        ("io/a.py", "from ..training import x", "io imports training, which comes later"),
        ("io/sub/a.py", "from ...training.losses import x", "io imports training, which comes later"),
        ("io/a.py", "def f():\n    from vggrpo.cli import x", "io/a.py:2: io imports cli, which comes later"),
        (
            "io/a.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from vggrpo.training import x",
            "io/a.py:3: io imports training, which comes later",
        ),
        ("rewards/a.py", "from vggrpo.io import x", "rewards imports io"),
        ("geometry/a.py", "from vggrpo.config import x", "geometry imports config"),
        ("flow/a.py", "import numpy as np", "flow imports numpy"),
        ("config/a.py", "import torch.nn", "config imports torch"),
        ("helpers/a.py", "x = 1", "helpers is not one of the layers"),
    ],
)
def test_planted_violations_are_found(tmp_path: Path, file: str, code: str, complaint: str) -> None:
    root = tmp_path / "vggrpo"
    for layer in LAYERS:
        (root / layer).mkdir(parents=True)
        (root / layer / "__init__.py").touch()
    assert violations(root) == []
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(code)
    assert len(violations(root)) == 1
    assert complaint in violations(root)[0]


def test_allowed_imports_are_no_violations(tmp_path: Path) -> None:
    root = tmp_path / "vggrpo"
    for file, code in {
        "__init__.py": "from vggrpo.cli import x",
        "config/a.py": "import yaml\nfrom vggrpo import __version__",
        "geometry/a.py": "import math\nimport torch\nfrom . import b\nfrom vggrpo.geometry.c import d",
        "rewards/a.py": "from vggrpo.geometry import x",
        "training/a.py": "from ..io import x\nimport diffusers",
    }.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(code)
    assert violations(root) == []


def modules_loaded_by(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after it ran `code`."""
    code += "\nimport sys\nprint('\\n'.join({name.split('.')[0] for name in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "from vggrpo.cli.main import main\nassert main(['--help']) == 0",
        "from vggrpo.cli.main import main\nassert main(['world', '--help']) == 0",
        "import vggrpo.config",
        "import vggrpo.io",
        "import vggrpo.cli.recipes",
    ],
)
def test_light_parts_load_nothing_heavy(code: str) -> None:
    heavy = {"torch", "diffusers", "transformers", "matplotlib", "cv2", "av", "scipy"}
    assert modules_loaded_by(code) & heavy == set()
