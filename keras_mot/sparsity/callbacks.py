"""Callbacks under TFMOT's names: `UpdatePruningStep` and `PruningSummaries`."""

from keras_mot._keras import model_of
from keras_mot.layers import UpdateTransforms
from keras_mot.layers.summaries import TransformSummaries
from keras_mot.layers.updates import has_scheduled_transforms
from keras_mot.sparsity.evidence import PruningEvidence, check_evidence, using
from keras_mot.sparsity.report import pruning_report


class UpdatePruningStep(UpdateTransforms):
    """Updates the pruning masks between the steps of `fit`, and adds `sparsity` to the logs.

    `fit` adds it by itself, before all other callbacks; it needs to be passed for criteria that go by data alone. In a
    custom loop, `update_pruning_step(model)` is simpler.

    Args:
        evidence: a `PruningEvidence`, the data that criteria such as `RigL()`, `Movement()` or `Wanda()` go by.

    Raises:
        TypeError: if `evidence` is something else.
        ValueError: when training begins, if the model has no pruned layers, or a criterion needs data that are not
            given.
    """

    def __init__(self, evidence: PruningEvidence | None = None):
        super().__init__()
        check_evidence(evidence)
        self._evidence = evidence

    def on_train_begin(self, logs=None):
        """Makes the update that is due before the first step."""
        if not has_scheduled_transforms(model_of(self)):
            raise ValueError(
                f"`UpdatePruningStep` was given to a model without pruned layers, '{model_of(self).name}': train the "
                "model that `prune_low_magnitude` returned."
            )
        super().on_train_begin(logs)

    def _start(self):
        with using(model_of(self), self._evidence):
            super()._start()

    def _advance_to(self, elapsed):
        with using(model_of(self), self._evidence):
            super()._advance_to(elapsed)


class PruningSummaries(TransformSummaries):
    """Writes the sparsity of each pruned weight, and the epoch's logs, for TensorBoard.

    Args:
        log_dir: directory of the event files; they are written to `log_dir/metrics`.
        update_freq: `"epoch"`, or a number of batches after which the sparsities are also written, `"batch"` for each.
        **others: other arguments of `keras.callbacks.TensorBoard`, which have no effect, and are warned of.

    Raises:
        TypeError: if `TensorBoard` has no such argument.
        ValueError: if `log_dir` is not a non-empty path, or `update_freq` is something else.
        ImportError: if the package `tensorboard` is missing.

    Example:

    ```python
    pruned.fit(x, y, callbacks=[PruningSummaries("logs")])
    ```
    """

    def values(self):
        """`sparsity/PATH` of each pruned weight."""
        return {f"sparsity/{row.path}": row.sparsity for row in pruning_report(self.model).pruned}
