"""A scope in which chosen variables read as other tensors, whatever code reads them."""

import keras
from keras import ops

from keras_mot._keras import AutocastScope, keep_losses


class Substitution(keras.StatelessScope):
    """While open, each variable of `weights` reads as the output of its stack of transforms.

    Everything else behaves as it would outside: other variables, their updates (the statistics of batch
    normalization, the seeds of dropout) and losses pass through, to the enclosing stateless scope if there
    is one (JAX's trainer opens one) or else to the variables themselves.

    Args:
        weights: the `TransformedWeight`s to substitute.
        layer: the layer whose call runs in the scope; losses added in it reach it or its sub-layers.
    """

    def __init__(self, weights, layer):
        super().__init__(initialize_variables=False)
        self._weights = weights
        self._layer = layer

    def __enter__(self):
        super().__enter__()
        outer = self.original_scope
        self.collect_losses = outer is None or outer.collect_losses
        # Float state and weights meet at full precision; a mixed policy casts the result, as it would the weight.
        with AutocastScope(None):
            for weight in self._weights:
                if not (isinstance(outer, Substitution) and outer.substitutes(weight.variable)):
                    self.state_mapping[id(weight.variable)] = weight.effective_value()
        return self

    def __exit__(self, *exception):
        super().__exit__(*exception)
        if self.original_scope is None and self.losses:
            keep_losses(self._layer, self.losses)

    def substitutes(self, variable):
        """Whether this scope or one around it already substitutes `variable`."""
        if id(variable) in self.state_mapping:
            return True
        return isinstance(self.original_scope, Substitution) and self.original_scope.substitutes(variable)

    def get_current_value(self, variable):
        """The substituted value, or what the enclosing scope says."""
        value = self.state_mapping.get(id(variable))
        if value is None and self.original_scope is not None:
            return self.original_scope.get_current_value(variable)
        return value

    def add_update(self, update):
        """Passes an assignment on; what is assigned to a weight is what its transforms are to return from now on."""
        variable, value = update
        weight = next((weight for weight in self._weights if weight.variable is variable), None)
        if weight is not None and id(variable) in self.state_mapping:
            self._assign_effective(weight, value)
        else:
            self._pass_on(variable, value)

    def _assign_effective(self, weight, value):
        """Moves the stored weight as the layer has moved the one that it sees, as spectral normalization does.

        What the transforms hide stays: values under a mask, distances from a centroid. On JAX the gradient goes through
        what was assigned, as it does without transforms; on the others an assignment ends it.
        """
        before = self.state_mapping.pop(id(weight.variable))
        with AutocastScope(None):
            stored = ops.convert_to_tensor(weight.variable.value)
            after = ops.cast(value, stored.dtype)
            for transform in weight.transforms:
                after = transform.follow_assignment(before, after)
            self._pass_on(weight.variable, stored + (after - before))
            self.state_mapping[id(weight.variable)] = weight.value_before()

    def _pass_on(self, variable, value):
        if self.original_scope is not None:
            self.original_scope.add_update((variable, value))
        elif _is_leaked_tracer(value):
            # JAX's eager `rnn` traces its loop: a value from inside must not reach the variable.
            self.state_mapping[id(variable)] = value
        else:
            super().__exit__()
            try:
                variable.assign(value)
            finally:
                super().__enter__()

    def add_loss(self, loss):
        """Passes a loss on to the enclosing scope, or keeps it until the exit."""
        if self.original_scope is not None:
            self.original_scope.add_loss(loss)
        else:
            self.losses.append(loss)


def _is_leaked_tracer(value):
    if keras.backend.backend() != "jax":
        return False
    import jax

    return isinstance(value, jax.core.Tracer)
