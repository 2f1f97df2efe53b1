"""The stages that recipes are made of."""

import abc
import dataclasses
import re
import warnings
from typing import Any, ClassVar

import keras

from keras_mot._config import Config
from keras_mot.clustering import ClusteringConfig, ExactKMeans, cluster_weights
from keras_mot.layers import copy_model, strip
from keras_mot.layers._select import matches_layer
from keras_mot.quantization import QuantizationScheme, WeightsScheme, quantize_model, quantize_post_training
from keras_mot.quantization.batch_norm import settled_fold
from keras_mot.recipes.fine_tuning import FineTune, check_number, check_whole
from keras_mot.sparsity import Channel, PolynomialDecay, WholeModel, prune_low_magnitude, remove_pruned_channels
from keras_mot.sparsity.channels import layers_before_outputs

_PRUNING_SHARE = 0.75  # of the training; the rest lets the remaining weights recover


@dataclasses.dataclass(frozen=True)
class Stage(Config, abc.ABC):
    """One step of a recipe: it changes a model, and trains it.

    A stage of your own is a frozen dataclass with `key`, its name in recipes, `rank`, its place among the others (0 for
    any place, as often as one likes), a field `fine_tune` of type `FineTune` or `None` unless it never trains, and
    `apply`.
    """

    key: ClassVar[str]
    rank: ClassVar[int]
    # Without types: subclasses declare them as fields, in an order of their own.
    fine_tune = None
    skip = ()

    @abc.abstractmethod
    def apply(self, model: keras.Model, run: Any) -> keras.Model:
        """The model as it is trained in this stage; transforms of earlier stages stay attached.

        Args:
            model: the model of the stage before.
            run: what is known of the run: `run.steps(fine_tune)`, the training steps; `run.calibration(samples)`,
                inputs to calibrate with; `run.progress`; and `run.quantizes`, whether a stage of the recipe does.
        """

    def trained(self, model: keras.Model) -> keras.Model:
        """What the stage hands on once its model is trained; by default, the model as it is."""
        return model

    def export_options(self) -> dict[str, Any]:
        """Arguments of `export_litert` for the file of this stage."""
        return {}

    def pruning_epochs(self) -> int:
        """Epochs in which the model may not be at its best yet, because the stage is still at work."""
        return 0


def _check_fine_tune(value):
    if value is not None and not isinstance(value, FineTune):
        raise TypeError(f"`fine_tune` should be a `FineTune`, or None for no training; received {value!r}.")


def _check_include_depthwise(stage):
    if stage.include_depthwise not in (None, True, False):
        raise TypeError(f"`include_depthwise` should be true or false; received {stage.include_depthwise!r}.")


def _check_skip(stage):
    if isinstance(stage.skip, str) or not isinstance(stage.skip, list | tuple):
        raise TypeError(f"`skip` should be a list of regular expressions; received {stage.skip!r}.")
    object.__setattr__(stage, "skip", tuple(stage.skip))
    for expression in stage.skip:
        try:
            re.compile(expression)
        except (re.error, TypeError) as error:
            raise ValueError(f"`skip` holds {expression!r}, which is no regular expression: {error}.") from error


