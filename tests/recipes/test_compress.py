import json
import pathlib
import sys
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_mot
from keras_mot import compress
from keras_mot.quantization import GPTQ, AdaRound
from keras_mot.recipes import (
    PRESETS,
    Cluster,
    FineTune,
    PostTraining,
    Prune,
    QuantizeAware,
    Recipe,
    RemoveChannels,
    Tune,
)
from keras_mot.recipes.compress import Run
from keras_mot.recipes.fine_tuning import SoftTargets, can_teach, train
from keras_mot.recipes.objective import choose_objective
from keras_mot.recipes.training_data import TrainingData
from tests.quantization.test_coverage import only_tensorflow

SHORT = FineTune(2, 0.01, batch_size=16)
RECIPE = Recipe([Prune(0.5, fine_tune=SHORT), Cluster(4, fine_tune=SHORT), QuantizeAware(fine_tune=SHORT)], "all")


@pytest.fixture(scope="module")
def arrays():
    """Three separable classes of points."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 120)
    x = generator.standard_normal((120, 8)).astype("float32")
    x[np.arange(120), labels] += 4.0
    return (x[:80], labels[:80]), (x[80:], labels[80:])


@pytest.fixture(scope="module")
def model(arrays):
    keras.utils.set_random_seed(1)
    network = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, name="first"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dropout(0.1),
            layers.Dense(3, activation="softmax", name="last"),
        ]
    )
    network.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    network.fit(*arrays[0], epochs=6, batch_size=16, verbose=0)
    return network


def run(model, arrays, recipe=RECIPE, **settings):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*whose weights are clustered")
        return compress(model, recipe, *arrays, **{"latency_runs": 0, "progress": False, **settings})


@pytest.fixture(scope="module")
def result(model, arrays, tmp_path_factory):
    return run(model, arrays, output_dir=tmp_path_factory.mktemp("runs") / "all")


def test_stage_by_stage(result, model):
    assert [stage.name for stage in result.stages] == ["float", "prune", "cluster", "quantize_aware"]
    plain, pruned, clustered, quantized = result.stages
    assert plain.sparsity < 0.01
    assert pruned.sparsity == pytest.approx(0.5, abs=0.01)
    assert min(clustered.sparsity, quantized.sparsity) >= pruned.sparsity - 1e-6
    assert quantized.values <= 4  # batch normalization lies between, and breaks the values of the clustered float file
    assert result["quantize_aware"] is quantized
    assert sorted(quantized.values_of_kernels.values())[-1] == quantized.values
    assert len(quantized.values_of_kernels) == 2
    for stage in result.stages:
        assert stage.metric > 0.8
        assert stage.metric == pytest.approx(stage.keras_metric, abs=0.051)
        assert stage.artifact.stat().st_size == stage.bytes
    assert result.artifact == quantized.artifact
    assert result.ratio == plain.zipped_bytes / quantized.zipped_bytes
    assert result.model.name == model.name
    assert "quantize_aware" in str(result)
    assert result.to_markdown().count("\n") == 8
    log = json.loads((result.output_dir / "run.json").read_text())
    assert log["stages"] == json.loads(json.dumps(result.to_dict()))["stages"]


@only_tensorflow
def test_stages_that_have_no_file_in_floats(arrays, tmp_path):
    """LiteRT has no kernel for erf; a table of integers stands for it."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.Dense(3, "softmax")(ops.erf(layers.Dense(8)(inputs))), name="with_erf")
    recipe = Recipe([Prune(0.5, fine_tune=None), PostTraining(placement="integer")], "short")
    result = run(model, arrays, recipe, output_dir=tmp_path / "run")
    plain, pruned, quantized = result.stages
    assert plain.artifact == plain.model_path
    assert pruned.artifact == pruned.model_path
    assert quantized.artifact.suffix == ".tflite"
    assert plain.metric == pytest.approx(plain.keras_metric)
    again = run(model, arrays, recipe, output_dir=tmp_path / "run")
    assert again.stages == result.stages
    assert [each.kind for each in result.report().variants] == ["keras", "keras", "litert"]
    with pytest.raises(ValueError, match=r"(?i)erf"):
        run(model, arrays, Recipe([Prune(0.5, fine_tune=None)], "floats"), output_dir=tmp_path / "floats")
    neither = Recipe([Prune(0.5, fine_tune=FineTune(1, 1e-3)), PostTraining(activation_bits=16)], "neither")
    with pytest.raises(ValueError, match=r"(?i)erf"):  # before any training
        run(model, arrays, neither, output_dir=tmp_path / "neither")
    assert not list((tmp_path / "neither").rglob("*prune*"))


