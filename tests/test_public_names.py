"""What is public: the names of each room, each with a docstring, and those that TFMOT's users write.

A name is added here on purpose, with a line in a guide. Rooms have more that can be imported, such as rows of reports.
"""

import inspect
import pathlib

import pytest

import keras_mot

DOCUMENTS = pathlib.Path(__file__).resolve().parents[1]

NAMES = {
    "analysis": """DriftReport OperatorTime Report Sensitivity
        SensitivityRow activation_ranges check ethos_u measure measure_drift operator_times plots report sensitivity
        sparsity tensor_stats zipped_bytes""",
    "clustering": """CentroidInitialization ClusteringConfig ClusteringMethod ClusteringReport ClusteringSummaries
        DensityBased DifferentiableKMeans ExactKMeans KMeansPlusPlus Linear Random SharedValues cluster_scope
        cluster_weights clustering_report strip_clustering""",
    "export": """Export ExportVerificationError LiteRTExport LiteRTRunner
        MicroRunner OnnxExport OnnxRunner OpenVINORunner Package compile_ethos_u export_litert export_onnx pack unpack
        write_micro_sources""",
    "graph": "Call Graph Kind fold_batch_norm register_kind rewrite split_preprocessing trace",
    "layers": """TransformSchedule UpdateTransforms WeightAxes WeightSpec attach copy_model register_weights strip
        transformed_weights update_step""",
    "low_rank": """Decomposition EnergyShare FactorizationPlan FactorizedLayer FixedRank InputChannels OutputChannels
        ParameterShare RankRule Spatial Tucker factorize plan_factorization""",
    "quantization": """ActivationQuantizer AdaRound AllValuesQuantizer Calibration DYNAMIC_INT4 DYNAMIC_INT8
        DYNAMIC_RANGE Default8BitClusterPreserveQuantizeScheme Default8BitPrunePreserveQuantizeScheme 
        Entropy FLOAT16 FixedQuantizer GPTQ INT16X8 INT4_WEIGHTS INT8 LastValueQuantizer LeastSquares MeanMinMax
        MeanOfSamples MinMax MostSamples MovingAverage MovingAverageQuantizer Nearest Percentile
        QuantizationParameters QuantizationScheme QuantizationSummaries QuantizeConfig RangeEstimator Rounding
        SecondOrderRounding SeenValues WeightsScheme freeze_batch_norm layer_io quantize_annotate_layer
        quantize_annotate_model quantize_apply quantize_model quantize_post_training quantize_scope
        reference_rounding strip_quantization""",
    "recipes": """PRESETS STAGES Budget Cluster CompressionResult Executor Factorize FineTune PostTraining Processes
        Prune PruneChannels QuantizeAware Ray Recipe RemoveChannels SearchResult Stage StageResult
        StoreWeights Trial Tune compress recommend search""",
    "sparsity": """SET SNIP Block Channel ConstantSparsity Criterion Element Gradient Granularity InformedCriterion
        Magnitude Movement NofM OptimalBrainSurgeon PerLayer PolynomialDecay PrunableLayer PruneForLatencyOnXNNPack
        PruningConfig PruningEvidence PruningPolicy PruningReport PruningSchedule PruningSummaries Random Regrow RigL
        Taylor UpdatePruningStep Wanda WeightEvidence WholeModel prune_at_once prune_channels prune_low_magnitude
        prune_scope pruning_due pruning_report refit remove_pruned_channels strip_pruning update_pruning_step""",
    "targets": """Cost Costs ETHOS_U ETHOS_U85 LITERT MICRO Target get register target_of""",
    "transforms": "Codebook FakeQuantize Mask SoftCodebook WeightTransform",
}
TFMOT = [
    "sparsity.keras.prune_low_magnitude",
    "sparsity.keras.strip_pruning",
    "sparsity.keras.prune_scope",
    "sparsity.keras.ConstantSparsity",
    "sparsity.keras.PolynomialDecay",
    "sparsity.keras.PruningSchedule",
    "sparsity.keras.PruningPolicy",
    "sparsity.keras.PruneForLatencyOnXNNPack",
    "sparsity.keras.PrunableLayer",
    "sparsity.keras.UpdatePruningStep",
    "sparsity.keras.PruningSummaries",
    "clustering.keras.cluster_weights",
    "clustering.keras.cluster_scope",
    "clustering.keras.strip_clustering",
    "clustering.keras.CentroidInitialization.LINEAR",
    "clustering.keras.CentroidInitialization.RANDOM",
    "clustering.keras.CentroidInitialization.DENSITY_BASED",
    "clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS",
    "clustering.keras.experimental.cluster_weights",
    "quantization.keras.quantize_model",
    "quantization.keras.quantize_apply",
    "quantization.keras.quantize_annotate_layer",
    "quantization.keras.quantize_annotate_model",
    "quantization.keras.quantize_scope",
    "quantization.keras.QuantizeConfig",
    "experimental.combine.Default8BitPrunePreserveQuantizeScheme",
    "experimental.combine.Default8BitClusterPreserveQuantizeScheme",
]


