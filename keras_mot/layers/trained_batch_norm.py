"""Batch normalization that stays in training while the kernel before it is rounded."""

from typing import Any

import keras
from keras import ops

from keras_mot._keras import batch_moments
from keras_mot._messages import describe
from keras_mot._numbers import is_whole


@keras.saving.register_keras_serializable("keras_mot")
class TrainedBatchNorm(keras.layers.BatchNormalization):
    """Batch normalization behind a layer with rounded weights, until it is folded into their scales.

    It has gamma and beta. What it multiplies channels by cannot become negative, since scales are positive.

    Args:
        steps: for how many calls in training, one a step as a rule, it goes on with the statistics of each batch. Then
            its statistics stay as they are, and gamma and beta are trained beside them (Krishnamoorthi, 2018,
            arXiv:1806.08342, section 3.2.2). `None`: they never freeze.
        **kwargs: arguments of `keras.layers.BatchNormalization`, but for `scale`, `center`, `renorm` and
            `gamma_constraint`.
    """

    def __init__(self, steps: int | None = None, **kwargs: Any):
        if steps is not None and (not is_whole(steps) or steps < 0):
            raise ValueError(f"`steps` should be a whole number of at least 0, or `None`; received {describe(steps)}.")
        kwargs.pop("renorm", None)  # older versions of Keras do not know it
        settings = {"scale": True, "center": True}
        super().__init__(**{**kwargs, **settings, "gamma_constraint": keras.constraints.NonNeg()})
        self.steps = steps

    def build(self, input_shape):
        """Creates the weights of batch normalization, and a counter of batches."""
        super().build(input_shape)
        self._batches = self.add_weight(
            name="batches", shape=(), initializer="zeros", trainable=False, dtype="float32", autocast=False
        )

    @property
    def has_frozen_statistics(self) -> bool:
        """Whether the steps are over."""
        return self.steps is not None and float(ops.convert_to_numpy(self._batches)) >= self.steps

    def call(self, inputs, training=None, mask=None):
        """The normalized inputs; same shape and dtype.

        Args:
            inputs: float tensor.
            training: whether to normalize by the statistics of the batch, and to follow them.
            mask: boolean tensor of what counts, without the axis of channels, or `None`.
        """
        if not training or not self.trainable:
            return super().call(inputs, training=False, mask=mask)
        values = ops.cast(inputs, "float32")
        moving = [ops.convert_to_tensor(variable.value) for variable in (self.moving_mean, self.moving_variance)]
        of_batch = [ops.cast(moment, "float32") for moment in batch_moments(self, values, mask)]
        followed = [
            old * self.momentum + new * (1.0 - self.momentum) for old, new in zip(moving, of_batch, strict=True)
        ]
        if self.steps is not None:
            batches = ops.convert_to_tensor(self._batches.value)
            live = batches < self.steps
            of_batch = [ops.where(live, new, old) for new, old in zip(of_batch, moving, strict=True)]
            followed = [ops.where(live, new, old) for new, old in zip(followed, moving, strict=True)]
            self._batches.assign(batches + 1.0)
        self.moving_mean.assign(followed[0])
        self.moving_variance.assign(followed[1])
        gamma, beta = ops.cast(self.gamma, "float32"), ops.cast(self.beta, "float32")
        outputs = ops.batch_normalization(
            values, *of_batch, axis=self.axis, offset=beta, scale=gamma, epsilon=self.epsilon
        )
        return ops.cast(outputs, self.compute_dtype)

    def get_config(self):
        """The constructor's arguments."""
        return {**super().get_config(), "steps": self.steps}
