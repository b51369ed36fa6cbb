"""Imports go downward only: the layers of the design, read from the source."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
APP = ROOT / "app"

# The first entry that is the module, or a package around it, counts.
LAYERS = {
    5: ("main", "worker", "cli", "cli_clock", "shop"),
    4: ("api", "runtime", "web"),
    3: (
        "payments",
        "refunds",
        "cycles",
        "test_clock",
        "activation",
        "exports",
        "merchants",
        "notifications",
        "flows",
        "retention",
        "wechat",
    ),
    2: ("providers",),
    1: ("db", "vault", "auth", "events", "realtime", "doorbell", "drain", "metrics"),
    0: ("errors", "money", "clock", "config", "log"),
}
LAYER_OF = {f"app.{name}": layer for layer, names in LAYERS.items() for name in names}

MODULES = sorted(path for path in APP.rglob("*.py") if "node_modules" not in path.parts)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(module: str) -> int | None:
    return LAYER_OF.get(".".join(module.split(".")[:2]))


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """(module of ours, line) for every import, inside functions and type checking too."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # `from app import db` names a module, `from app.db import Database` does not; the longer name tells both.
            names = [f"{origin}.{alias.name}" for alias in node.names] if origin == "app" else [origin]
        else:
            continue
        yield from ((name, node.lineno) for name in names if name.split(".")[0] == "app")


def complaint(path: Path, name: str, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line} imports {name}"


def test_every_module_has_a_layer() -> None:
    beside = {"app", "app.sandbox", "app.local"}
    unplaced = [
        name
        for name in map(module_name, MODULES)
        if layer_of(name) is None and ".".join(name.split(".")[:2]) not in beside
    ]
    assert not unplaced, "add these to LAYERS"


@pytest.mark.parametrize("package", ["app.sandbox"])
def test_the_sandbox_shares_no_code_with_the_rest(package: str) -> None:
    """A signer that is wrong on both sides would pass every test."""
    faults = [
        complaint(path, name, line)
        for path in MODULES
        if f"{module_name(path)}.".startswith(f"{package}.")
        for name, line in imported(path)
        if not f"{name}.".startswith(f"{package}.")
    ]
    assert faults == []


def test_the_local_stack_imports_only_the_lowest_layer() -> None:
    faults = [
        complaint(path, name, line)
        for path in MODULES
        if f"{module_name(path)}.".startswith("app.local.")
        for name, line in imported(path)
        if not f"{name}.".startswith("app.local.") and layer_of(name) != 0
    ]
    assert faults == []


def test_only_the_command_imports_the_sandbox_or_the_local_stack() -> None:
    faults = [
        complaint(path, name, line)
        for path in MODULES
        if layer_of(module_name(path)) is not None and module_name(path) not in ("app.cli", "app.shop")
        for name, line in imported(path)
        if f"{name}.".startswith(("app.sandbox.", "app.local."))
    ]
    assert faults == []


def test_imports_go_downward() -> None:
    """Within one layer a package may use another; upward never."""
    faults = []
    for path in MODULES:
        own = layer_of(module_name(path))
        for name, line in imported(path):
            other = layer_of(name)
            if own is not None and other is not None and other > own:
                faults.append(f"{complaint(path, name, line)}: layer {own} may not know layer {other}")
    assert faults == []


def test_providers_do_not_know_each_other_or_the_database() -> None:
    """Adapters are stateless translators. The registry names them all and is nobody's dependency here."""
    faults = []
    for path in MODULES:
        parts = module_name(path).split(".")
        if parts[:2] != ["app", "providers"] or len(parts) < 3 or not (APP / "providers" / parts[2]).is_dir():
            continue
        own = ".".join(parts[:3])
        shared = {f"app.providers.{name}" for name in ("contract", "transport", "redirect_form", "gateways")}
        for name, line in imported(path):
            if not f"{name}.".startswith(f"{own}.") and name not in shared and layer_of(name) != 0:
                faults.append(complaint(path, name, line))
    assert faults == []
