"""The house rules: quick imports, small files, true links, no traces of one machine, commands in the docs that exist."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository (untracked new ones too, ignored ones not)."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return sorted({ROOT / name for name in listed if name and (ROOT / name).is_file()})


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def frustum(*words: str) -> str:
    return f"import sys; sys.argv = ['frustum', *{list(words)!r}]; from frustum.cli.main import main; main()"


# ---- speed of the first answer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [None, ("--help",), ("list",), ("train", "--help"), ("--version",)], ids=lambda w: " ".join(w or ("import",))
)
def test_answers_without_torch(words: tuple[str, ...] | None) -> None:
    heavy = "('torch', 'numba', 'scipy', 'matplotlib', 'accelerate')"
    report = f"import sys, atexit; atexit.register(lambda: print('HEAVY', [m for m in {heavy} if m in sys.modules], file=sys.stderr))\n"
    result = python(report + ("import frustum; frustum.__version__" if words is None else frustum(*words)))
    assert result.returncode == 0, result.stderr
    assert "HEAVY []" in result.stderr


@pytest.mark.parametrize("words", [("--help",), ("list",)], ids=" ".join)
def test_answers_in_half_a_second(words: tuple[str, ...]) -> None:
    """Processor time, the best of three. What the command line's own libraries take, 0.17 s on an idle core, says how busy this one is."""
    spent: dict[str, list[float]] = {"import typer, rich.table, pydantic": [], frustum(*words): []}
    for code, seconds in [*spent.items()] * 3:
        before = os.times()
        assert python(code).returncode == 0
        after = os.times()
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    libraries, ours = map(min, spent.values())
    assert ours < 0.5 * max(1, libraries / 0.17)


def test_public_names_are_lazy_and_real() -> None:
    import frustum as package

    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        package.nonsense  # noqa: B018


# ---- sizes ----------------------------------------------------------------------------------------------------------------------


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_file_over_500_lines() -> None:
    large = {str(path.relative_to(ROOT)): lines(path) for path in tracked("*.py") if lines(path) > 500}
    assert not large


def test_median_file_is_small() -> None:
    sizes = sorted(lines(path) for path in tracked("frustum/*.py") if path.name != "__init__.py")
    assert sizes[len(sizes) // 2] <= 150


def test_tests_are_in_proportion() -> None:
    source, tests = (sum(lines(path) for path in tracked(pattern)) for pattern in ("frustum/*.py", "tests/*.py"))
    assert tests >= 0.6 * source


# ---- what may not stand in the files --------------------------------------------------------------------------------------------


def test_no_paths_of_one_machine_and_no_package_index() -> None:
    pattern = re.compile(r"(?:^|[^\w./-])/(?:home|root|Users|work|mnt)/\w|(?:index|find)-(?:url|links)")
    found = []
    for path in tracked():
        if path.suffix in {".npz", ".png", ".jpg", ".safetensors", ".gz"} or path.name == "LICENSE":
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert not found


def test_no_unfinished_work() -> None:
    words = re.compile(r"\b(?:TO" r"DO|FIX" r"ME|XX" r"X|NotImplemented" r"Error)\b")
    found = [
        f"{path.relative_to(ROOT)}:{i}"
        for path in tracked("*.py")
        for i, line in enumerate(path.open(encoding="utf-8"), 1)
        if words.search(line)
    ]
    assert not found


def test_no_large_or_private_files() -> None:
    most = {ROOT / "frustum" / "weights" / "heads": 8 * 2**20}  # networks of head swapping, which nobody publishes
    assert not [path for path in tracked() if path.stat().st_size > most.get(path.parent, 2**20)]
    assert not [path for path in tracked() if path.suffix in {".pth", ".pt", ".pkl", ".ckpt"}]


def test_no_unsafe_loading() -> None:
    """np.load with pickles, torch.load of anything but tensors, and pickle itself stay out of the package."""
    found = []
    for path in tracked("frustum/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                options = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
                owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
                if owner == "torch" and node.func.attr == "load" and options.get("weights_only") is not True:
                    found.append(f"{path.name}:{node.lineno} torch.load without weights_only=True")
                if owner == "np" and node.func.attr == "load" and options.get("allow_pickle", False) is not False:
                    found.append(f"{path.name}:{node.lineno} np.load with allow_pickle")
                if owner == "pickle" and node.func.attr in {"load", "loads"}:
                    found.append(f"{path.name}:{node.lineno} pickle")
    assert not found


# ---- documents -------------------------------------------------------------------------------------------------------------------


def markdown() -> list[Path]:
    return tracked("*.md")


def test_links_resolve() -> None:
    broken = []
    for page in markdown():
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if target.startswith(("http://", "https://", "mailto:", "#")):
                continue
            if not (page.parent / target.split("#")[0]).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken


def test_pages_exist() -> None:
    pages = ("README.md", "CONTRIBUTING.md", "LICENSE", "docs/conventions.md", "docs/data.md", "docs/your_own_cameras.md")
    for name in (*pages, "docs/add_a_method.md", "docs/methods/flashocc.md"):
        assert (ROOT / name).stat().st_size > 500, name


def documented_commands() -> list[tuple[str, list[str]]]:
    """Every `frustum ...` and `make ...` line inside a code block of the docs."""
    found = []
    for page in markdown():
        for block in re.findall(r"```(?:bash|sh|console)?\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S):
            for line in block.replace("\\\n", " ").splitlines():
                words = line.split("#")[0].removeprefix("$ ").split()
                if words and words[0] in {"frustum", "make"}:
                    found.append((f"{page.name}: {' '.join(words)}", words))
    return found


def test_documented_commands_exist() -> None:
    """Verbs, options and make targets that the docs show are those that exist."""
    from typer.main import get_command

    from frustum.cli.main import app

    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    commands = documented_commands()
    assert len(commands) >= 10
    for where, words in commands:
        if words[0] == "make":
            assert next(w for w in words[1:] if "=" not in w) in targets, where
            continue
        node, rest = get_command(app), words[1:]
        while rest and not rest[0].startswith("-") and hasattr(node, "commands"):
            assert rest[0] in node.commands, where
            node, rest = node.commands[rest[0]], rest[1:]
        options = {flag for parameter in node.params for flag in (*parameter.opts, *parameter.secondary_opts)} | {"--help", "--debug"}
        for word in rest:
            if word.startswith("--"):
                assert word.split("=")[0] in options, f"{where}: no option {word}"


def test_every_recipe_has_a_page_and_a_proof() -> None:
    for path in (ROOT / "frustum" / "recipes").glob("*.py"):
        if path.stem in {"__init__", "finding", "published"}:
            continue
        assert (ROOT / "frustum" / "models" / path.name).exists()
        pages = {path.stem, path.stem.partition("_")[0]}  # the two networks of HeSer share a page
        assert any((ROOT / "docs" / "methods" / f"{page}.md").exists() for page in pages)
        assert (ROOT / "tests" / "models" / f"test_{path.stem}.py").exists()


def test_project_file() -> None:
    tomllib = pytest.importorskip("tomllib", reason="tomllib came with Python 3.11")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    names = {re.split(r"[<>=;\[ ]", line)[0] for line in project["project"]["dependencies"]}
    pinned = {re.split(r"[<>=;\[ ]", line)[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"}
    assert names <= pinned, "every direct dependency has a tested version in constraints.txt"
    assert "torchvision" not in names