def check_skipped(stage, model):
    """Raises a `ValueError` if a stage skips a layer that a model does not have."""
    layers = [layer for layer in model._flatten_layers() if layer is not model]
    for expression in stage.skip:
        if not any(matches_layer(expression, layer) for layer in layers):
            raise ValueError(
                f"Stage '{stage.key}': no layer matches {expression!r} of `skip`; there are: "
                f"{[layer.name for layer in layers]}."
            )


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Tune(Stage):
    """Trains the model as it is; with a teacher, distillation alone.

    Args:
        fine_tune: a `FineTune`.
    """

    key: ClassVar[str] = "tune"
    rank: ClassVar[int] = 0

    fine_tune: FineTune = dataclasses.field(default_factory=FineTune)

    def __post_init__(self):
        if not isinstance(self.fine_tune, FineTune):
            raise TypeError(f"`fine_tune` should be a `FineTune`; received {self.fine_tune!r}.")

    def apply(self, model, run):
        """A copy."""
        return copy_model(model)


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Prune(Stage):
    """Prunes by magnitude, gradually over the first three quarters of the training.

    Args:
        sparsity: share of zeros at the end, in [0, 1).
        initial_sparsity: share of zeros at the start; by default 0.5, or `sparsity` if that is less.
        block: (inputs, outputs) of the blocks that are pruned together, such as (1, 2).
        n_m: (zeros, group) of an N:M pattern, such as (2, 4), which fixes the sparsity.
        channels: whether whole output channels are pruned, but not those of the model's outputs. `RemoveChannels` then
            makes the model smaller.
        scope: "layer", or "model" for one ranking over all weights.
        min_density: with "model", the share of its weights that each layer keeps at least.
        frequency: training steps between two updates of the masks; at most a tenth of the schedule.
        skip: regular expressions of the layers to leave alone.
        fine_tune: a `FineTune`, or `None` to prune at once.
        include_depthwise: whether depthwise kernels are pruned, too; by default only with `channels`.
    """

    key: ClassVar[str] = "prune"
    rank: ClassVar[int] = 1

    sparsity: float = 0.5
    initial_sparsity: float | None = None
    block: tuple[int, int] | None = None
    n_m: tuple[int, int] | None = None
    channels: bool = False
    scope: str = "layer"
    min_density: float = 0.02
    frequency: int = 100
    skip: tuple[str, ...] = ()
    fine_tune: FineTune | None = dataclasses.field(default_factory=lambda: FineTune(2, 1e-3))
    include_depthwise: bool | None = None

    def __post_init__(self):
        for name in ("sparsity", "initial_sparsity"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), 0.0, 1.0)
                if getattr(self, name) == 1.0:
                    raise ValueError(f"`{name}` should be below 1; received 1.0.")
        if self.initial_sparsity is not None and self.initial_sparsity > self.sparsity:
            raise ValueError(
                f"`initial_sparsity` should be at most `sparsity`, {self.sparsity:g}; received {self.initial_sparsity}."
            )
        for name in ("block", "n_m"):
            value = getattr(self, name)
            if value is not None:
                if not isinstance(value, list | tuple) or len(value) != 2:
                    raise TypeError(f"`{name}` should be two integers; received {value!r}.")
                for part in value:
                    check_whole(name, part, 1)
                object.__setattr__(self, name, tuple(value))
        if not isinstance(self.channels, bool):
            raise TypeError(f"`channels` should be True or False; received {self.channels!r}.")
        if sum(map(bool, (self.block, self.n_m, self.channels))) > 1:
            raise ValueError("`block`, `n_m` and `channels` cannot go together: give one of them.")
        if self.scope not in ("layer", "model"):
            raise ValueError(f"`scope` should be 'layer' or 'model'; received {self.scope!r}.")
        check_whole("frequency", self.frequency, 1)
        _check_skip(self)
        _check_include_depthwise(self)
        _check_fine_tune(self.fine_tune)
        if self.scope == "model":
            WholeModel(self.min_density)
            if self.n_m:
                raise ValueError("`n_m` is the same in every group: it cannot go with `scope` 'model'.")

    def apply(self, model, run):
        """A copy with masks."""
        steps = 0 if self.fine_tune is None else int(run.steps(self.fine_tune) * _PRUNING_SHARE)
        start = min(0.5, self.sparsity) if self.initial_sparsity is None else self.initial_sparsity
        schedule = PolynomialDecay(
            start if steps else self.sparsity,
            self.sparsity,
            0,
            max(1, steps),
            frequency=min(self.frequency, max(1, steps // 10)),
        )
        skipped = [*self.skip, *(layers_before_outputs(model) if self.channels else ())]
        return prune_low_magnitude(
            model,
            schedule,
            granularity=Channel() if self.channels else None,
            block_size=self.block or (1, 1),
            sparsity_m_by_n=self.n_m,
            scope=WholeModel(self.min_density) if self.scope == "model" else None,
            overrides=dict.fromkeys(skipped),
            include_depthwise=self.include_depthwise,
        )

    def pruning_epochs(self):
        """The epochs of the schedule."""
        return 0 if self.fine_tune is None else -(-3 * self.fine_tune.epochs // 4)


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class RemoveChannels(Stage):
    """Removes the channels that pruning made zero: the model becomes smaller, and its masks end here.

    Args:
        exact: as of `keras_mot.sparsity.remove_pruned_channels`.
        fine_tune: a `FineTune`, or `None` for no training.
    """

    key: ClassVar[str] = "remove_channels"
    rank: ClassVar[int] = 2

    exact: bool = True
    fine_tune: FineTune | None = None

    def __post_init__(self):
        if not isinstance(self.exact, bool):
            raise TypeError(f"`exact` should be True or False; received {self.exact!r}.")
        _check_fine_tune(self.fine_tune)

    def apply(self, model, run):
        """A smaller model without masks."""
        return remove_pruned_channels(strip(copy_model(model)), self.exact)


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class Cluster(Stage):
    """Clusters weights; zeros of a pruning stage before stay zeros, and are one of the values.

    Args:
        number_of_clusters: how many different values a weight tensor has at most.
        per_channel: whether each output channel has values of its own.
        preserve_sparsity: whether the zeros of a model that was pruned elsewhere stay zeros.
        entropy_weight: how much smaller zipped files are preferred to smaller errors, see `ExactKMeans`; about 0.02.
        frequency: training steps between two assignments of weights to values.
        skip: regular expressions of the layers to leave alone.
        fine_tune: a `FineTune`, or `None` to cluster only.
        include_depthwise: whether depthwise kernels are clustered, too; by default they are not.
    """

    key: ClassVar[str] = "cluster"
    rank: ClassVar[int] = 3

    number_of_clusters: int = 16
    per_channel: bool = False
    preserve_sparsity: bool = False
    entropy_weight: float = 0.0
    frequency: int = 10
    skip: tuple[str, ...] = ()
    fine_tune: FineTune | None = dataclasses.field(default_factory=FineTune)
    include_depthwise: bool | None = None

    def __post_init__(self):
        for name in ("per_channel", "preserve_sparsity"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"`{name}` should be true or false; received {getattr(self, name)!r}.")
        self._config()
        _check_skip(self)
        _check_include_depthwise(self)
        _check_fine_tune(self.fine_tune)

    def _config(self):
        return ClusteringConfig(
            self.number_of_clusters,
            initialization=ExactKMeans(entropy_weight=self.entropy_weight),
            per_channel=self.per_channel,
            frequency=self.frequency,
        )

    def apply(self, model, run):
        """A copy with codebooks."""
        config = self._config()
        with warnings.catch_warnings():
            if run.quantizes:  # quantization keeps the values that batch normalization would multiply
                warnings.filterwarnings("ignore", message=".*whose weights are clustered now")
            return cluster_weights(
                model,
                config,
                preserve_sparsity=self.preserve_sparsity,
                overrides=dict.fromkeys(self.skip),
                include_depthwise=self.include_depthwise,
            )


@dataclasses.dataclass(frozen=True)
class _Quantization(Stage):
    rank: ClassVar[int] = 4

    weight_bits: int = 8
    activation_bits: int = 8
    per_channel: bool = True
    calibration_samples: int = 512
    skip: tuple[str, ...] = ()

    def __post_init__(self):
        self.scheme()
        check_whole("calibration_samples", self.calibration_samples, 1)
        _check_skip(self)

    def scheme(self):
        """The `QuantizationScheme`."""
        return QuantizationScheme(self.weight_bits, self.activation_bits, self.per_channel)

    def _quantized(self, function, model, run, **options):
        return function(
            model,
            self.scheme(),
            calibration_data=run.calibration(self.calibration_samples),
            overrides=dict.fromkeys(self.skip),
            progress=run.progress,
            **options,
        )


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class PostTraining(_Quantization):
    """Quantizes after training; masks and codebooks of earlier stages are kept.

    Args:
        weight_bits: bits of a weight, 2 to 8.
        activation_bits: 8 or 16.
        per_channel: whether each output channel has a scale of its own.
        calibration_samples: samples of the training data that ranges are chosen on.
        skip: regular expressions of the layers to leave in floats.
    """

    key: ClassVar[str] = "post_training"

    def apply(self, model, run):
        """A quantized copy."""
        return self._quantized(quantize_post_training, model, run)


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class StoreWeights(Stage):
    """Stores the weights in fewer bits; the model computes in floats, and needs no calibration.

    Args:
        weights: "float16", or "int8" for large weights of 8 bits (dynamic range quantization).
    """

    key: ClassVar[str] = "store_weights"
    rank: ClassVar[int] = 4

    weights: str = "float16"

    def __post_init__(self):
        WeightsScheme(self.weights)

    def apply(self, model, run):
        """A copy: what changes is the file."""
        return copy_model(model)

    def export_options(self):
        """How the file stores its weights."""
        return {"weights": self.weights}


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class QuantizeAware(_Quantization):
    """Quantizes, and trains with rounded weights and activations; masks and codebooks of earlier stages are kept.

    Args:
        weight_bits: bits of a weight, 2 to 8.
        activation_bits: 8 or 16.
        per_channel: whether each output channel has a scale of its own.
        calibration_samples: samples of the training data that ranges start from.
        skip: regular expressions of the layers to leave in floats.
        learned_scales: whether scales are trained too.
        batch_norm_steps: training steps in which batch normalization goes on with the statistics of each batch. 0: it
            is folded before training; `None`: it goes on to the end.
        fine_tune: a `FineTune`.
    """

    key: ClassVar[str] = "quantize_aware"

    learned_scales: bool = False
    batch_norm_steps: int | None = 0
    fine_tune: FineTune = dataclasses.field(default_factory=FineTune)

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.fine_tune, FineTune):
            raise TypeError(f"`fine_tune` should be a `FineTune`; received {self.fine_tune!r}.")
        if self.batch_norm_steps is not None:
            check_whole("batch_norm_steps", self.batch_norm_steps, 0)
        if self.batch_norm_steps != 0 and not self.per_channel:
            raise ValueError("`batch_norm_steps` needs a scale for each channel: it goes with `per_channel` true.")

    def scheme(self):
        """The `QuantizationScheme`."""
        return QuantizationScheme(self.weight_bits, self.activation_bits, self.per_channel, self.learned_scales)

    def apply(self, model, run):
        """A quantized copy."""
        return self._quantized(quantize_model, model, run, batch_norm_steps=self.batch_norm_steps)

    def trained(self, model):
        """The model with its batch normalization folded."""
        return settled_fold(model)


STAGES = {
    stage.key: stage for stage in (Tune, Prune, RemoveChannels, Cluster, PostTraining, StoreWeights, QuantizeAware)
}
"""The stages by their names in recipe files."""
