"""The walls of the house, read from the source: imports go down, siblings are strangers, pure layers stay light."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "nemo_duplex"
LAYERS = [
    "clock tokens state nemo_registration",
    "streams config",
    "data modules losses metrics",
    "streaming parts",
    "models",
    "serve",
    "__main__",
]
RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row.split()}
SIBLINGS = set(LAYERS[2].split())
PURE = ["clock", "tokens", "state", "streams", "config", "data.timeline", "data.text_stream", "metrics"]
HEAVY = ["nemo", "megatron", "transformers", "lightning"]
FORBIDDEN = {
    r"\bcfg\.get\(|getattr\((self\.)?cfg": "a default at the point of use (defaults stand in config.py)",
    r"except( Exception| BaseException)?\s*:": "a broad except",
    r"^[^#]*\b(16000|22050|0\.08)\b": "a rate outside clock.py and config.py",
    r"torch\.load\((?!.*weights_only=True)": "torch.load without weights_only=True",
    r"[\"'`]/(tmp|home|root|mnt)/": "a machine's path",
}
MAX_FILE_LINES, MAX_FUNCTION_LINES, MAX_ARGUMENTS = 500, 75, 8

FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in MODULES.items()}


def imports(module: str) -> set[str]:
    """Everything that a module imports at any depth of its code, by full name."""
    found = set()
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import; write nemo_duplex in full"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def own_imports(module: str) -> set[str]:
    return {name for name in imports(module) if name in MODULES} - {module}


def layer(module: str) -> str:
    """First part of the name below the package; empty for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def functions(module: str):
    return [node for node in ast.walk(TREES[module]) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("module", [module for module in MODULES if layer(module)])
def test_imports_go_down(module):
    assert layer(module) in RANK, f"{module} is in no layer: add it to design and to LAYERS"
    for other in own_imports(module) - {"nemo_duplex"}:
        mine, theirs = layer(module), layer(other)
        assert RANK[theirs] <= RANK[mine], f"{module} imports up: {other}"
        assert mine == theirs or not {mine, theirs} <= SIBLINGS, f"{module} imports a sibling: {other}"


def test_no_cycles():
    graph = {module: own_imports(module) for module in MODULES}
    while graph:
        free = [module for module, others in graph.items() if not others & graph.keys()]
        assert free, f"these modules import each other: {sorted(graph)}"
        for module in free:
            del graph[module]


def test_megatron_is_imported_in_one_file():
    users = [module for module in MODULES if any(name.split(".")[0] == "megatron" for name in imports(module))]
    assert len(users) <= 1, f"megatron is imported in {users}: one file only, because its names move"


@pytest.mark.parametrize("module", MODULES)
def test_house_rules(module):
    lines = MODULES[module].read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MAX_FILE_LINES, f"{module}: {len(lines)} lines"
    if MODULES[module].name != "__init__.py":
        assert ast.get_docstring(TREES[module]), f"{module} has no docstring"
    for node in functions(module):
        size, arguments = node.end_lineno - node.lineno + 1, len(node.args.args) + len(node.args.kwonlyargs)
        own = arguments - (bool(node.args.args) and node.args.args[0].arg in ("self", "cls"))
        assert size <= MAX_FUNCTION_LINES, f"{module}.{node.name}: {size} lines"
        assert own <= MAX_ARGUMENTS, f"{module}.{node.name}: {own} arguments"


@pytest.mark.parametrize("module", [module for module in MODULES if layer(module) not in ("clock", "config")])
def test_no_forbidden_habits(module):
    for number, line in enumerate(MODULES[module].read_text(encoding="utf-8").splitlines(), 1):
        for pattern, habit in FORBIDDEN.items():
            assert not re.search(pattern, line), f"{module}:{number}: {habit}: {line.strip()}"


def test_pure_layers_import_nothing_heavy():
    """In one fresh process, one module after the other, so that the first to blame is named."""
    names = {"nemo_duplex", *(f"nemo_duplex.{name}" for name in PURE)}
    assert names <= MODULES.keys()
    wanted = [module for module in MODULES if module in names or module.startswith("nemo_duplex.metrics.")]
    script = (
        "import importlib, sys\n"
        f"for name in {wanted!r}:\n"
        "    importlib.import_module(name)\n"
        f"    heavy = sorted(set({HEAVY!r}).intersection(sys.modules))\n"
        "    assert not heavy, f'importing {name} imports {heavy}'\n"
    )
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr.strip().splitlines()[-1]
