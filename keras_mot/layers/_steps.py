"""How many training steps of an epoch have really ended.

Keras numbers a batch before it knows whether there is one: with data of unknown length an epoch ends with a batch that
is announced and never trained, and an execution of several steps may have run only some of them.
"""

import threading

from keras_mot._keras import applied_gradients


class EpochSteps:
    """Counts the steps of one epoch of `fit`, from what the trainer reports.

    With one step in an execution, every report of an end is a step. With several, the optimizer's counter says how many
    there were. Where that cannot be (no optimizer of the model's own, a training step that applies it more than
    once, or loss scaling, which skips some) the execution counts as full, up to the number of steps that is known.

    Args:
        model: the model in training.
        known: number of steps of an epoch, or `None`.
    """

    def __init__(self, model, known):
        self._model, self._known = model, known
        self.per_execution = getattr(model, "steps_per_execution", 1)
        self._applied = applied_gradients(model) if self.per_execution > 1 else None
        self._lock = threading.Lock()
        self.begun = 0
        self.ended = 0

    def begin(self, batch):
        """Takes note that the execution whose first step is number `batch` begins, if there is data for it."""
        self.begun = batch + self.per_execution

    def end(self, batch):
        """Takes note of the end of the execution whose last step is number `batch`; from any thread, in any order."""
        with self._lock:
            self.ended = max(self.ended, batch + 1)

    def count(self, most):
        """How many steps have ended, where the last execution that did would end with the `most`-th if it was full."""
        if self.per_execution == 1 or most == 0:
            return most
        applied = applied_gradients(self._model)
        if applied is not None and self._applied is not None:
            steps = applied - self._applied
            if most - self.per_execution < steps <= most:
                return steps
        return min(most, self._known) if self._known else most
