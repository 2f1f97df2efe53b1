"""The command line as a process: what it imports, and what it prints beside its result."""

import json
import resource
import subprocess
import sys

import pytest

import keras_mot
from tests.cli.cli_models import build_model

SCRIPT = "import sys\nfrom keras_mot.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
HEAVY = ("keras", "tensorflow", "torch", "jax", "numpy", "rich")


@pytest.mark.backend_independent
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--help"], 0, "usage: keras-mot"),
        (["--version"], 0, keras_mot.__version__),
        (["prune", "--help"], 0, "usage: keras-mot prune"),
        (["quantize", "m.keras", "--scheme", "int7", "-o", "m.tflite"], 2, "invalid choice: 'int7'"),
        (["inspect", "missing.keras"], 2, "'missing.keras' does not exist"),
        (["prune", "missing.keras", "--data", "d.npz", "--sparsity", "2", "-o", "s.keras"], 2, "should be in [0, 1)"),
        (["cluster", "missing.keras", "--data", "d.npz", "-o", "s.keras"], 2, "'missing.keras' does not exist"),
        (["compress", "missing.keras"], 2, "required: --recipe, --data, --output"),
        (["measure", "a.onnx"], 2, "'a.onnx' does not exist"),
    ],
)
def test_no_backend_is_loaded_before_there_is_work(tmp_path, arguments, code, words):
    script = tmp_path / "keras-mot"
    script.write_text(SCRIPT)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run([sys.executable, "-X", "importtime", script, *arguments], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.returncode == code
    assert words in ended.stdout + ended.stderr
    imported = {
        line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if line.startswith("import time:")
    }
    assert "keras_mot.cli._main" in imported
    assert not imported.intersection(HEAVY)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 3


@pytest.mark.backend_independent
def test_the_module_answers_as_the_script_does():
    command = [sys.executable, "-X", "importtime", "-m", "keras_mot", "--help"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.stdout.startswith("usage: keras-mot")
    assert not any(line.rpartition("|")[2].strip() == "keras" for line in ended.stderr.splitlines())


def test_the_result_alone_is_printed_and_all_classes_are_known(tmp_path):
    clustered = keras_mot.clustering.cluster_weights(build_model(), 4)
    clustered.save(tmp_path / "clustered.keras")
    command = [sys.executable, "-m", "keras_mot", "inspect", str(tmp_path / "clustered.keras"), "--json"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["clustering"]["step"] == 0
    assert ended.stderr == ""  # no word of a backend
