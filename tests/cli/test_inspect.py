import json

import keras
import pytest

import keras_mot
from tests.cli.cli_models import build_model


def test_keras_file(run, model):
    result = run("inspect", model)
    assert result.code == 0
    assert "212 parameters" in result.out  # (8 + 1) * 16 + (16 + 1) * 4
    assert "hidden/kernel" in result.out
    assert "8x16" in result.out


def test_json(run, model):
    values = json.loads(run("inspect", model, "--json").out)
    assert values["parameters"] == 212
    assert values["bytes"] == model.stat().st_size
    assert values["zipped_bytes"] > 0
    kernel = next(tensor for tensor in values["tensors"] if tensor["name"] == "hidden/kernel")
    assert (kernel["shape"], kernel["size"], kernel["zeros"]) == ([8, 16], 128, 0)
    assert "pruning" not in values


def test_tflite_file(run, both_files):
    values = json.loads(run("inspect", both_files[1], "--json").out)
    assert values["kind"] == "litert"
    assert values["parameters"] == 212
    assert values["bytes"] == both_files[1].stat().st_size
    assert values["sparsity"] == 0.75
    zeros = {tensor["name"]: tensor["zeros"] for tensor in values["tensors"] if len(tensor["shape"]) == 2}
    assert zeros == {"hidden/kernel": 96, "classes/kernel": 48}  # by the model's names, not the converter's
    assert {tensor["name"] for tensor in values["tensors"]} == {*zeros, "hidden/bias", "classes/bias"}


def test_what_is_said_of_bits_is_true(run, model):
    """A float of which there are 128 different ones takes 32 bits, not the 7 bits of their entropy."""
    text = run("inspect", model).out
    line = next(line for line in text.splitlines() if "hidden/kernel" in line)
    assert "float32" in line
    assert "7.00" in line
    assert "entropy (bits)" in text
    assert "bits each" not in text
    assert "without the table" in text


@pytest.mark.parametrize("columns", ["100", "80", "60"])
def test_tables_fit(run, model, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    result = run("inspect", model)
    assert all(len(line) <= int(columns) for line in result.out.splitlines() if str(model) not in line)
    assert {"hidden/kernel", "8x16", "128", "7.00", "212"} <= set(result.out.replace("│", " ").split())


def test_model_in_the_middle_of_pruning(run, tmp_path):
    schedule = keras_mot.sparsity.PolynomialDecay(0.25, 0.75, begin_step=0, end_step=10, power=1, frequency=5)
    pruned = keras_mot.sparsity.prune_low_magnitude(build_model(), schedule, overrides={"classes": None})
    keras_mot.sparsity.update_pruning_step(pruned, 5)
    path = tmp_path / "half.keras"
    pruned.save(path)
    result = run("inspect", path)
    assert result.code == 0
    assert "In the middle of pruning, after 5 steps" in result.out
    assert "75.00%" in result.out
    values = json.loads(run("inspect", path, "--json").out)
    assert values["pruning"]["sparsity"] == 0.5
    assert [row["path"] for row in values["pruning"]["pruned"]] == ["hidden/kernel"]
    assert values["pruning"]["pruned"][0]["target"] == 0.75
    assert values["pruning"]["left_alone"] == [{"path": "classes/kernel", "reason": "not selected"}]
    assert values["parameters"] == 212
    assert values["bytes"] == path.stat().st_size


def test_model_before_the_first_step_of_pruning(run, tmp_path):
    keras_mot.sparsity.prune_low_magnitude(build_model()).save(tmp_path / "new.keras")
    values = json.loads(run("inspect", tmp_path / "new.keras", "--json").out)
    assert values["pruning"]["step"] == 0
    assert values["sparsity"] == 0.0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.keras", None, "does not exist"),
        ("model.h5", b"x", "is no `.keras`, `.tflite` or `.onnx` file"),
        ("broken.keras", b"x", "is damaged"),
        ("broken.tflite", b"not a flatbuffer at all", "broken.tflite"),
        ("empty.tflite", b"", "empty.tflite"),
    ],
)
def test_files_that_will_not_do(run, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = run("inspect", tmp_path / name)
    assert result.code == 2
    assert message in result.err
    assert "Traceback" not in result.err
    assert result.out == ""


class Unregistered(keras.layers.Dense):
    pass


def test_model_of_unknown_layers(run, tmp_path, monkeypatch):
    path = tmp_path / "own.keras"
    keras.Sequential([keras.Input((2,)), Unregistered(2)]).save(path)
    monkeypatch.setattr(Unregistered, "__module__", "no_such_module")
    content = path.read_bytes()
    # Saved by another program: the class cannot be imported here.
    import io
    import zipfile

    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(target, "w") as copy:
        for item in source.infolist():
            data = source.read(item)
            if item.filename == "config.json":
                data = data.replace(__name__.encode(), b"no_such_module")
            copy.writestr(item, data)
    path.write_bytes(target.getvalue())
    result = run("inspect", path)
    assert result.code == 2
    assert "cannot be loaded" in result.err
    assert "Unregistered" in result.err


def test_model_in_the_middle_of_pruning_and_clustering(run, tmp_path):
    pruned = keras_mot.sparsity.prune_low_magnitude(build_model(), keras_mot.sparsity.ConstantSparsity(0.5))
    keras_mot.update_step(pruned, 0)
    keras_mot.clustering.cluster_weights(pruned, 4).save(tmp_path / "both.keras")
    result = run("inspect", tmp_path / "both.keras")
    assert "In the middle of pruning" in result.out
    assert "In the middle of clustering" in result.out
    values = json.loads(run("inspect", tmp_path / "both.keras", "--json").out)
    assert values["pruning"]["sparsity"] == 0.5
    assert [row["unique_values"] for row in values["clustering"]["clustered"]] == [4, 4]
    kernel = next(tensor for tensor in values["tensors"] if tensor["name"] == "hidden/kernel")
    assert (kernel["unique_values"], kernel["zeros"]) == (4, 64)
    assert kernel["palette_bytes"] == 4 * 4 + 128 * 2 // 8


def test_recommend(run, tmp_path):
    build_model().save(tmp_path / "model.keras")
    result = run("recommend", tmp_path / "model.keras", "--goal", "micro", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert (found["recipe"], found["target"], found["refused"]) == ("int8", "micro", False)
    text = run("recommend", tmp_path / "model.keras", "--no-training").out
    assert f"keras-mot compress {tmp_path / 'model.keras'} --recipe int8" in text
    assert run("recommend", tmp_path / "missing.keras").code == 2
