"""Rules for the whole project, read from its files."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

TOP_LEVEL = {
    *("pyproject.toml", "README.md", "app", "sql", "tests", "Dockerfile", "schema.graphql"),
    *("Makefile", "compose.yaml", ".ci", ".gitignore", ".dockerignore", ".env.example", "LICENSE", "docs"),
    *("requirements.lock", "requirements-local.lock", "requirements-dev.lock"),
}
BANNED_NAMES = {"util", "utils", "helper", "helpers", "common", "manager", "managers", "service", "services", "misc"}
BINARY = {".png", ".jpg", ".ico", ".woff2", ".gz", ".p12", ".der"}


@cache
def project_files() -> tuple[Path, ...]:
    """What belongs to the project: tracked files, and new ones that are not ignored."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    if listed.returncode != 0:  # an archive of the project, without its history
        made = {".venv", ".local", "node_modules", "built", "__pycache__", ".git"}
        return tuple(p for p in ROOT.rglob("*") if p.is_file() and not made & set(p.relative_to(ROOT).parts))
    return tuple(path for line in listed.stdout.splitlines() if (path := ROOT / line).is_file())


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(text_of(path), str(path))


def shown(path: Path, line: int = 0) -> str:
    return f"{path.relative_to(ROOT)}:{line}" if line else str(path.relative_to(ROOT))


def python_files(*folders: str) -> list[Path]:
    return [path for path in project_files() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in folders]


def code_strings(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """String constants that are not docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value, node.lineno


def test_the_top_level_is_the_designs() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in project_files()} - TOP_LEVEL == set()


def test_no_package_registry_is_named_anywhere() -> None:
    hosts = ["registry" + ".npm", "npm" + "js.", "pypi" + ".", "python" + "hosted", "npm" + "mirror", "mirrors" + "."]
    pattern = re.compile("|".join(map(re.escape, hosts)))
    faults = [
        shown(path, number)
        for path in project_files()
        if path.suffix not in BINARY
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if pattern.search(line)
    ]
    assert faults == []


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    pattern = re.compile(
        r"(?<![\w.])/(?:" + "|".join(["work", "home", "Users"]) + r")/[a-z]|/" + r"root/|/" + "tmp/brief"
    )
    faults = [
        shown(path, number)
        for path in project_files()
        if path.suffix not in BINARY and path.name != "package-lock.json"
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if pattern.search(line)
    ]
    assert faults == []


def test_names_say_what_is_inside() -> None:
    faults = [
        shown(path)
        for path in project_files()
        if {part.split(".")[0] for part in path.relative_to(ROOT).parts} & BANNED_NAMES
    ]
    assert faults == []


def test_every_module_says_what_it_decides() -> None:
    faults = [
        shown(path)
        for path in python_files("app", "tests")
        if text_of(path).strip() and not ast.get_docstring(parsed(path))
    ]
    assert faults == []


def test_functions_fit_on_a_screen() -> None:
    faults = [
        f"{shown(path, node.lineno)} {node.name}: {length} lines"
        for path in python_files("app")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or node.lineno) - node.lineno + 1) > 50
    ]
    assert faults == []


def test_sql_stands_in_sql() -> None:
    """Except for what runs before any file of ours applies: migrations' own table, the embedded server's setup."""
    own = {"app/db.py", "app/local/postgres.py"}
    statement = re.compile(
        r"\s*(select\s.+\sfrom\s|insert\s+into\s|update\s+\S+\s+set\s|delete\s+from\s|create\s+table\s)",
        re.IGNORECASE | re.DOTALL,
    )
    faults = [
        shown(path, line)
        for path in python_files("app")
        if shown(path) not in own
        for text, line in code_strings(parsed(path))
        if statement.match(text)
    ]
    assert faults == []


def test_every_advisory_lock_has_a_number_of_its_own() -> None:
    """Activation once waited for the relay's lock, which is held as long as any process runs."""
    numbers = [
        re.sub("_", "", number)
        for path in project_files()
        if path.suffix in (".py", ".sql") and path.relative_to(ROOT).parts[0] in ("app", "sql")
        for number in re.findall(r"\b5_?346_?700_?\d{3}\b", text_of(path))
    ]
    assert len(numbers) == len(set(numbers)) >= 3


def test_time_comes_from_the_clock() -> None:
    """The sandbox has a clock of its own, because it shares no code with the rest."""
    own = ("app/clock.py", "app/sandbox/")
    calls = {"now", "utcnow", "today"}
    faults = [
        shown(path, node.lineno)
        for path in python_files("app")
        if not shown(path).startswith(own)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Attribute)
        and node.attr in calls
        and isinstance(node.value, ast.Name)
        and node.value.id in ("datetime", "date")
    ]
    assert faults == []


