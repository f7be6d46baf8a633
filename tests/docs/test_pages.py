"""What README.md and the pages in docs/ tell readers to type: it runs, or it is listed here why it cannot."""

import glob
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import matplotlib.pyplot
import pytest
from cyclopts import CycloptsError
from tests.docs import stand_ins
from tests.docs.pages import PAGES, REPOSITORY, Block, blocks, commands, quoted

import lsi
from lsi.cli import main
from lsi.cli.app import app

# Commands that are parsed but not run, by what they match.
NOT_RUN = {
    "--ray": "needs the extra `ray`; tests/execution/test_ray_cluster.py runs it where that is installed",
    "--dataset cifar": "needs archives of 160 MB; tests/cli/test_original_commands.py has small ones",
    "--text-column|--encoder A": "needs a pretrained network; test_any_data.py has tiny ones",
    "--dataset photos/$|--image-column": "needs the default encoder; test_any_data.py has tiny ones",
    "resnet18.tv_in1k:": "needs weights of 45 MB; tests/features/test_timm.py makes some",
    "--checkpoint /fast/disk": "a folder of the reader's machine; tests/cli/test_resume.py runs --checkpoint",
    "--shard 3/16": "needs data of sixteen blocks; tests/test_merging.py scores shards",
    "--install-completion": "changes the reader's shell; tests/cli/test_usage.py runs what it installs",
    "cache rm": "the keys are an example; tests/cli/test_any_data.py runs it",
}
# Blocks of Python that are compiled but not run, likewise.
NOT_EXECUTED = {'cluster="local"': "needs the extra `ray`; tests/execution/test_ray_cluster.py runs it there"}
# What commands end with on the stand-ins, where it is not 0.
EXIT_CODES = {}

TARGETS = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.M))
with open(REPOSITORY / "pyproject.toml", "rb") as file:
    EXTRAS = set(tomllib.load(file)["project"]["optional-dependencies"])


def name_of(page):
    return page.name


def on(page):
    return blocks(page.read_text(encoding="utf-8"))


def reason(text, table):
    return next((why for part, why in table.items() if re.search(part, text)), None)