@only_tensorflow
def test_channels_are_cut_out(model, arrays, tmp_path):
    stages = [Prune(0.5, channels=True, fine_tune=FineTune(2, 1e-2)), RemoveChannels(), PostTraining()]
    result = run(model, arrays, Recipe(stages), output_dir=tmp_path)
    pruned, small, quantized = result.stages[1:]
    assert small.bytes < 0.9 * pruned.bytes
    assert small.metric == pruned.metric > 0.8
    assert quantized.metric > 0.8
    shapes = [tuple(weight.shape) for weight in result.model.weights if weight.name == "kernel"]
    assert shapes == [(8, 8), (8, 3)]


@only_tensorflow
def test_the_result_can_be_exported_anew(result, tmp_path, arrays):
    keras_mot.export.export_litert(result.model, tmp_path / "again.tflite", verification_data=arrays[1][0][:8])
    assert (tmp_path / "again.tflite").stat().st_size == result.stages[-1].bytes


class Killed(Exception):
    pass


@only_tensorflow
def test_a_killed_run_goes_on_with_the_same_result(result, model, arrays, tmp_path, monkeypatch):
    plain_fit, fits = keras.Model.fit, []

    def fit(self, *args, **kwargs):
        fits.append(self)
        if len(fits) == 2:
            raise Killed
        return plain_fit(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "fit", fit)
        with pytest.raises(Killed):
            run(model, arrays, output_dir=tmp_path)
    stamps = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert sorted(stamps) == ["00-float.keras", "00-float.tflite", "01-prune.keras", "01-prune.tflite", "run.json"]
    model.save(tmp_path / "given.keras")
    another_process = keras.models.load_model(tmp_path / "given.keras")  # its dropout has other random numbers
    again = run(another_process, arrays, output_dir=tmp_path)
    assert (tmp_path / "01-prune.keras").stat().st_mtime_ns == stamps["01-prune.keras"]
    assert again.artifact.read_bytes() == result.artifact.read_bytes()
    assert [stage.metric for stage in again.stages] == [stage.metric for stage in result.stages]
    finished = run(another_process, arrays, output_dir=tmp_path)  # nothing is left to do
    for mine, theirs in zip(finished.model.weights, again.model.weights, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(mine), ops.convert_to_numpy(theirs))


