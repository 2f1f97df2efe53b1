"""What every member of each family must do: train, be saved and loaded, be stripped, and compute the same in its file.

A family is all the classes, or objects, of a kind in the package; a member that is in no list below fails.
Transforms and layers have a test like this in `tests/layers/test_conformance.py`.
"""

import functools
import inspect
import pathlib
import typing
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_mot
from keras_mot import _formats, quantization, sparsity, targets
from keras_mot.clustering import (
    CentroidInitialization,
    ClusteringConfig,
    ClusteringMethod,
    DensityBased,
    DifferentiableKMeans,
    ExactKMeans,
    KMeansPlusPlus,
    Linear,
    SharedValues,
    cluster_weights,
    strip_clustering,
)
from keras_mot.clustering import Random as RandomCentroids
from keras_mot.export import LiteRTRunner, export_litert
from keras_mot.layers import transformed_weights
from keras_mot.layers.activation_quantizer import activation_quantizers
from keras_mot.quantization import (
    DYNAMIC_INT4,
    DYNAMIC_INT8,
    DYNAMIC_RANGE,
    FLOAT16,
    GPTQ,
    INT4_WEIGHTS,
    INT8,
    INT16X8,
    AdaRound,
    Entropy,
    LeastSquares,
    MeanMinMax,
    MinMax,
    MovingAverage,
    Nearest,
    Percentile,
    QuantizationScheme,
    RangeEstimator,
    Rounding,
    WeightsScheme,
    quantize_model,
    quantize_post_training,
    strip_quantization,
)
from keras_mot.quantization.estimators.by_place import MeanOfSamples, MostSamples
from keras_mot.recipes import (
    STAGES,
    Cluster,
    Factorize,
    FineTune,
    PostTraining,
    Prune,
    PruneChannels,
    QuantizeAware,
    Recipe,
    RemoveChannels,
    Stage,
    StoreWeights,
    Tune,
    compress,
)
from keras_mot.sparsity import (
    Block,
    Channel,
    ConstantSparsity,
    Criterion,
    Element,
    Granularity,
    Magnitude,
    NofM,
    PerLayer,
    PolynomialDecay,
    PruneForLatencyOnXNNPack,
    PruningConfig,
    PruningEvidence,
    PruningPolicy,
    PruningSchedule,
    UpdatePruningStep,
    WholeModel,
    prune_low_magnitude,
    strip_pruning,
)

SHORT = FineTune(1, 1e-3, batch_size=32)
Scope = typing.get_type_hints(PruningConfig)["scope"]  # a union, for scopes have no base

# A new member joins by adding itself here.
PRUNING = (
    Element(),
    Block((1, 2)),
    NofM(2, 4),
    Channel(),
    Magnitude(),
    sparsity.Random(seed=0),
    sparsity.Gradient(),
    sparsity.SNIP(),
    sparsity.Taylor(),
    sparsity.Movement(),
    sparsity.Wanda(),
    sparsity.OptimalBrainSurgeon(),
    sparsity.Regrow(sparsity.Magnitude(), sparsity.Gradient(), end_step=2),
    sparsity.RigL(end_step=2),
    sparsity.SET(end_step=2),
    ConstantSparsity(0.5, 0, frequency=1),
    PolynomialDecay(0.0, 0.5, 0, 2, frequency=1),
    PerLayer(),
    WholeModel(),
    PruneForLatencyOnXNNPack(),
)
CLUSTERING = (
    ExactKMeans(),
    KMeansPlusPlus(),
    DensityBased(),
    Linear(),
    RandomCentroids(),
    SharedValues(),
    DifferentiableKMeans(),
)
ESTIMATORS = (
    *(MinMax(), MeanMinMax(), MovingAverage(), Percentile(), LeastSquares(), Entropy()),
    *(MeanOfSamples(), MostSamples()),  # which the default is made of
)
SCHEMES = {
    "INT8": INT8,
    "INT16X8": INT16X8,
    "INT4_WEIGHTS": INT4_WEIGHTS,
    "DYNAMIC_INT8": DYNAMIC_INT8,
    "DYNAMIC_INT4": DYNAMIC_INT4,
}
TARGETS = ("LITERT", "MICRO", "ETHOS_U", "ETHOS_U85")  # which the schemes are exported for, with these
ROUNDINGS, FORMATS = (Nearest(), GPTQ(), AdaRound()), ("litert", "onnx")
WEIGHTS_SCHEMES = {"FLOAT16": FLOAT16, "DYNAMIC_RANGE": DYNAMIC_RANGE}
RECIPES = (
    Recipe([Tune(SHORT), Prune(0.5, channels=True, fine_tune=SHORT), RemoveChannels(), Cluster(8, fine_tune=None)]),
    Recipe([QuantizeAware(fine_tune=SHORT)], "aware"),
    Recipe(
        [Factorize(fixed_rank=2, fine_tune=SHORT), PruneChannels(round_to=2, fine_tune=SHORT), PostTraining()], "post"
    ),
    Recipe([StoreWeights()], "stored"),
)

