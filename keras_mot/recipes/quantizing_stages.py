"""The stages that store numbers in fewer bits."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import keras

from keras_mot._messages import describe, nearest
from keras_mot._numbers import check_whole
from keras_mot.layers import copy_model
from keras_mot.quantization import (
    Calibration,
    Entropy,
    LeastSquares,
    MeanMinMax,
    MeanOfSamples,
    MinMax,
    MostSamples,
    MovingAverage,
    Nearest,
    Percentile,
    QuantizationScheme,
    Rounding,
    SecondOrderRounding,
    WeightsScheme,
    quantize_model,
    quantize_post_training,
)
from keras_mot.quantization.algorithms.batch_norm import settled_fold
from keras_mot.quantization.schemes import DYNAMIC
from keras_mot.quantization.simulation.checks import check_placement
from keras_mot.recipes._stage import Stage, check_overrides, check_skip
from keras_mot.recipes.fine_tuning import FineTune
from keras_mot.recipes.rounding_names import rounding_named
from keras_mot.targets import LITERT, get
from keras_mot.transforms import FakeQuantize

_TYPES = {8: ("float32", "int8", "uint8"), 16: ("float32", "int16"), DYNAMIC: ("float32",)}
"""What files of so many activation bits can take and return."""


_ESTIMATORS = {
    "min_max": MinMax,
    "mean_min_max": MeanMinMax,
    "mean_of_samples": MeanOfSamples,
    "most_samples": MostSamples,
    "moving_average": MovingAverage,
    "percentile": Percentile,
    "least_squares": LeastSquares,
    "entropy": Entropy,
}


@dataclasses.dataclass(frozen=True)
class Quantization(Stage):
    """What the stages that quantize have in common: see `PostTraining`."""

    kind: ClassVar[str] = FakeQuantize.kind

    weight_bits: int = 8
    activation_bits: int | str = 8
    per_channel: bool = True
    calibration_samples: int = 512
    skip: tuple[str, ...] = ()
    input_type: str | None = None
    output_type: str | None = None
    strict: bool = False
    calibration: Calibration | None = None
    placement: str | None = None
    overrides: Mapping[str, int] | None = None
    rounding: Rounding | str | Mapping | None = None
    target: str = LITERT.name
    block_size: int | None = None

    def __post_init__(self):
        object.__setattr__(self, "rounding", rounding_named(self.rounding))
        get(self.target).check(self.scheme())
        object.__setattr__(self, "target", get(self.target).name)
        object.__setattr__(self, "calibration", _calibration(self.calibration))
        check_placement(self.placement, get(self.target), self.scheme(), self.calibration or Calibration())
        check_whole("calibration_samples", self.calibration_samples, 1)
        check_skip(self)
        check_overrides(self, lambda name, value: self.scheme(value))
        for name in ("input_type", "output_type"):
            types = _TYPES[self.activation_bits]
            if getattr(self, name) not in (None, *types):
                raise ValueError(
                    f"`{name}` should be one of {types} with activations of {self.activation_bits} bits; received "
                    f"{describe(getattr(self, name))}."
                )
        if not isinstance(self.strict, bool):
            raise TypeError(f"`strict` should be True or False; received {describe(self.strict)}.")

    def scheme(self, weight_bits: int | None = None):
        """The `QuantizationScheme`, or the same with weights of so many bits."""
        bits = self.weight_bits if weight_bits is None else weight_bits
        # Blocks are for few bits: a layer that is to have more of them has a scale for each channel.
        blocks = self.block_size if bits <= self.weight_bits else None
        return QuantizationScheme(
            bits, self.activation_bits, self.per_channel, rounding=self.rounding, block_size=blocks
        )

    def export_options(self):
        """What the file takes and returns, and whether anything may stay in floats."""
        types = {"input_type": self.input_type, "output_type": self.output_type}
        return {**types, "strict": self.strict, "target": self.target}

    def _quantized(self, function, model, run, by_loss=False, **options):
        calibration = dataclasses.replace(self.calibration or Calibration(), progress=run.progress)
        dynamic = self.activation_bits == DYNAMIC
        by_loss &= calibration.estimator is None and not dynamic  # dynamic ranges are not chosen
        labelled = run.labelled(self.calibration_samples) if by_loss else None
        if labelled is None:
            calibration = dataclasses.replace(calibration, data=run.calibration(self.calibration_samples))
        else:
            calibration = dataclasses.replace(calibration, data=labelled[0], loss=labelled[1])
        placement = "integer" if self.placement is None and self.strict and not dynamic else self.placement
        # A rehearsal shows what does not fit: for that it need not round by data, which takes time.
        by_data = self.rounding is None or isinstance(self.rounding, SecondOrderRounding)
        stage = dataclasses.replace(self, rounding=Nearest()) if run.rehearsing and by_data else self
        others = {expression: stage.scheme(bits) for expression, bits in (self.overrides or {}).items()}
        options = {**options, "overrides": dict.fromkeys(self.skip) | others, "placement": placement}
        options["target"] = self.target
        return function(model, stage.scheme(), calibration_data=calibration, **options)


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class PostTraining(Quantization):
    """Quantizes after training; masks and codebooks of earlier stages are kept.

    With validation data, ranges are chosen by the loss on them, as `Calibration(loss=...)` does, unless `calibration`
    names an estimator.

    Args:
        weight_bits: bits of a weight, 2 to 8.
        activation_bits: 8 or 16; or "dynamic", for files of floats whose dense layers and embeddings have integers.
        per_channel: whether each output channel has a scale of its own.
        calibration_samples: samples of the validation data, or else of the training data, that ranges are chosen on.
        skip: regular expressions of the layers to leave in floats.
        input_type: what the file takes: "float32", or the integers "int8", "uint8" (8 bits) or "int16" (16 bits). By
            default, what the target takes.
        output_type: what it returns, the same way.
        strict: whether an operation that stays in floats is an error, before any training.
        calibration: a `Calibration` without data or loss, how the samples are used; or a dictionary of its fields, in
            which an estimator has its name in lower case, `"mean_min_max"` or `{"percentile": {"percent": 99.9}}`.
        placement: "fast" leaves in floats what is faster so, "integer" nothing that has a kernel. By default, the first
            for activations of 8 bits, unless `strict`.
        overrides: dictionary from regular expressions of layers to other bits of their weights. The first that matches
            applies, after `skip`.
        rounding: a `Rounding` of weights, its name ("nearest", "gptq", "adaround"), or a dictionary from that to its
            settings. By default, GPTQ with less than 8 bits.
        target: name of the `keras_mot.targets.Target` that the file is for: "litert", "micro", "ethos-u",
            "ethos-u85", or one of your own.
        block_size: with dynamic ranges, how many inputs share a scale: 32, 64, 128 or 256; by default all of a channel.
            Layers to which `overrides` give more bits have no blocks.
    """

    key: ClassVar[str] = "post_training"
    last: ClassVar[bool] = True

    def apply(self, model, run):
        """A quantized copy."""
        return self._quantized(quantize_post_training, model, run, by_loss=True)


@keras.saving.register_keras_serializable("keras_mot")
@dataclasses.dataclass(frozen=True)
class StoreWeights(Stage):
    """Stores the weights in fewer bits; the model computes in floats, and needs no calibration.

    Args:
        weights: "float16", or "int8" for large weights of 8 bits (dynamic range quantization).
    """

    key: ClassVar[str] = "store_weights"
    kind: ClassVar[str] = FakeQuantize.kind
    last: ClassVar[bool] = True

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
class QuantizeAware(Quantization):
    """Quantizes, and trains with rounded weights and activations; masks and codebooks of earlier stages are kept.

    Args:
        weight_bits: bits of a weight, 2 to 8.
        activation_bits: 8 or 16; or "dynamic", for files of floats whose dense layers and embeddings have integers.
        per_channel: whether each output channel has a scale of its own.
        calibration_samples: samples of the training data that ranges start from.
        skip: regular expressions of the layers to leave in floats.
        input_type: what the file takes: "float32", or the integers "int8", "uint8" (8 bits) or "int16" (16 bits). By
            default, what the target takes.
        output_type: what it returns, the same way.
        strict: whether an operation that stays in floats is an error, before any training.
        calibration: as in `PostTraining`.
        placement: as in `PostTraining`.
        overrides: as in `PostTraining`.
        rounding: as in `PostTraining`: what training starts from.
        target: as in `PostTraining`.
        block_size: as in `PostTraining`.
        learned_scales: whether scales are trained too.
        batch_norm_steps: training steps in which batch normalization goes on with the statistics of each batch.
            `None`: it goes on to the end. 0: it is folded before training, as with `per_channel` false.
        fine_tune: a `FineTune`.
    """

    key: ClassVar[str] = "quantize_aware"

    learned_scales: bool = False
    batch_norm_steps: int | None = None
    fine_tune: FineTune = dataclasses.field(default_factory=FineTune)

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.fine_tune, FineTune):
            raise TypeError(f"`fine_tune` should be a `FineTune`; received {describe(self.fine_tune)}.")
        if self.batch_norm_steps is not None:
            check_whole("batch_norm_steps", self.batch_norm_steps, 0)
        if self.batch_norm_steps and not self.per_channel:
            raise ValueError("`batch_norm_steps` needs a scale for each channel: it goes with `per_channel` true.")

    def scheme(self, weight_bits: int | None = None):
        """See `PostTraining`."""
        return dataclasses.replace(super().scheme(weight_bits), learned_scales=self.learned_scales)

    def apply(self, model, run):
        """A quantized copy."""
        return self._quantized(quantize_model, model, run, batch_norm_steps=self.batch_norm_steps)

    def trained(self, model):
        """The model with its batch normalization folded."""
        return settled_fold(model)


def plain_calibration(calibration: Calibration) -> dict[str, Any]:
    """The dictionary that a stage takes for a `Calibration`, of numbers, truths and texts: for YAML."""
    values = {field.name: getattr(calibration, field.name) for field in dataclasses.fields(calibration)}
    defaults = Calibration()
    changed = {name: value for name, value in values.items() if value != getattr(defaults, name)}
    estimator = changed.get("estimator")
    if estimator is not None:
        name = next((name for name, kind in _ESTIMATORS.items() if type(estimator) is kind), None)
        if name is None:
            raise ValueError(f"{estimator!r} has no name in YAML: {', '.join(_ESTIMATORS)} have.")
        settings = dataclasses.asdict(estimator)
        changed["estimator"] = {name: settings} if settings else name
    return changed


def _calibration(value):
    """A stage's `Calibration`, from the dictionary that YAML has for it."""
    if isinstance(value, Mapping):
        known = [field.name for field in dataclasses.fields(Calibration) if field.name not in ("data", "loss")]
        for name in value:
            if name not in known:
                raise ValueError(
                    f"`calibration` has no setting '{name}'.{nearest(name, known)} Settings: {', '.join(known)}."
                )
        value = Calibration(**{**value, "estimator": _estimator(value.get("estimator"))})
    if value is not None and not isinstance(value, Calibration):
        raise TypeError(f"`calibration` should be a `Calibration` or its settings; received {describe(value)}.")
    if value is not None and (value.data is not None or value.loss is not None):
        raise ValueError("`calibration` of a stage takes the recipe's data, without labels: leave out data and loss.")
    return value


def _estimator(value):
    name, settings = next(iter(value.items())) if isinstance(value, Mapping) and len(value) == 1 else (value, {})
    if not isinstance(name, str):
        return value
    if name not in _ESTIMATORS:
        raise ValueError(
            f"`calibration`: there is no estimator '{name}'.{nearest(name, _ESTIMATORS)} Estimators: "
            f"{', '.join(_ESTIMATORS)}."
        )
    try:
        return _ESTIMATORS[name](**(settings or {}))
    except TypeError as error:
        raise ValueError(f"`calibration`: the estimator '{name}' does not take {describe(settings)}.") from error
