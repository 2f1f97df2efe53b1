import types

import numpy as np
import pytest

from keras_mot.cli import main
from tests.cli.cli_models import build_model


@pytest.fixture
def run(capsys):
    """Runs the command line in this process; returns its exit code, stdout and stderr."""

    def run(*arguments):
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit:
            code = exit.code
        captured = capsys.readouterr()
        return types.SimpleNamespace(code=code, out=captured.out, err=captured.err)

    return run


@pytest.fixture(scope="session")
def arrays():
    """Four separable classes of points in eight dimensions."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 160)
    x = generator.standard_normal((160, 8)).astype("float32")
    x[np.arange(160), labels] += 4.0
    return {"x_train": x[:96], "y_train": labels[:96], "x_test": x[96:], "y_test": labels[96:]}


@pytest.fixture(scope="session")
def data(arrays, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "data.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="session")
def model(arrays, tmp_path_factory):
    """The file of a trained model, saved with its loss and optimizer."""
    network = build_model(optimizer="adam", loss="sparse_categorical_crossentropy")
    network.optimizer.learning_rate = 0.02
    network.fit(arrays["x_train"], arrays["y_train"], batch_size=16, epochs=10, verbose=0)
    path = tmp_path_factory.mktemp("model") / "model.keras"
    network.save(path)
    return path


@pytest.fixture(scope="session")
def both_files(model, data, tmp_path_factory):
    """What `keras-mot prune --tflite` wrote; one export serves several tests, for it can take seconds."""
    output = tmp_path_factory.mktemp("both") / "small.keras"
    arguments = [
        "--sparsity",
        "0.75",
        "--batch-size",
        "16",
        "--frequency",
        "2",
        "--tflite",
        "-o",
        str(output),
    ]
    assert main(["prune", str(model), "--data", str(data), *arguments]) == 0
    return output, output.with_suffix(".tflite")
