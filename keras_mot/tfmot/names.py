"""TFMOT's modules, what is in each, and what takes the place of what is not here."""

import types

import keras

from keras_mot import clustering, quantization, sparsity
from keras_mot.tfmot import quantize, quantize_config, quantizers, schemes, wrappers
from keras_mot.tfmot.clustering import ClusterableLayer, cluster_weights
from keras_mot.tfmot.pruning import prune_low_magnitude, strip_pruning

_COMBINE = {
    "Default8BitPrunePreserveQuantizeScheme": quantization.Default8BitPrunePreserveQuantizeScheme,
    "Default8BitClusterPreserveQuantizeScheme": quantization.Default8BitClusterPreserveQuantizeScheme,
    "strip_clustering_cqat": quantize.strip_clustering_cqat,
}
_QUANTIZE = {
    "QuantizeConfig": quantize_config.QuantizeConfig,
    "fix_input_output_range": quantize.fix_input_output_range,
    "quantize_apply": quantize.quantize_apply,
    "quantize_model": quantize.quantize_model,
    "QuantizeWrapper": wrappers.QuantizeWrapper,
    "QuantizeWrapperV2": wrappers.QuantizeWrapperV2,
}
_QUANTIZERS = {
    kind.__name__: kind
    for kind in (
        quantizers.AllValuesQuantizer,
        quantizers.FixedQuantizer,
        quantizers.LastValueQuantizer,
        quantizers.MovingAverageQuantizer,
        quantizers.Quantizer,
    )
}
_DEFAULT_8BIT = {"Default8BitQuantizeScheme": schemes.Default8BitQuantizeScheme}
_CONFIGS_8BIT = {
    kind.__name__: kind
    for kind in (
        schemes.Default8BitConvQuantizeConfig,
        schemes.Default8BitOutputQuantizeConfig,
        schemes.Default8BitQuantizeConfig,
        schemes.NoOpQuantizeConfig,
    )
}
_DEFAULT_NBIT = {"DefaultNBitQuantizeScheme": schemes.DefaultNBitQuantizeScheme}
_CLUSTERABLE = {"ClusterableLayer": ClusterableLayer}
_CLUSTER = {**_CLUSTERABLE, "cluster_weights": cluster_weights}
_PRUNE = {"prune_low_magnitude": prune_low_magnitude, "strip_pruning": strip_pruning}
_PRUNED = {"PruneLowMagnitude": wrappers.PruneLowMagnitude}
_CLUSTERED = {"ClusterWeights": wrappers.ClusterWeights}
_QUANTIZED = {name: getattr(wrappers, name) for name in ("QuantizeWrapper", "QuantizeWrapperV2")}
_NOTHING = {}

# Path below `keras_mot` -> (names that are there, the room that has all others or `None`).
PUBLIC = {
    "sparsity.keras": (_PRUNE, sparsity),
    "clustering.keras": (_CLUSTER, clustering),
    "clustering.keras.clusterable_layer": (_CLUSTERABLE, None),
    "clustering.keras.experimental": (_CLUSTER, clustering),
    "clustering.experimental": (_CLUSTER, clustering),
    "quantization.keras": (_QUANTIZE | _QUANTIZERS, quantization),
    "quantization.keras.quantizers": (_QUANTIZERS, None),
    "quantization.keras.default_8bit": (_DEFAULT_8BIT, None),
    "quantization.keras.default_8bit.default_8bit_transforms": (_NOTHING, None),
    "quantization.keras.collab_opts": (_COMBINE, None),
    "quantization.keras.graph_transformations": (_NOTHING, None),
    "quantization.keras.graph_transformations.model_transformer": (_NOTHING, None),
    "quantization.keras.graph_transformations.transforms": (_NOTHING, None),
    "quantization.keras.experimental": (_NOTHING, None),
    "quantization.keras.experimental.default_n_bit": (_DEFAULT_NBIT, None),
    "quantization.keras.experimental.default_n_bit.default_n_bit_transforms": (_NOTHING, None),
    "experimental": (_NOTHING, None),
    "experimental.combine": (_COMBINE, quantization),
}


def _keras_of_tensorflow():
    """Keras, with what `tf.keras` has of Keras 2 beside it: `keras.backend.clip` and others."""
    if keras.backend.backend() != "tensorflow":
        return keras
    from tensorflow import keras as of_tensorflow

    return of_tensorflow


