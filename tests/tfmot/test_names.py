"""Every public name of TFMOT 0.8.1 is there, or says what takes its place; so do the modules its examples import."""

import importlib

import keras
import pytest

import keras_mot as tfmot
from keras_mot.tfmot.names import SUCCESSORS, all_modules

pytestmark = pytest.mark.backend_independent

TRANSFORMS = """
    ConcatTransform ConcatTransform3Inputs ConcatTransform4Inputs ConcatTransform5Inputs ConcatTransform6Inputs
    Conv2DBatchNormActivationQuantize Conv2DBatchNormQuantize Conv2DBatchNormReLUQuantize
    Conv2DReshapeBatchNormActivationQuantize Conv2DReshapeBatchNormQuantize Conv2DReshapeBatchNormReLUQuantize
    InputLayerQuantize LayerReluActivationQuantize LayerReLUQuantize SeparableConv1DQuantize SeparableConvQuantize
"""
PUBLIC = {
    "sparsity.keras": """prune_low_magnitude prune_scope strip_pruning UpdatePruningStep PruningSummaries
        PruningSchedule ConstantSparsity PolynomialDecay PrunableLayer PruningPolicy PruneForLatencyOnXNNPack""",
    "clustering.keras": """cluster_scope cluster_weights strip_clustering CentroidInitialization ClusteringAlgorithm
        ClusteringSummaries ClusterableLayer""",
    "clustering.keras.experimental": "cluster_weights",
    "clustering.keras.clusterable_layer": "ClusterableLayer",
    "quantization.keras": """quantize_model fix_input_output_range quantize_annotate_layer quantize_annotate_model
        quantize_apply remove_input_range QuantizeConfig QuantizeWrapper QuantizeWrapperV2 quantize_scope
        QuantizeScheme QuantizeLayoutTransform QuantizeRegistry""",
    "quantization.keras.quantizers": """AllValuesQuantizer FixedQuantizer LastValueQuantizer MovingAverageQuantizer
        Quantizer""",
    "quantization.keras.default_8bit": """Default8BitQuantizeScheme Default8BitQuantizeLayoutTransform
        Default8BitQuantizeRegistry""",
    "quantization.keras.default_8bit.default_8bit_transforms": TRANSFORMS,
    "quantization.keras.collab_opts": "Default8BitPrunePreserveQuantizeScheme",
    "quantization.keras.experimental.default_n_bit": """DefaultNBitQuantizeScheme DefaultNBitQuantizeLayoutTransform
        DefaultNBitQuantizeRegistry""",
    "quantization.keras.experimental.default_n_bit.default_n_bit_transforms": TRANSFORMS,
    "quantization.keras.graph_transformations.model_transformer": "ModelTransformer",
    "quantization.keras.graph_transformations.transforms": "LayerNode LayerPattern Transform",
    "experimental.combine": """strip_clustering_cqat Default8BitClusterPreserveQuantizeScheme
        Default8BitPrunePreserveQuantizeScheme""",
}
MISSING = [
    "ClusteringAlgorithm",
    "Default8BitQuantizeLayoutTransform",
    "Default8BitQuantizeRegistry",
    "DefaultNBitQuantizeLayoutTransform",
    "DefaultNBitQuantizeRegistry",
    "LayerNode",
    "LayerPattern",
    "ModelTransformer",
    "QuantizeLayoutTransform",
    "QuantizeRegistry",
    "QuantizeScheme",
    "Transform",
    "remove_input_range",
] + TRANSFORMS.split()


@pytest.mark.parametrize(("path", "name"), [(path, name) for path, names in PUBLIC.items() for name in names.split()])
def test_a_public_name_is_there_or_says_what_takes_its_place(path, name):
    module = importlib.import_module(f"keras_mot.{path}")
    by_attributes = tfmot
    for part in path.split("."):
        by_attributes = getattr(by_attributes, part)
    assert module is by_attributes
    if name not in MISSING:
        assert getattr(module, name).__doc__
        assert name in dir(module)
        return
    with pytest.raises(AttributeError, match=f"`{name}` of TFMOT is not in keras-mot: .*`[a-z]"):
        getattr(module, name)
    with pytest.raises(ImportError, match=f"`{name}` of TFMOT is not in keras-mot: .*`[a-z]"):
        exec(f"from keras_mot.{path} import {name}", {})


def test_unknown_names_are_errors_as_of_any_module():
    assert not hasattr(tfmot.sparsity.keras, "no_such_thing")
    with pytest.raises(ImportError, match="no_such_thing"):
        exec("from keras_mot.quantization.keras import no_such_thing", {})


def test_what_is_said_to_take_a_place_exists():
    for text in {*SUCCESSORS.values(), tfmot.quantization.keras.QuantizeWrapper.successor}:
        for word in text.split("`")[1::2]:
            path = word.split("(")[0].split(".") if word.startswith("keras_mot.") else []
            item = tfmot
            for part in path[1:]:
                item = getattr(item, part)


def test_modules_that_examples_import_from():
    from keras_mot.python.core.clustering.keras import cluster, cluster_config
    from keras_mot.python.core.clustering.keras.experimental import cluster as experimental
    from keras_mot.python.core.keras.compat import keras as compat
    from keras_mot.python.core.quantization.keras import quantize
    from keras_mot.python.core.quantization.keras.collab_opts.cluster_preserve import cluster_utils
    from keras_mot.python.core.quantization.keras.default_8bit import default_8bit_quantize_configs
    from keras_mot.python.core.sparsity.keras import prune, pruning_callbacks, pruning_schedule

    assert cluster.cluster_weights is experimental.cluster_weights is tfmot.clustering.keras.cluster_weights
    assert cluster_config.CentroidInitialization is tfmot.clustering.CentroidInitialization
    assert compat.layers.Dense is keras.layers.Dense
    assert quantize.quantize_apply is tfmot.quantization.keras.quantize_apply
    assert cluster_utils.strip_clustering_cqat is tfmot.experimental.combine.strip_clustering_cqat
    assert default_8bit_quantize_configs.NoOpQuantizeConfig().get_config() == {}
    assert prune.prune_low_magnitude is tfmot.sparsity.keras.prune_low_magnitude
    assert pruning_callbacks.UpdatePruningStep is tfmot.sparsity.UpdatePruningStep
    assert pruning_schedule.PolynomialDecay is tfmot.sparsity.PolynomialDecay


def test_all_modules_import():
    modules = [importlib.import_module(f"keras_mot.{path}") for path in all_modules()]
    assert len(modules) > 50
    assert all(getattr(module, name) is not None for module in modules for name in module.__all__)


def test_wrappers():
    """Scripts ask whether a layer is one, to print something: none is, and it is said what to print instead."""
    wrapper = tfmot.quantization.keras.QuantizeWrapper
    with pytest.warns(UserWarning, match="No layer is a `QuantizeWrapper`: layers are not wrapped"):
        assert not isinstance(keras.layers.Dense(2), wrapper)
    with pytest.raises(TypeError, match="no `QuantizeWrapper` to be made"):
        wrapper(keras.layers.Dense(2))