@pytest.mark.parametrize("room", NAMES)
def test_public_names(room):
    expected, given = set(NAMES[room].split()), set(getattr(keras_mot, room).__all__)
    assert given - expected == set()
    assert expected == given


def test_rooms():
    assert set(NAMES) <= set(keras_mot.__all__)
    assert sum(len(names.split()) for names in NAMES.values()) < 207


@pytest.mark.parametrize("room", NAMES)
def test_each_has_a_docstring(room):
    module = getattr(keras_mot, room)
    assert module.__doc__
    for name in module.__all__:
        item = getattr(module, name)
        if inspect.isclass(item) or inspect.isroutine(item):
            assert (inspect.getdoc(item) or "").strip(), name
            own = vars(item).get("__doc__") if inspect.isclass(item) else item.__doc__
            assert own, f"{name} inherits its docstring"
            assert not own.startswith(f"{name}("), f"{name} has the docstring that dataclasses make"


@pytest.mark.parametrize("path", TFMOT)
def test_spellings_of_tfmot(path):
    item = keras_mot
    for name in path.split("."):
        item = getattr(item, name)
    assert item is not None


def test_guides_name_what_is_public():
    """Most public names are in the README, a guide or an example; those that are not are what these lead to."""
    files = [DOCUMENTS / "README.md", *(DOCUMENTS / "docs").glob("*.md"), *(DOCUMENTS / "examples").glob("*.py")]
    words = {word for file in files for word in _words(file.read_text(encoding="utf-8"))}
    unnamed = {f"{room}.{name}" for room, names in NAMES.items() for name in names.split() if name not in words}
    assert unnamed <= LED_TO


def _words(text):
    return "".join(letter if letter.isalnum() or letter == "_" else " " for letter in text).split()


LED_TO = {
    "analysis.DriftReport",  # what functions return
    "analysis.OperatorTime",
    "analysis.Report",
    "clustering.ClusteringReport",
    "export.LiteRTExport",
    "export.OnnxExport",
    "export.OnnxRunner",
    "export.OpenVINORunner",
    "export.Package",
    "recipes.CompressionResult",
    "quantization.QuantizationParameters",
    "sparsity.PruningReport",
    "targets.MICRO",  # asked for by its name, "micro"
    "targets.target_of",
    "targets.BiasForm",  # what those who extend the toolkit need beside a class that guides name
    "targets.register",
    "clustering.DensityBased",  # members of families, which the guides name by their base or in words
    "clustering.KMeansPlusPlus",
    "clustering.Linear",
    "quantization.Nearest",
    "quantization.WeightsScheme",
    "recipes.RemoveChannels",
    "recipes.StoreWeights",
    "recipes.Tune",
    "clustering.cluster_scope",  # for scripts of TFMOT
    "quantization.quantize_scope",
    "sparsity.PrunableLayer",
    "sparsity.PruningPolicy",
}