_SPARSITY, _CLUSTERING, _QUANTIZATION = (
    f"python.core.{room}.keras" for room in ("sparsity", "clustering", "quantization")
)
# The modules that TFMOT's examples import from, though they are not public there.
DEEP = {
    "python.core.keras.compat": ({"keras": _keras_of_tensorflow()}, None),
    **{
        f"{_SPARSITY}.{name}": (_PRUNE, sparsity)
        for name in ("prunable_layer", "prune", "pruning_callbacks", "pruning_policy", "pruning_schedule")
    },
    f"{_SPARSITY}.pruning_utils": (_NOTHING, None),
    f"{_SPARSITY}.prune.pruning_wrapper": (_PRUNED, None),
    f"{_SPARSITY}.pruning_wrapper": (_PRUNED, None),
    **{
        f"{_CLUSTERING}.{name}": (_CLUSTER, clustering)
        for name in ("cluster", "cluster_config", "clusterable_layer", "clustering_callbacks", "experimental.cluster")
    },
    f"{_CLUSTERING}.cluster.cluster_wrapper": (_CLUSTERED, None),
    f"{_CLUSTERING}.cluster_wrapper": (_CLUSTERED, None),
    f"{_CLUSTERING}.clustering_algorithm": (_NOTHING, None),
    **{
        f"{_QUANTIZATION}.{name}": (_QUANTIZE | _QUANTIZERS, quantization)
        for name in ("quantize", "quantize_annotate", "quantize_config", "quantizers")
    },
    f"{_QUANTIZATION}.quantize.quantize_wrapper": (_QUANTIZED, None),
    f"{_QUANTIZATION}.quantize_wrapper": (_QUANTIZED, None),
    f"{_QUANTIZATION}.quantize_scheme": (_NOTHING, None),
    **{
        f"{_QUANTIZATION}.collab_opts.{name}": (_COMBINE, None)
        for name in (
            "cluster_preserve.cluster_utils",
            "cluster_preserve.default_8bit_cluster_preserve_quantize_scheme",
            "prune_preserve.default_8bit_prune_preserve_quantize_scheme",
        )
    },
    f"{_QUANTIZATION}.default_8bit.default_8bit_quantize_configs": (_CONFIGS_8BIT, None),
    f"{_QUANTIZATION}.default_8bit.default_8bit_quantize_registry": (_CONFIGS_8BIT, None),
    f"{_QUANTIZATION}.default_8bit.default_8bit_quantize_scheme": (_DEFAULT_8BIT, None),
    f"{_QUANTIZATION}.default_8bit.default_8bit_transforms": (_NOTHING, None),
    f"{_QUANTIZATION}.experimental.default_n_bit.default_n_bit_quantize_scheme": (_DEFAULT_NBIT, None),
}

_SCHEME = (
    "a scheme is a `keras_mot.quantization.QuantizationScheme`, which says how many bits there are; "
    "`quantize_annotate_layer` and `overrides` say what is different for some layers."
)
_REGISTRY = (
    "what an operation is stands in one table, which `keras_mot.graph.register_kind` adds to; how a layer is quantized "
    "is said by `quantize_annotate_layer(layer, quantize_config)`."
)
_TRANSFORMS = (
    "models are changed by `keras_mot.graph.rewrite(model, call)`, a function from an operation to what takes its "
    "place. Batch normalization is folded, and layers are broken down, by `quantize_model` itself."
)
_LAYOUT_TRANSFORMS = (
    "ConcatTransform",
    "ConcatTransform3Inputs",
    "ConcatTransform4Inputs",
    "ConcatTransform5Inputs",
    "ConcatTransform6Inputs",
    "Conv2DBatchNormActivationQuantize",
    "Conv2DBatchNormQuantize",
    "Conv2DBatchNormReLUQuantize",
    "Conv2DReshapeBatchNormActivationQuantize",
    "Conv2DReshapeBatchNormQuantize",
    "Conv2DReshapeBatchNormReLUQuantize",
    "DenseBatchNormActivationQuantize",
    "DenseBatchNormQuantize",
    "DenseBatchNormReLUQuantize",
    "InputLayerQuantize",
    "LayerReLUQuantize",
    "LayerReluActivationQuantize",
    "SeparableConv1DQuantize",
    "SeparableConvQuantize",
)
SUCCESSORS = {
    "ClusteringAlgorithm": (
        "how shared values and assignments are found is a `keras_mot.clustering.ClusteringMethod`, in a "
        "`ClusteringConfig`."
    ),
    "Default8BitQuantizeLayoutTransform": _TRANSFORMS,
    "Default8BitQuantizeRegistry": _REGISTRY,
    "DefaultNBitQuantizeLayoutTransform": _TRANSFORMS,
    "DefaultNBitQuantizeRegistry": _REGISTRY,
    "LayerNode": _TRANSFORMS,
    "LayerPattern": _TRANSFORMS,
    "ModelTransformer": _TRANSFORMS,
    "QuantizeLayoutTransform": _TRANSFORMS,
    "QuantizeRegistry": _REGISTRY,
    "QuantizeScheme": _SCHEME,
    "Transform": _TRANSFORMS,
    "is_pruned_m_by_n": "`keras_mot.sparsity.pruning_report(model)` has the granularity of each pruned weight.",
    "remove_input_range": (
        "integer kernels take integers, so that inputs are rounded in any case. `input_type='int8'` of "
        "`keras_mot.export.export_litert` makes a file that is given integers."
    ),
    **dict.fromkeys(_LAYOUT_TRANSFORMS, _TRANSFORMS),
}
"""Names of TFMOT's -> what takes their place, as the rest of a sentence."""


def all_modules() -> dict[str, tuple[dict, types.ModuleType | None]]:
    """`PUBLIC` and `DEEP`, and the modules above them."""
    modules = PUBLIC | DEEP
    for path in DEEP:
        parts = path.split(".")
        for length in range(1, len(parts)):
            modules.setdefault(".".join(parts[:length]), (_NOTHING, None))
    for room in ("sparsity", "clustering", "quantization"):
        modules[f"python.core.api.{room}.keras"] = PUBLIC[f"{room}.keras"]
        modules[f"python.core.api.{room}"] = (_NOTHING, None)
    modules["python.core.api"] = (_NOTHING, None)
    return modules
