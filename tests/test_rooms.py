"""The rooms of the package: imports point one way, and CONTRIBUTING.md names every room in that order."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "unrolled"

#: A room may import those before it, but for what MAY_NOT_KNOW says.
ROOMS = (
    *("errors", "settings", "lazy", "cache", "cells", "unroll", "layers", "data", "models", "decoding", "metrics"),
    *("training", "tasks", "analysis", "experiments", "bench", "cli"),
)

#: Rooms that stand before in the order, and are none of this one's business all the same.
MAY_NOT_KNOW = {
    "cells": {"cache"},
    "data": {"cells", "unroll", "layers"},
    "decoding": {"cells", "unroll"},
    "metrics": {"cells", "unroll", "layers", "models", "decoding"},
    "training": {"cells", "unroll", "data", "models", "decoding", "metrics"},
    "analysis": {"training", "tasks"},
    "bench": {"data", "models", "decoding", "metrics", "training", "tasks", "analysis", "experiments"},
}

#: The package's doors: what they offer loads on first use.
DOORS = ("__init__", "__main__")


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path):
    """Rooms that a file imports, anywhere in it: within functions and under TYPE_CHECKING, too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            names = [node.module] if node.module != "unrolled" else [f"unrolled.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("unrolled."))


def faults(room, others):
    allowed = {"__version__", room, *ROOMS[: ROOMS.index(room)]} - MAY_NOT_KNOW.get(room, set())
    return sorted(set(others) - allowed)


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if room_of(path) not in DOORS]


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room):
    files = [path for path in FILES if room_of(path) == room]
    assert files
    found = {path.relative_to(PACKAGE).as_posix(): faults(room, imported(path)) for path in files}
    assert {name: others for name, others in found.items() if others} == {}


def test_decoding_knows_the_contract_of_models_alone():
    source = "\n".join(path.read_text("utf-8") for path in (PACKAGE / "decoding").glob("*.py"))
    assert set(re.findall(r"unrolled\.models[\w.]*", source)) == {"unrolled.models.contract"}


def test_an_import_that_points_back_is_found(tmp_path):
    file = tmp_path / "file.py"
    file.write_text(
        "if TYPE_CHECKING:\n    from unrolled import cli\ndef f():\n    import unrolled.tasks.language\n"
        "from unrolled.layers.stack import unstack_states\nfrom unrolled import __version__\n"
    )
    assert faults("training", imported(file)) == ["cli", "tasks"]
    assert faults("data", imported(file)) == ["cli", "layers", "tasks"]


def test_every_room_has_its_place():
    rooms = {
        path.name.removesuffix(".py") for path in PACKAGE.iterdir() if path.suffix == ".py" or list(path.glob("*.py"))
    }
    assert rooms - set(DOORS) == set(ROOMS)


def test_contributing_names_every_room_in_order():
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    rows = re.findall(r"^\| `unrolled/(\w+)(?:\.py|/)` \|", text, re.M)
    assert tuple(rows) == ROOMS


def test_no_two_files_import_each_other():
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
    needs = {name: set(modules(path, names)) - {name} for name, path in names.items()}
    left = dict(needs)
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert left == {}


def modules(path, names):
    """Modules of the package that a file imports by name; a package's own parts are not its."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in inside if name in names)
            if node.module in names and not all(name in names for name in inside):
                yield node.module