only_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the file is made in a child process: one export stands for all"
)


def classes(base):
    """The classes of a family in the package that can be made, but for forms of them that scripts of TFMOT need."""
    found, waiting = set(), [base]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if _in_package(kind) and not inspect.isabstract(kind) and not _is_base(kind):
            found.add(kind)
    return found


def _is_base(kind):
    return any(map(_in_package, kind.__subclasses__()))


def _in_package(kind):
    return kind.__module__.startswith("keras_mot.") and not kind.__module__.startswith("keras_mot.tfmot.")


def objects(kind, room):
    """The objects of a kind that a room exports."""
    return {name for name in room.__all__ if isinstance(getattr(room, name), kind)}


@pytest.mark.parametrize("base", [Granularity, Criterion, PruningSchedule, PruningPolicy])
def test_each_way_of_pruning_is_in_the_list(base):
    assert classes(base) == {type(each) for each in PRUNING if isinstance(each, base)} != set()


def test_each_scope_is_in_the_list():
    assert set(typing.get_args(Scope)) == {type(each) for each in PRUNING if isinstance(each, Scope)} != set()


@pytest.mark.parametrize("base", [CentroidInitialization, ClusteringMethod])
def test_each_way_of_clustering_is_in_the_list(base):
    assert classes(base) == {type(each) for each in CLUSTERING if isinstance(each, base)} != set()


def test_each_way_of_quantizing_is_in_the_list():
    assert classes(RangeEstimator) == set(map(type, ESTIMATORS))
    assert objects(QuantizationScheme, quantization) == set(SCHEMES)
    assert objects(WeightsScheme, quantization) == set(WEIGHTS_SCHEMES)
    assert classes(Rounding) == set(map(type, ROUNDINGS))


def test_each_stage_is_in_the_list():
    listed = {type(stage) for recipe in RECIPES for stage in recipe.stages}
    assert classes(Stage) == set(STAGES.values()) == listed


def test_each_target_is_in_the_list():
    assert objects(targets.Target, targets) == set(TARGETS)


def test_each_format_is_in_the_list():
    assert set(_formats.FORMATS) == set(FORMATS)
    assert _formats.DEFAULT.functions.export is export_litert


def numpy(tensor):
    return np.array(ops.convert_to_numpy(tensor))


@functools.cache
def data():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 6, 6, 3)).astype("float32")
    return x, x.mean((1, 2)).argmax(-1).astype("int32")


@functools.cache
def plain(name="model"):
    return keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.ZeroPadding2D(1),  # as `PruneForLatencyOnXNNPack` wants the beginning of a model
            layers.Conv2D(8, 3, 2, activation="relu", name="stem"),
            layers.Conv2D(8, 1, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(4, activation="softmax"),
        ],
        name=name,
    )


def train(model, optimizer="sgd", callbacks=()):
    """Two steps."""
    model.compile(optimizer, "sparse_categorical_crossentropy")
    model.fit(*data(), batch_size=32, verbose=0, callbacks=list(callbacks))
    return model


def through_a_file(model, folder):
    """The model as it is when it is saved and loaded, which must compute the same."""
    x, _ = data()
    model.save(folder / "model.keras")
    loaded = keras.models.load_model(folder / "model.keras")
    np.testing.assert_allclose(numpy(loaded(x)), numpy(model(x)), rtol=1e-5, atol=1e-5)
    return loaded


def pruned(member):
    arguments = {"pruning_schedule": ConstantSparsity(0.5, 0, frequency=1)}
    kinds = {"granularity": Granularity, "criterion": Criterion, "scope": Scope}
    kinds |= {"pruning_schedule": PruningSchedule, "pruning_policy": PruningPolicy}
    arguments |= {name: member for name, kind in kinds.items() if isinstance(member, kind)}
    if isinstance(member, NofM):
        arguments["overrides"] = {"stem": None}  # 3 inputs are no groups of 4
    callbacks = [UpdatePruningStep(PruningEvidence(data()))] if getattr(member, "needs", ()) else []
    return train(prune_low_magnitude(plain(name_of(member)), **arguments), callbacks=callbacks)


def clustered(member):
    kinds = {"initialization": CentroidInitialization, "method": ClusteringMethod}
    settings = {name: member for name, kind in kinds.items() if isinstance(member, kind)}
    return train(cluster_weights(plain(name_of(member)), ClusteringConfig(4, frequency=1, **settings)))


@functools.cache
def stripped(member):
    """A model that was trained with the member, and stripped, beside the one with transforms."""
    if isinstance(member, CentroidInitialization | ClusteringMethod):
        model = clustered(member)
        return model, strip_clustering(model)
    model = pruned(member)
    return model, strip_pruning(model)


def name_of(member):
    return type(member).__name__.lower() + "_" + type(member).__module__.split(".")[1]


