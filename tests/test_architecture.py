"""Who may import whom, and the other rules that keep the house in shape."""

import ast
import re
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "curation": {"curation"},
    "filters": {"filters", "curation"},
    "captioning": {"captioning", "curation"},
    "training": {"training", "curation"},
    "pipelines": {"pipelines", "filters", "captioning", "training", "curation"},
}
FILES = sorted(path for folder in MAY_IMPORT for path in (ROOT / folder).rglob("*.py"))
NO_PLACE = {"utils", "util", "helpers", "helper", "common", "misc"}
NAMES = [str(path.relative_to(ROOT)) for path in FILES]


def module_of(path: Path) -> str:
    """A file's dotted module name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    """The dotted modules that a file imports; type-checking blocks and functions too unless `top_level_only`."""
    tree = ast.parse(path.read_text("utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(names: set[str]) -> set[str]:
    """Those of `names` that are modules of the five folders."""
    return {name for name in names if name in MODULES}


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_arrows_only_fall(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    tops = {name.split(".")[0] for name in imports(path)}
    assert tops & MAY_IMPORT.keys() <= MAY_IMPORT[folder]
    assert "tests" not in tops
    assert "benchmarks" not in tops


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_line_one_is_a_one_sentence_docstring(path: Path) -> None:
    first = path.read_text("utf-8").splitlines()[0]
    assert re.fullmatch(r'"""\S.*[.:](""")?', first), first  # more may follow below


def test_no_import_circle() -> None:
    assert circle({name: ours(imports(path, top_level_only=True)) - {name} for name, path in MODULES.items()}) is None
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) is not None


def circle(graph: dict[str, set[str]]) -> list[str] | None:
    """The modules of an import circle, if there is one."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as found:
        return list(found.args[1])
    return None


MEDIA = re.compile(r"\bav\.open\b|\bVideoCapture\b|\bdecord\b|\bopen_video\b|\bVideoStreamCv2\b|\bVideoStreamAv\b|\bread_videos\b|\bimageio\b")


def code_of(path: Path) -> str:
    """A file's code without comments and docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


@pytest.mark.parametrize("path", [path for path in FILES if path != ROOT / "curation/video.py"], ids=[name for name in NAMES if name != "curation/video.py"])
def test_only_video_py_opens_media(path: Path) -> None:
    code = code_of(path)
    assert not MEDIA.search(code)
    assert not ("subprocess" in code and re.search(r"""['"](ffmpeg|ffprobe)\b""", code))
    assert "from av import" not in code


def test_pipelines_shadow_no_standard_library_module() -> None:
    assert {path.stem for path in (ROOT / "pipelines").glob("*.py")} & sys.stdlib_module_names == set()


def test_every_data_file_is_packaged() -> None:
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["package-data"]
    for folder in MAY_IMPORT:
        data = [path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
        assert [path for path in data if not any(path.match(pattern) for pattern in packaged.get(folder, []))] == []


def test_no_drawer_for_everything() -> None:
    assert [name for name in NAMES if set(Path(name).with_suffix("").parts) & NO_PLACE] == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_nothing_is_evaluated_or_swallowed(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec"}, f"line {node.lineno}"
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            passed_on = any(isinstance(inner, ast.Raise) or _is_handed_on(inner, node.name) for inner in ast.walk(node))
            assert passed_on or caught not in {"everything", "Exception", "BaseException"}, f"line {node.lineno}"


def _is_handed_on(node: ast.AST, caught: str | None) -> bool:
    """Whether it is `future.set_exception(caught)`: whoever waits for the future raises it, in another thread."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "set_exception"):
        return False
    return [ast.unparse(argument) for argument in node.args] == [caught]
