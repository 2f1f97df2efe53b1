import json
import os
import subprocess
import sys
import warnings

import pytest

from keras_mot import __version__
from keras_mot.cli import _main, completion, inspect
from keras_mot.cli._result import Result

COMMANDS = ["demo", "inspect", "prune", "cluster", "quantize", "train-quantized", "compress", "export", "measure"]


@pytest.mark.parametrize("arguments", [["--help"], *([command, "--help"] for command in COMMANDS)])
def test_help(run, arguments):
    result = run(*arguments)
    assert result.code == 0
    assert "usage: keras-mot" in result.out
    if len(arguments) == 2 and arguments[0] not in ("demo", "compress"):
        assert f"example:\n  keras-mot {arguments[0]} " in result.out


def test_version(run):
    result = run("--version")
    assert (result.code, result.out) == (0, f"keras-mot {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "COMMAND"), (["shrink"], "shrink"), (["inspect"], "FILE"), (["inspect", "a", "--fast"], "--fast")],
)
def test_arguments_that_do_not_parse(run, arguments, message):
    result = run(*arguments)
    assert result.code == 2
    assert message in result.err
    assert result.out == ""


def test_runs_as_a_module():
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    command = [sys.executable, "-m", "keras_mot", "inspect", "missing.keras"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ended.returncode == 2
    assert "'missing.keras' does not exist" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def _inspect_does(monkeypatch, work):
    # The parser takes both from the module when it is made, which is at each call of `main`.
    monkeypatch.setattr(inspect, "check", lambda options: None)
    monkeypatch.setattr(inspect, "run", work)


def test_failed_work_ends_with_1_and_no_traceback(run, monkeypatch):
    def fail(options):
        raise RuntimeError("the disk is on fire")

    _inspect_does(monkeypatch, fail)
    result = run("inspect", "a.keras")
    assert result.code == 1
    assert result.err == "keras-mot inspect: error: the disk is on fire\n"


def test_an_error_without_a_message_is_named(run, monkeypatch):
    def fail(options):
        raise MemoryError

    _inspect_does(monkeypatch, fail)
    assert "MemoryError" in run("inspect", "a.keras").err


def test_debug_shows_the_traceback():
    with pytest.raises(_main.UsageError, match="does not exist"):
        _main.main(["inspect", "missing.keras", "--debug"])


def test_interrupt(run, monkeypatch):
    def interrupt(options):
        raise KeyboardInterrupt

    _inspect_does(monkeypatch, interrupt)
    result = run("inspect", "a.keras")
    assert result.code == 130
    assert "interrupted" in result.err


def test_stdout_holds_the_result_alone(run, monkeypatch):
    def chatter(options):
        print("a library says something")
        return Result("text", {"value": 1})

    _inspect_does(monkeypatch, chatter)
    result = run("inspect", "a.keras", "--json")
    assert json.loads(result.out) == {"value": 1}
    assert "a library says something" in result.err
    assert run("inspect", "a.keras").out == "text\n"


def test_a_reader_that_has_read_enough_is_no_error(monkeypatch, capsys):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert _main.main(["compress", "--list"]) == 0
    assert capsys.readouterr().err == ""


def test_quiet_prints_no_progress_but_warnings_and_errors(run, monkeypatch):
    def work(options):
        print("half of it done")
        print("and more", file=sys.stderr)
        warnings.warn("mind this", stacklevel=1)
        return Result("done", {})

    _inspect_does(monkeypatch, work)
    loud, quiet = run("inspect", "a"), run("inspect", "a", "--quiet")
    assert loud.out == quiet.out == "done\n"
    assert "half of it done" in loud.err
    assert "and more" in loud.err
    assert quiet.err == "warning: mind this\n"

    def fail(options):
        print("half of it done")
        raise ValueError("it broke")

    _inspect_does(monkeypatch, fail)
    failed = run("inspect", "a", "--quiet")
    assert (failed.code, failed.err) == (1, "keras-mot inspect: error: it broke\n")


def test_a_command_may_end_with_a_code_of_its_own(run, monkeypatch):
    _inspect_does(monkeypatch, lambda options: Result("something is bad", {}, 1))
    result = run("inspect", "a")
    assert (result.code, result.out, result.err) == (1, "something is bad\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion(run, shell):
    pytest.importorskip("shtab", reason="the extra `completion` is not installed")
    result = run("completion", shell)
    assert result.code == 0
    for command in COMMANDS:
        assert command in result.out
    assert "--sparsity" in result.out


def test_completion_says_what_is_missing(run, monkeypatch):
    monkeypatch.setattr(completion, "is_installed", lambda module: False)
    result = run("completion", "bash")
    assert result.code == 1
    assert "pip install shtab" in result.err
