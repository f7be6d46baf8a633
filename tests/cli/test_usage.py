"""Exit codes and how errors are told. Nothing here needs an engine."""

import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from lsi.cli import app, main
from lsi.cli.inputs.options_file import arguments_of
from lsi.errors import ConvergenceError, InputError, OutputError


def tell(monkeypatch, error):
    """Make the command `show` fail with `error`."""

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("lsi.cli.app.App.__call__", fail)


@pytest.mark.parametrize(
    "argv", [[], ["--help"], ["compute", "--help"], ["show", "--help"], ["report", "-h"]]
)
def test_help_is_no_error(argv, capsys):
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert "Usage: lsi" in out
    assert err == ""


def test_help_names_every_option_of_compute(capsys):
    main(["compute", "--help-all"])
    out = capsys.readouterr().out
    for flag in (
        "--dataset --corrupt-label --corrupt-seed --seed --posterior --method --tol --epochs --lr --momentum "
        "--weight-decay --prior-precision --no-intercept --subset --audit --no-audit --overwrite --json "
        "--quiet --threads --device --output --report"
    ).split():
        assert flag in out


def common():
    """Return the options of `lsi compute` that are marked as those that most people need."""
    from lsi.cli.inputs import options

    groups = [each for each in vars(options).values() if dataclasses.is_dataclass(each)]
    hints = [get_type_hints(group, include_extras=True) for group in groups]
    return {
        f"--{name.replace('_', '-')}"
        for hint in hints
        for name, kind in hint.items()
        if options.COMMON in get_args(kind)
    }


def test_the_short_help_shows_a_dozen_options_and_the_long_one_all(capsys):
    main(["compute", "--help"])
    short = set(re.findall(r"(?<=│) +(?:\* +)?(--[\w-]+)", capsys.readouterr().out))
    assert short == common()
    assert 10 <= len(short) <= 16
    main(["compute", "--help-all"])
    every = set(re.findall(r"(?<=│) +(?:\* +)?(--[\w-]+)", capsys.readouterr().out))
    assert short < every
    assert {f"--{name}" for name in arguments_of(app.app["compute"])} <= every


def test_an_option_of_the_short_help_has_an_example_that_is_understood():
    arguments = {f"--{name}": each for name, each in arguments_of(app.app["compute"]).items()}
    assert common() <= set(arguments)
    for name in common():
        if arguments[name].hint is bool:
            continue
        example = re.search(r"Example:\s+`([^`]+)`", arguments[name].parameter.help)
        words = shlex.split(example[1])
        assert words[0] == name
        needed = [] if name == "--dataset" else ["--dataset", "wine"]
        app.app.parse_args(["compute", *words, *needed], exit_on_error=False, print_error=False)


BASH = """
COMP_WORDS=(%s) COMP_CWORD=%d COMP_LINE="${COMP_WORDS[*]}" COMP_POINT=${#COMP_LINE}
_lsi
printf '%%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [(["lsi", "comp"], "compute"), (["lsi", "compute", "--weight"], "--weight-decay")],
)
def test_bash_completes_commands_and_options(typed, offered):
    script = app.app.generate_completion(prog_name="lsi", shell="bash") + BASH % (
        " ".join(typed),
        len(typed) - 1,
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert offered in done.stdout.split()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["frobnicate"], 'Unknown command "frobnicate"'),
        (["comput"], 'Did you mean "compute"?'),
        (["compute"], "--dataset"),
        (["compute", "--datset", "wine"], "Did you mean --dataset"),
        (["compute", "--dataset", "wine", "--posterior", "dia"], "--posterior"),
        (["compute", "--dataset", "wine", "--tol", "small"], "--tol"),
        (["compute", "--dataset", "wine", "stray"], "stray"),
        (["show"], "requires an argument"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(argv, message, capsys):
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("bad [red]input[/red]\x1b[31m"), 2, "error: bad [red]input[/red]\ufffd[31m\n"),
        (OutputError("disk full"), 2, "error: disk full\n"),
        (ConvergenceError("no optimum"), 1, "error: no optimum (--debug shows the traceback)\n"),
        (RuntimeError("boom"), 1, "error: RuntimeError: boom (--debug shows the traceback)\n"),
        (MemoryError(), 1, "error: memory ran out"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "error: memory ran out"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_every_kind_of_error_has_its_exit_code_and_no_traceback(monkeypatch, capsys, error, code, said):
    tell(monkeypatch, error)
    assert main(["show", "x"]) == code
    err = capsys.readouterr().err
    assert err.startswith(said)
    assert "Traceback" not in err


def test_an_interruption_that_an_import_turned_into_its_own_error_is_one(monkeypatch, capsys):
    error = ImportError("initialization failed")
    error.__cause__ = KeyboardInterrupt()
    tell(monkeypatch, error)
    assert main(["show", "x"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


TERMINATED = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == os.environ["MODULE"]:
            exec("os.kill(os.getpid(), signal.SIGTERM)")

sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize("module", ["lsi.cli", "cyclopts", "lsi.cli.compute"])
def test_sigterm_while_modules_are_imported_is_told_in_one_line(module, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(TERMINATED)
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "lsi", "show", "x"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "MODULE": module},
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_debug_shows_the_traceback(monkeypatch, capsys):
    tell(monkeypatch, RuntimeError("boom"))
    assert main(["--debug", "show", "x"]) == 1
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert err.endswith("error: RuntimeError: boom\n")


def test_warnings_are_one_line(monkeypatch, capsys):
    import warnings

    def warn(*_, **__):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("slow\ndevice", RuntimeWarning, stacklevel=1)

    monkeypatch.setattr("lsi.cli.app.App.__call__", warn)
    assert main(["show", "x"]) == 0
    assert capsys.readouterr().err == "warning: slow device\n"


def run_python(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, **options)


def test_python_dash_m_is_the_command():
    words = [sys.executable, "-m", "lsi", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, app._version())


def every_command(group=app.app, path=()):
    """Yield `(names, command)` of every command and sub-command."""
    for name in group:
        if name.startswith("-"):
            continue
        command = group[name]
        if any(not inner.startswith("-") for inner in command):
            yield from every_command(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = {" ".join(names): command for names, command in every_command()}
DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(name):
    """Every command stands in the guide, and every parameter has a help text of its own."""
    pages = "\n".join(page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md"))
    assert f"lsi {name}" in pages
    command = COMMANDS[name]
    assert command.help.strip()
    for argument in command.assemble_argument_collection(parse_docstring=True):
        if argument.show:
            assert (argument.parameter.help or "").strip(), f"lsi {name} {argument.name} has no help text"


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from lsi.cli import main; main(['compute', '--help']); "
        "print([name for name in ('torch', 'sklearn', 'pandas', 'scipy') if name in sys.modules])"
    )
    assert run_python(code).stdout.splitlines()[-1] == "[]"


def test_a_reader_that_leaves_is_no_error():
    code = "import sys; from lsi.cli import main; sys.exit(main(['compute', '--help']))"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_poor_terminal_encoding_is_no_error():
    code = "import sys; from lsi.cli import main; sys.exit(main(['nicht\u2014da']))"
    done = run_python(code, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 2
    assert "nicht?da" in done.stderr


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == app._version()