@only_tensorflow
def test_damaged_files_are_made_again(model, arrays, tmp_path, monkeypatch):
    recipe = Recipe([Prune(0.5, fine_tune=SHORT), Tune(SHORT), PostTraining()])
    first = run(model, arrays, recipe, output_dir=tmp_path)
    contents = {stage.artifact: stage.artifact.read_bytes() for stage in first.stages}
    plain_fit, fits = keras.Model.fit, []
    monkeypatch.setattr(keras.Model, "fit", lambda self, *a, **k: (fits.append(self), plain_fit(self, *a, **k))[1])
    (tmp_path / "00-float.tflite").write_bytes(b"")
    (tmp_path / "02-tune.keras").write_bytes(first["tune"].model_path.read_bytes()[:-100])
    with pytest.warns(UserWarning, match=r"'00-float\.tflite' is not as it was written in"):
        again = run(model, arrays, recipe, output_dir=tmp_path)
    assert len(fits) == 1  # of the damaged stage; the one before it and the one after it stand as they were
    assert {stage.artifact: stage.artifact.read_bytes() for stage in again.stages} == contents
    assert [stage.metric for stage in again.stages] == [stage.metric for stage in first.stages]
    expected = first.model.get_weights()
    for mine, theirs in zip(again.model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@only_tensorflow
def test_a_run_that_could_not_be_resumed_says_so_before_training(arrays, tmp_path):
    network = keras.Sequential(
        [keras.Input((8,)), layers.Lambda(lambda x: 2.0 * x), layers.Dense(3, activation="softmax")], name="doubled"
    )
    with pytest.warns(UserWarning, match="This run cannot be resumed, .*'doubled' cannot be loaded"):
        result = run(network, arrays, Recipe([Prune(0.5, fine_tune=None)]), output_dir=tmp_path)
    assert [stage.name for stage in result.stages] == ["float", "prune"]


@only_tensorflow
def test_a_folder_of_another_run(result, model, arrays, tmp_path):
    other = keras.models.clone_model(model)
    with pytest.raises(
        ValueError, match=r"holds a run with another model: name another folder, or pass `resume=False`"
    ):
        run(other, arrays, output_dir=result.output_dir)
    with pytest.raises(ValueError, match="with another recipe"):
        run(model, arrays, "int8", output_dir=result.output_dir)
    with pytest.raises(ValueError, match="another data and another seed"):
        run(model, (arrays[1], arrays[0]), output_dir=result.output_dir, seed=3)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        run(model, arrays, output_dir=tmp_path)
    anew = run(model, arrays, "int8", output_dir=tmp_path, resume=False)
    assert [stage.name for stage in anew.stages] == ["float", "post_training"]


@only_tensorflow
def test_a_full_disk_leaves_what_was_done(model, arrays, tmp_path, monkeypatch):
    plain_save, saves = keras.Model.save, []

    def save(self, path, *args, **kwargs):
        if pathlib.Path(path).parent == tmp_path:  # others are tries
            saves.append(path)
        if len(saves) == 2:
            pathlib.Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        return plain_save(self, path, *args, **kwargs)

    recipe = Recipe([Prune(0.5, fine_tune=None), PostTraining()])
    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save", save)
        with pytest.raises(OSError, match=r"stage 'prune' could not be written.*No space left.*\(float\) lie there"):
            run(model, arrays, recipe, output_dir=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00-float.keras", "00-float.tflite", "run.json"]
    assert len(run(model, arrays, recipe, output_dir=tmp_path).stages) == 3


@only_tensorflow
def test_batches_teachers_and_early_stopping(model, arrays):
    (x, y), validation = arrays

    class Batches(keras.utils.PyDataset):
        shape = x.shape  # datasets of one's own have whatever attributes; this is no array

        def __len__(self):
            return 5

        def __getitem__(self, index):
            return x[index * 16 : index * 16 + 16], y[index * 16 : index * 16 + 16]

    taught = FineTune(3, 0.01, patience=1, distillation=0.5, optimizer="sgd", schedule="linear")
    recipe = Recipe([Tune(taught), Prune(0.25, fine_tune=taught), QuantizeAware(fine_tune=taught)])
    received = run(model, (Batches(), validation), recipe, metric=lambda y_true, y_pred: float(y_pred.max()))
    assert received.metric_name == "<lambda>"
    assert received.stages[-1].sparsity == pytest.approx(0.25, abs=0.02)


class Spoiler(keras.callbacks.Callback):
    """Sets all weights to zero when the second epoch begins."""

    epochs = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs += 1
        if epoch == 1:
            for weight in self.spoilt.trainable_weights:
                weight.assign(np.zeros(weight.shape))


def test_distillation_keeps_the_weight_of_the_loss(model, arrays):
    """With a weight of 0, labels decide nothing beside a teacher."""
    (x, y), results = arrays[0], []
    for labels in (y, (y + 1) % 3):
        keras.utils.set_random_seed(0)  # the same order of samples
        student = keras_mot.layers.copy_model(model)
        student.compile("sgd", "sparse_categorical_crossentropy", loss_weights=[0.0])
        objective = choose_objective(student, None, labels, student.predict_on_batch(x[:16]))
        assert objective.loss_weights == 0.0
        settings = FineTune(1, 0.1, optimizer="sgd", distillation=0.5, temperature=1.0, batch_size=16)
        train(student, settings, TrainingData((x, labels), None), objective, teacher=keras_mot.layers.copy_model(model))
        results.append([np.array(keras.ops.convert_to_numpy(weight)) for weight in student.weights])
    for first, second in zip(*results, strict=True):
        np.testing.assert_allclose(first, second, atol=1e-6)


@pytest.mark.parametrize("distillation", [0.0, 0.5])
def test_early_stopping_goes_back_to_the_best_accuracy(distillation, model, arrays):
    trained, spoiler = keras_mot.layers.copy_model(model), Spoiler()
    spoiler.spoilt = trained
    settings = FineTune(5, 1e-9, optimizer="sgd", patience=1, distillation=distillation, batch_size=16)
    data = TrainingData(*arrays)
    objective = choose_objective(model, None, data.labels(), ops.convert_to_numpy(model(arrays[0][0])))
    teacher = keras_mot.layers.copy_model(model) if distillation else None
    before = [ops.convert_to_numpy(weight).copy() for weight in trained.trainable_weights]
    train(trained, settings, data, objective, teacher=teacher, watched="accuracy", callbacks=[spoiler])
    assert spoiler.epochs == 2
    for old, weight in zip(before, trained.trainable_weights, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(weight), old, atol=1e-5)


def weights_of_distillation(model, data, stages, monkeypatch):
    """The weight with which each stage of a recipe is trained."""
    found = []

    def noted(trained, settings, data, objective, *, teacher, **others):
        assert (teacher is not None) == (settings.distillation > 0)
        found.append(settings.distillation)
        return train(trained, settings, data, objective, teacher=teacher, **others)

    monkeypatch.setattr(sys.modules["keras_mot.recipes.compress"], "train", noted)
    run(model, data, Recipe(stages))
    return found


@only_tensorflow
def test_what_is_compressed_learns_from_the_float_model_by_default(model, arrays, monkeypatch):
    labels_alone = FineTune(1, 0.01, batch_size=16, distillation=0)
    stages = [
        Tune(SHORT),
        Prune(0.5, fine_tune=SHORT),
        Cluster(4, fine_tune=labels_alone),
        QuantizeAware(fine_tune=SHORT),
    ]
    assert weights_of_distillation(model, arrays, stages, monkeypatch) == [0.0, 0.5, 0.0, 0.5]


@only_tensorflow
def test_numbers_are_learnt_from_labels_alone(arrays, monkeypatch):
    network = keras.Sequential([keras.Input((8,)), layers.Dense(4, activation="relu"), layers.Dense(1)])
    numbers = [(x, x[:, :1] - x[:, 1:2]) for x, _ in arrays]
    assert weights_of_distillation(network, numbers, [QuantizeAware(fine_tune=SHORT)], monkeypatch) == [0.0]


def test_teachers_have_the_same_inputs_and_outputs(model):
    inputs = keras.Input((8,), dtype="float16")
    assert can_teach(model, keras_mot.layers.copy_model(model))
    assert not can_teach(model, keras.Model(inputs, model(inputs)))
    assert not can_teach(model, keras.Sequential([keras.Input((8,)), layers.Dense(3), layers.Reshape((1, 3))]))


def test_a_teacher_is_followed(model, arrays):
    """With no weight on the labels, a student learns what the teacher says, not what the labels say."""
    student = keras.models.clone_model(model)
    (x, labels), _ = arrays
    data = TrainingData((x, (labels + 1) % 3), None)
    objective = choose_objective(model, None, data.labels(), ops.convert_to_numpy(model(x)))
    settings = FineTune(15, 0.02, distillation=1.0, batch_size=16)
    train(student, settings, data, objective, teacher=keras_mot.layers.copy_model(model))
    teacher, learned = (each.predict(x, verbose=0).argmax(-1) for each in (model, student))
    assert (teacher == learned).mean() > 0.9


@only_tensorflow
def test_sequences_of_batches_and_repeated_stages(model, arrays):
    (x, y), validation = arrays
    before = [np.array(ops.convert_to_numpy(item)) for item in model.variables]
    batches = [(x[start : start + 16], y[start : start + 16]) for start in range(0, 80, 16)]
    recipe = Recipe([Tune(SHORT), Tune(SHORT)])
    received = run(model, (batches, validation), recipe)
    assert [stage.name for stage in received.stages] == ["float", "tune", "tune_2"]
    for old, new in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, ops.convert_to_numpy(new))


@only_tensorflow
@pytest.mark.parametrize(("preset", "share"), [("float16", 0.75), ("dynamic-range", 0.8)])
def test_weights_are_stored_in_fewer_bits(preset, share, arrays):
    network = keras.Sequential([keras.Input((8,)), layers.Dense(256, "relu"), layers.Dense(3, activation="softmax")])
    network.compile("adam", "sparse_categorical_crossentropy")
    network.fit(*arrays[0], epochs=4, verbose=0)
    plain, stored = run(network, arrays, preset, metric="sparse_categorical_accuracy").stages
    assert stored.name == "store_weights"
    assert stored.bytes < share * plain.bytes
    assert stored.metric == pytest.approx(plain.metric, abs=0.051)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_fit_a_classifier(preset, model, arrays):
    data = TrainingData(*arrays)
    objective = choose_objective(model, None, data.labels(), ops.convert_to_numpy(model(arrays[0][0])))
    Run(PRESETS[preset], data, objective, "accuracy", 0, 0, False).rehearse(model)


@pytest.mark.parametrize("rounding", ["gptq", "adaround"])
def test_a_rehearsal_rounds_nothing_by_data(rounding, model, arrays, monkeypatch):
    """It shows what does not fit, and takes no time for more."""

    def refused(self, *arguments):
        raise AssertionError("it was rounded by data")

    for kind in (GPTQ, AdaRound):
        monkeypatch.setattr(kind, "choose", refused)
    data = TrainingData(*arrays)
    objective = choose_objective(model, None, data.labels(), ops.convert_to_numpy(model(arrays[0][0])))
    recipe = Recipe([PostTraining(weight_bits=4, rounding=rounding)], "few")
    Run(recipe, data, objective, "accuracy", 0, 0, False).rehearse(model)


@only_tensorflow
def test_inputs_are_told_apart_by_name(tmp_path):
    """Files list their inputs in an order of their own."""
    first, second = keras.Input((2,), name="z"), keras.Input((2,), name="a")
    network = keras.Model([first, second], layers.Dense(2, activation="softmax")(first - 2 * second))
    x = [np.random.default_rng(seed).normal(size=(40, 2)).astype("float32") for seed in (0, 1)]
    y = network.predict(x, verbose=0).argmax(-1)
    received = run(network, ((x, y), (x, y)), "int8")
    assert min(stage.metric for stage in received.stages) > 0.9


def test_soft_targets_take_probabilities_and_logits(rng):
    logits = rng.normal(size=(6, 4)).astype("float32")
    other = rng.normal(size=(6, 4)).astype("float32")
    probabilities = [ops.softmax(ops.convert_to_tensor(item), axis=-1) for item in (logits, other)]
    losses = [
        SoftTargets(2.0, False).compute_loss(ops.convert_to_tensor(logits), ops.convert_to_tensor(other)),
        SoftTargets(2.0, True).compute_loss(*probabilities),
    ]
    first, second = (np.exp(item / 2) / np.exp(item / 2).sum(-1, keepdims=True) for item in (logits, other))
    expected = 2.0**2 * (first * np.log(first / second)).sum(-1).mean()  # the square makes up for smaller gradients
    np.testing.assert_allclose([float(ops.convert_to_numpy(loss)) for loss in losses], expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("recipe", "error", "message"),
    [
        (Recipe([Prune(0.5, skip=["frist"])]), ValueError, "Stage 'prune', `skip`: No layer matches 'frist'.*'first'"),
        (Recipe([Tune(), Prune(0.5, n_m=(3, 7))]), ValueError, "Stage 2, 'prune': "),
        ("smal", ValueError, "no preset, and no file, 'smal'"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(recipe, error, message, model, arrays, tmp_path):
    with pytest.raises(error, match=message):
        run(model, arrays, recipe, output_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"metric": "acuracy"}, ValueError, "`metric` should be 'accuracy'"),
        ({"loss": "most_loss"}, ValueError, "`loss` 'most_loss' is not the name"),
        ({"seed": -1}, ValueError, "`seed` should be an integer"),
        ({"train_data": (np.zeros((0, 8)), np.zeros(0))}, ValueError, "`train_data` is empty"),
        ({"train_data": (np.full((4, 8), np.nan), np.zeros(4))}, ValueError, "`train_data` holds NaN"),
        (
            {"train_data": (np.zeros((4, 9)), np.zeros(4))},
            ValueError,
            r"`train_data` does not fit .*\(None, 8\)",
        ),
        ({"train_data": "data"}, TypeError, "`train_data` should be a tuple"),
        ({"train_data": ((x, x) for x in range(3))}, TypeError, "`train_data` is a generator"),
        ({"train_data": [(np.zeros((4, 8)), np.zeros(4), np.ones(4))]}, ValueError, "without weights of samples"),
        ({"train_data": {1, 2}}, TypeError, "which `fit` does not take"),
        ({"train_data": (np.zeros((4, 8)), [np.zeros(4), np.zeros(4)])}, ValueError, "should be one array"),
        ({"validation_data": (np.zeros((4, 8)), np.zeros(3))}, ValueError, "`validation_data`"),
        ({"model": "model.keras"}, TypeError, "expects a Keras model"),
        ({"model": keras.Sequential()}, ValueError, "not built"),
    ],
)
def test_bad_input(change, error, message, model, arrays, tmp_path):
    arguments = {"model": model, "recipe": "int8", "train_data": arrays[0], "validation_data": arrays[1], **change}
    with pytest.raises(error, match=message):
        compress(**arguments, output_dir=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_model_that_is_compressed_already(model, arrays):
    with pytest.raises(ValueError, match="is pruned, clustered or quantized already"):
        run(keras_mot.clustering.cluster_weights(model, 4), arrays)


@only_tensorflow
def test_a_folder_that_cannot_be_written(model, arrays, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be made"):
        run(model, arrays, output_dir=tmp_path / "file" / "run")


def test_teachers_are_for_classifiers(arrays):
    network = keras.Sequential([keras.Input((8,)), layers.Dense(1)])
    (x, _), _ = arrays
    with pytest.raises(ValueError, match="`distillation` is for models that choose one of several classes"):
        compress(network, "accuracy", (x, x[:, :1]), progress=False)


@only_tensorflow
def test_training_that_diverges(model, arrays, tmp_path):
    wild = Recipe([Tune(FineTune(2, 1e30, optimizer="sgd", batch_size=16))])
    with pytest.raises(FloatingPointError, match="Training diverged"):
        run(model, arrays, wild, output_dir=tmp_path)