def check_lsi(words):
    """Fail unless the command line takes these arguments; the dataset may come from a file of options."""
    words = ["--help" if word == "--help-all" else word for word in words]
    if words[:1] == ["compute"] and not {"--dataset", "-d", "--help"} & set(words):
        words = [*words, "--dataset", "features.npz"]
    try:
        app.parse_args(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise AssertionError(str(error)) from error


def options(words):
    """Return the options of the command that these words name."""
    command = app
    for word in words:
        if word.startswith("-") or word not in command:
            break
        command = command[word]
    arguments = command.assemble_argument_collection(parse_docstring=False) if command.default_command else []
    return {name for argument in arguments for name in argument.names} | {
        "--help",
        "--help-all",
        "-h",
        "--debug",
        "--version",
    }


def check_module(words):
    """Fail unless the module or file, and the options behind it, are in the repository."""
    if words[:1] == ["-m"]:
        module, arguments = words[1], words[2:]
        if not module.startswith("benchmarks."):
            return check_command([module, *arguments])
        path = REPOSITORY / module.replace(".", "/")
    else:
        path, arguments = (REPOSITORY / words[0]).with_suffix(""), words[1:]
    files = list(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    text = "".join(
        file.read_text(encoding="utf-8") for file in [*files, REPOSITORY / "benchmarks" / "common.py"]
    )
    unknown = [word for word in arguments if word.startswith("--") and f'"{word}"' not in text]
    assert not unknown, f"{path.name} knows no {unknown}"


def check_command(words):
    """Fail unless a command names what is there: options, files, targets of make, extras."""
    program, *arguments = words
    if program == "lsi":
        check_lsi(arguments)
    elif program == "python":
        check_module(arguments)
    elif program == "make":
        assert arguments[0] in TARGETS
    elif program == "pip":
        wanted = re.findall(r"\[([\w,]+)\]", " ".join(arguments))
        if "--no-deps" in arguments:  # of one package, which constraints.txt pins
            assert f"\n{arguments[-1]}==" in (REPOSITORY / "constraints.txt").read_text(encoding="utf-8")
            return
        assert set(",".join(wanted).split(",")) <= EXTRAS
    elif program == "pytest":
        assert all((REPOSITORY / word).exists() for word in arguments)
    else:
        assert program == "apt", f"{program}: say in tests/docs/test_pages.py how to check this program"


def check_page(text):
    """Fail on the first thing of a page that does not exist."""
    for block in blocks(text):
        if block.language == "python":
            compile(block.text, f"line {block.line}", "exec")
        for line, command in commands(block) if block.language == "bash" else ():
            try:
                check_command(shlex.split(command))
            except AssertionError as error:
                raise AssertionError(f"line {line}: {command}: {error}") from error
    for line, code in quoted(text):
        words = code.split()
        if words[0] == "lsi" and len(words) > 1 and not words[1].startswith("-"):
            assert words[1] in app, f"line {line}: no command {words[1]}"
            unknown = {word for word in words if word.startswith("--")} - options(words[1:])
            assert not unknown, f"line {line}: lsi {words[1]} has no {sorted(unknown)}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_everything_on_a_page_exists(page):
    check_page(page.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stand-ins")
    stand_ins.make_files(folder)
    return folder


def run_lsi(words):
    """Run a command on the stand-ins; what it writes may be there from the line before."""
    for flag, word in zip(words, words[1:], strict=False):
        if flag in ("--output", "-o"):
            shutil.rmtree(f"{word}.receipt", ignore_errors=True)
            shutil.rmtree(word, ignore_errors=True) if Path(word).is_dir() else Path(word).unlink(
                missing_ok=True
            )
    expanded = [match for word in words for match in (sorted(glob.glob(word)) if "*" in word else [word])]
    assert main(expanded) == EXIT_CODES.get(" ".join(words), 0)


def run_page(page, namespace):
    """Run the blocks of a page in order: Python in one namespace, commands where its files are."""
    for block in on(page):
        if block.language == "python" and not reason(block.text, NOT_EXECUTED):
            for name in re.findall(r'\.save\("([^"]+)"\)', block.text):  # made by a command further up
                shutil.rmtree(name, ignore_errors=True)
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            exec(code, namespace)
        for _, command in commands(block) if block.language == "bash" else ():
            words = shlex.split(command)
            if words[0] == "lsi" and not reason(command, NOT_RUN):
                run_lsi([*words[1:], *(["--threads", "1"] if "--threads" in options(words[1:2]) else [])])


# tests/examples runs the scripts that these pages go through.
IN_EXAMPLES = {page for page in PAGES if (REPOSITORY / "examples" / f"{page.stem}.py").exists()}


@pytest.mark.parametrize(
    "page", [page for page in PAGES if on(page) and page not in IN_EXAMPLES], ids=name_of
)
def test_a_page_runs(page, files, tmp_path, monkeypatch):
    stand_ins.fewer_digits(monkeypatch, stand_ins.N_DIGITS.get(page.name, 120))
    monkeypatch.setenv("LSI_CACHE", str(tmp_path / "cache"))
    shutil.copytree(files, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    namespace = {**stand_ins.names(), **stand_ins.OWN_NAMES.get(page.name, dict)()}
    run_page(page, namespace)
    matplotlib.pyplot.close("all")


def test_every_reason_not_to_run_is_still_needed():
    bash = [
        command
        for page in PAGES
        for block in on(page)
        if block.language == "bash"
        for _, command in commands(block)
    ]
    python = [block.text for page in PAGES for block in on(page) if block.language == "python"]
    assert not [part for part in NOT_RUN if not any(re.search(part, command) for command in bash)]
    assert not [part for part in NOT_EXECUTED if not any(re.search(part, text) for text in python)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```bash\nlsi plan --dataset features.npz\n```", "line 2: .*Unknown option"),
        ("    lsi frobnicate features.npz", "line 1: .*Unknown command"),
        ("```bash\nlsi compute --dataset wine \\\n    --tol small\n```", "line 3: .*--tol"),
        ("```bash\nmake coffee\n```", "make coffee"),
        ("```bash\npip install '.[coffee]'\n```", "pip install"),
        ("    python -m benchmarks.engine --coffee", "knows no"),
        ("    python -m pytest tests/coffee", "pytest"),
        ("```bash\ncoffee --black\n```", "say in tests/docs"),
        ("Use `lsi frobnicate`.", "line 1: no command frobnicate"),
        ("Use `lsi select scores/ --drop-all`.", "line 1: lsi select has no .*--drop-all"),
    ],
)
def test_what_does_not_exist_is_found(text, message):
    with pytest.raises((AssertionError, OSError), match=message):
        check_page(text)


def test_python_that_does_not_parse_is_found():
    with pytest.raises(SyntaxError):
        check_page("```python\nscores = lsi.score(X, y\n```")


@pytest.mark.parametrize(
    "text",
    [
        "```python\nlsi.score(X, y).frobnicate()\n```",
        "```bash\nlsi show nowhere/    # exit code 2\n```",
        "```python\nkept = 1\n```\n\n```python\nassert kept == 2\n```",
    ],
)
def test_a_page_that_does_not_run_is_found(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.md").write_text(text)
    X, y = stand_ins.features(12)
    with pytest.raises((AssertionError, AttributeError)):
        run_page(tmp_path / "page.md", {"lsi": lsi, "X": X, "y": y})


def test_blocks_and_commands_of_a_page():
    text = "Text\n\n```python\nx = 1\n```\n\n    lsi a \\\n        --b  # c\n    lsi d\n\n    y = x²\n\nEnd"
    assert blocks(text) == [
        Block("python", 4, "x = 1"),
        Block("bash", 7, "lsi a \\\n    --b  # c\nlsi d"),
        Block("indented", 11, "y = x²"),
    ]
    assert list(commands(blocks(text)[1])) == [(8, "lsi a --b"), (9, "lsi d")]
