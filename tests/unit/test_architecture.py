"""The budgets of the source tree. They are loosened only by a decision record in docs/adr."""

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"

MODULE_LINES = 400
FUNCTION_LINES = 60
PROTOCOL_METHODS = 6
PARAMETERS = 7

# Names that say nothing about what is inside.
EMPTY_NAME = re.compile(r"_?(utils?|helpers?|common|base|managers?)")
ENVIRONMENT_READER = "skyspan.app.settings"
PRINTER = "skyspan.cli.views"
PROCESS_STARTER = "skyspan.transports"

READING_THE_ENVIRONMENT = frozenset({"os.environ", "os.environb", "os.getenv", "os.getenvb"})
PRINTING = frozenset({"print", "click.echo", "click.secho", "click.echo_via_pager", "rich.print"}) | {
    f"sys.{stream}.{verb}" for stream in ("stdout", "stderr") for verb in ("write", "writelines", "buffer.write")
}
# import-linter sees `import subprocess`; these ways around it, it cannot see.
STARTING_PROCESSES = frozenset(
    {"asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell", "asyncio.subprocess", "os.popen", "os.system"}
    | {f"os.spawn{way}" for way in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")}
    | {"os.posix_spawn", "os.posix_spawnp"}
)
MUTABLE_LITERALS = (ast.Dict, ast.List, ast.Set, ast.DictComp, ast.ListComp, ast.SetComp)
MUTABLE_CALLS = frozenset(
    {"dict", "list", "set", "bytearray", "defaultdict", "deque", "Counter", "OrderedDict", "ChainMap"}
    | {f"collections.{name}" for name in ("defaultdict", "deque", "Counter", "OrderedDict", "ChainMap")}
)


@dataclass(frozen=True)
class Module:
    """One source file; its path is relative to the folder that holds the packages."""

    path: Path
    text: str

    @cached_property
    def name(self) -> str:
        parts = self.path.with_suffix("").parts
        return ".".join(parts[:-1] if self.is_package else parts)

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    @cached_property
    def nodes(self) -> Sequence[ast.AST]:
        return tuple(ast.walk(self.tree))

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    def inside(self, package: str) -> bool:
        return self.name == package or self.name.startswith(package + ".")

    def breaks(self, line: int, rule: str) -> str:
        """How a violation is shown."""
        return f"src/{self.path}:{line}: {rule}"


Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules_of(source: Path) -> list[Module]:
    paths = sorted((source / "skyspan").glob("**/*.py"))
    return [Module(path.relative_to(source), path.read_text(encoding="utf-8")) for path in paths]


def functions(module: Module) -> Iterator[Function]:
    return (node for node in module.nodes if isinstance(node, Function))


def dotted(node: ast.AST) -> str:
    """`a.b.c` for an expression that reads so, otherwise nothing."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (owner := dotted(node.value)):
        return f"{owner}.{node.attr}"
    return ""


def uses(module: Module, names: frozenset[str]) -> Iterator[tuple[int, str]]:
    """Line and name wherever one of the dotted names is read or imported."""
    for node in module.nodes:
        if isinstance(node, ast.Name | ast.Attribute) and (name := dotted(node)) in names:
            yield node.lineno, name
        elif isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            full = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from ((node.lineno, name) for name in full if name in names)


# The rules: each yields the violations of one module.


def module_length(module: Module) -> Iterator[str]:
    lines = len(module.text.splitlines())
    if lines > MODULE_LINES:
        yield module.breaks(lines, f"{lines} lines, a module may have {MODULE_LINES}")


def function_length(module: Module) -> Iterator[str]:
    for function in functions(module):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > FUNCTION_LINES:
            yield module.breaks(
                function.lineno, f"{function.name} has {lines} lines, a function may have {FUNCTION_LINES}"
            )


def parameter_count(module: Module) -> Iterator[str]:
    for function in functions(module):
        spec = function.args
        named = [parameter.arg for parameter in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)]
        count = len([name for name in named if name not in {"self", "cls"}]) + bool(spec.vararg) + bool(spec.kwarg)
        if count > PARAMETERS:
            yield module.breaks(
                function.lineno, f"{function.name} takes {count} parameters, a function may take {PARAMETERS}"
            )


def protocol_size(module: Module) -> Iterator[str]:
    for node in module.nodes:
        if not isinstance(node, ast.ClassDef):
            continue
        bases = (base.value if isinstance(base, ast.Subscript) else base for base in node.bases)
        methods = {member.name for member in node.body if isinstance(member, Function)}
        if any(dotted(base).split(".")[-1] == "Protocol" for base in bases) and len(methods) > PROTOCOL_METHODS:
            yield module.breaks(
                node.lineno, f"{node.name} has {len(methods)} methods, a protocol may have {PROTOCOL_METHODS}"
            )


def top_level(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run on import and bind module-level names, those under `if`, `try` and `with` too."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With | ast.For | ast.While):
            for block in ("body", "orelse", "finalbody"):
                yield from top_level(getattr(statement, block, []))
            for handler in getattr(statement, "handlers", []):
                yield from top_level(handler.body)


def module_state(module: Module) -> Iterator[str]:
    for statement in top_level(module.tree.body):
        if not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None:
            continue
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        if any(dotted(target) == "__all__" for target in targets):
            continue
        value = statement.value
        called = dotted(value.func) if isinstance(value, ast.Call) else ""
        if isinstance(value, MUTABLE_LITERALS) or called in MUTABLE_CALLS:
            yield module.breaks(
                statement.lineno, "module-level mutable state; wrap it in MappingProxyType, tuple or frozenset"
            )
    for node in module.nodes:
        if isinstance(node, ast.Global):
            yield module.breaks(node.lineno, "`global` makes module-level state; pass the value instead")


def telling_names(module: Module) -> Iterator[str]:
    for part in module.name.split("."):
        if EMPTY_NAME.fullmatch(part):
            yield module.breaks(1, f"'{part}' says nothing about its content; name it for what it does")


def docstrings(module: Module) -> Iterator[str]:
    if ast.get_docstring(module.tree) is None:
        yield module.breaks(1, "a module starts with a docstring")


def environment(module: Module) -> Iterator[str]:
    if module.inside(ENVIRONMENT_READER):
        return
    for line, name in uses(module, READING_THE_ENVIRONMENT):
        yield module.breaks(line, f"{name}: only {ENVIRONMENT_READER} reads the environment")


def printing(module: Module) -> Iterator[str]:
    if module.inside(PRINTER):
        return
    for line, name in uses(module, PRINTING):
        yield module.breaks(line, f"{name}: only {PRINTER} prints")


def processes(module: Module) -> Iterator[str]:
    if module.inside(PROCESS_STARTER):
        return
    for line, name in uses(module, STARTING_PROCESSES):
        yield module.breaks(line, f"{name}: only {PROCESS_STARTER} starts processes")


# What needs the whole tree.


def folders_without_init(source: Path) -> Iterator[str]:
    for folder in sorted({path.parent for path in (source / "skyspan").glob("**/*.py")}):
        if not (folder / "__init__.py").exists():
            yield f"src/{folder.relative_to(source)}/__init__.py:1: a package folder has this file"


def imports_of(module: Module, known: frozenset[str]) -> Iterator[tuple[str, int]]:
    """The modules of ours that this one imports and where, in functions and under TYPE_CHECKING too."""
    package = module.name if module.is_package else module.name.rpartition(".")[0]
    for node in module.nodes:
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{origin}.{alias.name}" for alias in node.names]
            targets = [name if name in known else origin for name in names]
        else:
            continue
        yield from ((target, node.lineno) for target in targets if target in known and target != module.name)


def import_cycles(modules: Sequence[Module]) -> Iterator[str]:
    by_name = {module.name: module for module in modules}
    known = frozenset(by_name)
    lines = {name: dict(imports_of(module, known)) for name, module in by_name.items()}
    while True:
        try:
            TopologicalSorter(lines).prepare()
        except CycleError as error:
            # The sorter's list goes from what is imported to what imports it.
            cycle: list[str] = error.args[1][::-1]
            # Without this edge the next round finds the next cycle.
            line = lines[cycle[0]].pop(cycle[1])
            yield by_name[cycle[0]].breaks(line, f"import cycle: {' -> '.join(cycle)}")
        else:
            return


def assert_none(violations: Iterator[str]) -> None:
    found = list(violations)
    assert not found, "\n" + "\n".join(found)


RULES: tuple[Callable[[Module], Iterator[str]], ...] = (
    module_length,
    function_length,
    parameter_count,
    protocol_size,
    module_state,
    telling_names,
    docstrings,
    environment,
    printing,
    processes,
)


@pytest.fixture(scope="module")
def modules() -> list[Module]:
    return modules_of(SOURCE)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_module_keeps_the_budgets(rule: Callable[[Module], Iterator[str]], modules: list[Module]) -> None:
    assert_none(violation for module in modules for violation in rule(module))


def test_every_package_folder_has_an_init_file() -> None:
    assert_none(folders_without_init(SOURCE))


def test_no_modules_import_each_other_in_a_circle(modules: list[Module]) -> None:
    assert_none(import_cycles(modules))


# The rules themselves: each has to see a planted violation.

LONG_FUNCTION = '"""X."""\ndef f():\n' + "    pass\n" * FUNCTION_LINES
LONG_SIGNATURE = '"""X."""\ndef f(self, a, b, c, *d, e, f, g, **h): ...\n'
LARGE_PROTOCOL = '"""X."""\nclass P(Protocol[T]):\n' + "".join(f"    def m{n}(self): ...\n" for n in range(7))


@pytest.mark.parametrize(
    ("rule", "text", "line"),
    [
        (module_length, "\n" * 401, 401),
        (function_length, LONG_FUNCTION, 2),
        (parameter_count, LONG_SIGNATURE, 2),
        (protocol_size, LARGE_PROTOCOL, 2),
        (module_state, "CACHE = {}", 1),
        (module_state, "try:\n    CACHE: dict[str, str] = dict()\nexcept E:\n    pass", 2),
        (module_state, "def f():\n    global cache", 2),
        (docstrings, "import os", 1),
        (environment, "import os\nhome = os.environ['HOME']", 2),
        (environment, "from os import getenv", 1),
        (printing, "def f():\n    print()", 2),
        (printing, "import sys\nsys.stderr.write('x')", 2),
        (processes, "import asyncio.subprocess", 1),
        (processes, "from asyncio import create_subprocess_exec as run", 1),
    ],
)
def test_a_planted_violation_is_seen(rule: Callable[[Module], Iterator[str]], text: str, line: int) -> None:
    [violation] = rule(Module(Path("skyspan/planted.py"), text))
    assert violation.startswith(f"src/skyspan/planted.py:{line}: ")


@pytest.mark.parametrize(
    ("rule", "path", "text"),
    [
        (module_state, "skyspan/x.py", "__all__ = ['A']\nA = MappingProxyType({})\nB = (1,)\nC = frozenset({1})"),
        (module_state, "skyspan/x.py", "def f():\n    found = []\nclass C:\n    y = {}"),
        (environment, "skyspan/app/settings.py", "import os\nhome = os.environ['HOME']"),
        (printing, "skyspan/cli/views/human.py", "print()"),
        (processes, "skyspan/transports/local.py", "import asyncio.subprocess"),
        (telling_names, "skyspan/database/commonality.py", ""),
    ],
)
def test_what_is_allowed_is_left_alone(rule: Callable[[Module], Iterator[str]], path: str, text: str) -> None:
    assert_none(rule(Module(Path(path), text)))


@pytest.mark.parametrize("path", ["skyspan/utils.py", "skyspan/store/_base.py", "skyspan/common/__init__.py"])
def test_a_name_that_says_nothing_is_seen(path: str) -> None:
    assert list(telling_names(Module(Path(path), "")))


def test_cycles_are_seen_through_functions_relative_and_type_only_imports() -> None:
    a = Module(Path("skyspan/a.py"), "def f():\n    from .b import x")
    b = Module(Path("skyspan/b/__init__.py"), "if TYPE_CHECKING:\n    from skyspan.b import c")
    c = Module(Path("skyspan/b/c.py"), "from .. import a")
    assert len(list(import_cycles([a, b, c]))) == 1
    assert not list(import_cycles([a, b]))


def test_a_folder_without_an_init_file_is_seen(tmp_path: Path) -> None:
    (tmp_path / "skyspan").mkdir()
    (tmp_path / "skyspan" / "x.py").touch()
    assert list(folders_without_init(tmp_path))


def test_a_tree_without_modules_breaks_no_rule(tmp_path: Path) -> None:
    assert modules_of(tmp_path) == []
    assert_none(import_cycles([]))