@pytest.mark.parametrize("member", [*PRUNING, *CLUSTERING], ids=name_of)
def test_trains_and_is_stripped(member, tmp_path):
    x, _ = data()
    model, small = stripped(member)
    weights = transformed_weights(model)
    assert weights
    loaded = through_a_file(model, tmp_path)
    assert [each.path for each in transformed_weights(loaded)] == [each.path for each in weights]
    regrown = getattr(member, "fraction", 0.0) / 2  # weights that come back begin at zero
    by_path = {variable.path: numpy(variable) for variable in small.variables}
    for weight in weights:
        values = by_path[weight.variable.path]
        if member in PRUNING:
            tolerance = 0.5 if isinstance(member, WholeModel) else 0.01 + regrown
            assert np.mean(values == 0) == pytest.approx(0.5, abs=tolerance)
        else:
            assert len(np.unique(values)) <= 4
    kernels = [value for path, value in by_path.items() if path.endswith("kernel") and value.any()]
    if member in PRUNING and len(weights) == len(kernels):
        assert np.mean(np.concatenate([kernel.ravel() for kernel in kernels]) == 0) == pytest.approx(
            0.5, abs=0.02 + regrown
        )
    soft = isinstance(member, DifferentiableKMeans)  # what it mixes in training, stripping assigns
    atol = 0.05 if soft else 1e-5
    np.testing.assert_allclose(numpy(small(x)), numpy(model(x, training=False)), rtol=1e-4, atol=atol)
    assert not transformed_weights(small)


def test_float_files_compute_what_the_models_do(tmp_path):
    """One file with all of them, since a conversion costs more than everything else."""
    x, _ = data()
    models = {name_of(member): stripped(member)[1] for member in (*PRUNING, *CLUSTERING)}
    inputs = keras.Input((6, 6, 3), name="x")
    every = keras.Model(inputs, {name: model(inputs) for name, model in models.items()})
    exported = export_litert(every, tmp_path / "every.tflite", verification_data=x[:4])
    received = LiteRTRunner(exported.path, input_names=exported.input_names).run(x)
    assert set(received) == set(models)
    for name, model in models.items():
        np.testing.assert_allclose(received[name], numpy(model(x)), rtol=1e-4, atol=1e-5, err_msg=name)


def check_integers(quantized, folder):
    """Saved, loaded, exported: one least significant bit of the output at most, against the loaded model."""
    x, _ = data()
    loaded = through_a_file(quantized, folder)
    assert np.abs(numpy(strip_quantization(loaded)(x)) - numpy(loaded(x))).max() < 0.1
    exported = export_litert(loaded, folder / "model.tflite", strict=True)
    (received,) = LiteRTRunner(exported.path).run(x).values()
    quantizers = activation_quantizers(loaded)
    step = quantizers[-1].parameters().scale if quantizers else 1e-3  # in floats, but for ties of rows
    assert np.abs(received - numpy(loaded(x))).max() < 1.01 * step


@only_tensorflow
@pytest.mark.parametrize("estimator", ESTIMATORS, ids=name_of)
def test_estimators(estimator, tmp_path):
    check_integers(quantize_post_training(plain(), INT8, data()[0], estimator=estimator), tmp_path)


@pytest.mark.parametrize(
    "scheme", ["INT8", *(pytest.param(name, marks=only_tensorflow) for name in SCHEMES if name != "INT8")]
)
def test_schemes(scheme, tmp_path):
    quantized = train(quantize_model(plain(), SCHEMES[scheme], calibration_data=data()[0]))
    check_integers(quantized, tmp_path)


@only_tensorflow
@pytest.mark.parametrize("scheme", WEIGHTS_SCHEMES)
def test_schemes_of_weights_alone(scheme, tmp_path):
    x, _ = data()
    exported = export_litert(plain(), tmp_path / "model.tflite", weights=WEIGHTS_SCHEMES[scheme].weights)
    (received,) = LiteRTRunner(exported.path).run(x).values()
    np.testing.assert_allclose(received, numpy(plain()(x)), atol=0.02)


@pytest.mark.parametrize(
    "recipe",
    [pytest.param(each, marks=[] if each.name == "stored" else only_tensorflow, id=each.name) for each in RECIPES],
)
def test_stages(recipe, tmp_path):
    """Each stage's file predicts what its model does, and its checkpoint can be gone on with."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = compress(plain(), recipe, data(), output_dir=tmp_path, latency_runs=0, progress=False)
    assert [stage.name for stage in result.stages] == ["float", *recipe.stage_names]
    x, _ = data()
    for stage in result.stages:
        assert stage.metric == pytest.approx(stage.keras_metric, abs=1.5 / 64)
        assert keras.models.load_model(stage.model_path, compile=False)(x).shape == (64, 4)
    (received,) = LiteRTRunner(pathlib.Path(result.artifact)).run(x).values()
    np.testing.assert_allclose(received, numpy(result.model(x)), atol=0.01)


def test_what_is_exported_is_in_the_package():
    """The lists above are of what users see: each member is exported by its room."""
    for member in (*PRUNING, *CLUSTERING, *ESTIMATORS):
        room = getattr(keras_mot, type(member).__module__.split(".")[1])
        assert type(member).__name__ in room.__all__