def test_money_is_never_a_float() -> None:
    """No conversion, annotation or division beside a name that holds an amount; no float at all in app/money.py."""
    amount = re.compile(r"(^|_)(fen|yuan|amount|price|total)($|_)")
    faults = []
    for path in python_files("app"):
        for node in ast.walk(parsed(path)):
            if (
                isinstance(node, ast.AnnAssign | ast.arg)
                and node.annotation is not None
                and "float" in ast.unparse(node.annotation)
            ):
                name = node.arg if isinstance(node, ast.arg) else ast.unparse(node.target)
                touched = bool(amount.search(name))
            elif (isinstance(node, ast.Call) and ast.unparse(node.func) == "float") or (
                isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)
            ):
                touched = any(amount.search(each.id) for each in ast.walk(node) if isinstance(each, ast.Name))
            elif isinstance(node, ast.Constant):
                touched = path.name == "money.py" and isinstance(node.value, float)
            else:
                continue
            if touched:
                faults.append(f"{shown(path, node.lineno)} {ast.unparse(node)}")
    assert faults == []


def test_exceptions_to_the_rules_give_their_reason() -> None:
    """`# type: ignore[code]  # why` and `# noqa: CODE  # why`; a TODO names an issue; nothing is left to fix."""
    bare = re.compile(r"#\s*(type:\s*ignore(\[[^\]]*\])?|noqa(:\s*[A-Z0-9, ]+)?)\s*$")
    unowned = re.compile(r"\b(TODO(?!\s*\(?#\d)|FIX" + r"ME)\b")
    faults = [
        f"{shown(path, number)} {line.strip()}"
        for path in python_files("app", "tests")
        if path != Path(__file__)
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if bare.search(line) or unowned.search(line)
    ]
    assert faults == []


def test_the_example_names_every_setting_and_no_other() -> None:
    example = set(re.findall(r"^#?([A-Z][A-Z_]+)=", text_of(ROOT / ".env.example"), flags=re.MULTILINE))
    read = {
        node.args[0].value
        for node in ast.walk(parsed(ROOT / "app" / "config.py"))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "env"
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    # The command and the compose file read these themselves.
    assert example - {"POSTGRES_PASSWORD", "SANDBOX_NOTIFY_HOSTS"} == read


def test_pins_are_exact_and_the_locks_hold_them() -> None:
    project = tomllib.loads(text_of(ROOT / "pyproject.toml"))
    runtime = project["project"]["dependencies"]
    groups = project["dependency-groups"]
    local = [*runtime, *groups["local"]]
    dev = [*local, *(line for line in groups["dev"] if isinstance(line, str))]
    for lock, wanted in (("", runtime), ("-local", local), ("-dev", dev)):
        locked = text_of(ROOT / f"requirements{lock}.lock")
        held = set(re.findall(r"^([\w.-]+==[^\s;]+)", locked, flags=re.MULTILINE))
        pins = {line.partition(";")[0].strip() for line in wanted}
        assert all("==" in pin for pin in pins)
        assert pins - held == set(), f"requirements{lock}.lock is old: make lock"
        assert len(re.findall(r"^[\w.-]+==[^\\]*\\\n\s+--hash=", locked, flags=re.MULTILINE)) == len(held)


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-local.lock", "requirements-dev.lock"])
def test_locks_hold_no_addresses(name: str) -> None:
    assert "://" not in text_of(ROOT / name)


def test_the_images_sources_exist_and_reach_the_builder() -> None:
    docker = text_of(ROOT / "Dockerfile").replace("\\\n", " ")
    allowed = {line[1:] for line in text_of(ROOT / ".dockerignore").splitlines() if line.startswith("!")}
    copied = [
        source
        for line in docker.splitlines()
        if line.startswith("COPY ") and "--from=" not in line
        for source in line.split()[1:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in allowed, f"{source} is kept from the builder by .dockerignore"


def test_the_image_runs_as_nobody_in_particular_and_reports_its_health() -> None:
    final = text_of(ROOT / "Dockerfile").rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001$", final, flags=re.MULTILINE)
    assert "/healthz" in final
    assert re.search(r'^ENTRYPOINT \["shouyin"\]$', final, flags=re.MULTILINE)


def test_the_compose_file_starts_every_part_from_the_one_image() -> None:
    text = text_of(ROOT / "compose.yaml")
    services = re.findall(r"^  (\w+):\n(?=    )", text[text.index("\nservices:") :], flags=re.MULTILINE)
    assert services == ["postgres", "redis", "migrate", "api", "worker", "sandbox"]
    for part in ("migrate", "serve", "worker", "sandbox"):
        assert f'command: ["{part}"]' in text
    assert "profiles: [sandbox]" in text
    assert len(re.findall(r"^\s+image: ", text, flags=re.MULTILINE)) == 3
