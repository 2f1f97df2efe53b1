import json

import keras
import numpy as np
import pytest

from tests.cli.cli_models import build_model

FAST = ("--batch-size", 32, "--learning-rate", 0.001)


def _values(path):
    model = keras.models.load_model(path)
    return {layer.name: len(np.unique(keras.ops.convert_to_numpy(layer.kernel))) for layer in model.layers}


def test_kernels_get_few_values(run, model, data, tmp_path):
    output = tmp_path / "small.keras"
    result = run("cluster", model, "--data", data, "--clusters", 4, *FAST, "-o", output, "--json")
    assert result.code == 0, result.err
    values = json.loads(result.out)
    assert _values(output) == {"hidden": 4, "classes": 4}
    assert values["clustered"] == [{"path": f"{name}/kernel", "unique_values": 4} for name in ("hidden", "classes")]
    assert values["files"] == [str(output)]
    assert values["measurements"][1]["metric"] > 0.7
    assert "clustering: epoch 1/1" in result.err


def test_layers_that_are_skipped_keep_theirs(run, model, data, tmp_path):
    output = tmp_path / "small.keras"
    result = run("cluster", model, "--data", data, "--clusters", 4, "--skip", "classes", *FAST, "-o", output)
    assert result.code == 0
    assert _values(output) == {"hidden": 4, "classes": 64}
    assert "Not clustered: classes/kernel (not selected)." in result.out
    assert f"Wrote {output}." in result.out


def test_zeros_are_kept(run, data, tmp_path):
    pruned = build_model()
    kernel = keras.ops.convert_to_numpy(pruned.layers[0].kernel).copy()
    kernel[:, ::2] = 0.0
    pruned.layers[0].kernel.assign(kernel)
    pruned.save(tmp_path / "pruned.keras")
    options = ("--clusters", 4, "--preserve-sparsity", "--skip", "classes", *FAST, "-o", tmp_path / "small.keras")
    assert run("cluster", tmp_path / "pruned.keras", "--data", data, *options).code == 0
    after = keras.ops.convert_to_numpy(keras.models.load_model(tmp_path / "small.keras").layers[0].kernel)
    assert (after[:, ::2] == 0).all()
    assert len(np.unique(after)) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clusters", "1"], "should be 2 or more"),
        (["--clusters", "many"], "invalid integer value"),
        (["--skip", "("], "is not a regular expression"),
        (["--skip", "dense_7"], "matches 'dense_7'"),
        (["--preserve-sparsity"], "no kernel of"),
        (["--learning-rate", "0"], "should be greater than 0"),
        (["-o", "small.h5"], "should end in .keras or .tflite"),
        (["--data", "missing.npz"], "'missing.npz' does not exist"),
    ],
)
def test_mistakes(run, model, data, tmp_path, options, message):
    result = run("cluster", model, "--data", data, "-o", tmp_path / "small.keras", *options)
    assert result.code == 2
    assert message in result.err
    assert result.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_model_in_the_middle_of_something_is_refused(run, data, tmp_path):
    import keras_mot

    keras_mot.clustering.cluster_weights(build_model(), 4).save(tmp_path / "half.keras")
    result = run("cluster", tmp_path / "half.keras", "--data", data, "-o", tmp_path / "small.keras")
    assert result.code == 2
    assert "in the middle of pruning or clustering" in result.err
