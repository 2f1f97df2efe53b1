"""Which transforms of a model follow a schedule, what steps they have seen, and which updates are due."""

from keras_mot.layers.transformed import transformed_weights


class TransformSchedule:
    """The scheduled transforms of a model, and the steps that they have seen.

    Args:
        model: a model (or layer) with transforms attached.
        before_update: called before variables are read or written, for trainers that hold them elsewhere.
    """

    def __init__(self, model, before_update=lambda: None):
        self._before_update = before_update
        groups = {}  # (updater, step) -> [(weight, transform)]
        for weight in transformed_weights(model):
            for transform in weight.transforms:
                if transform.updater is not None:
                    groups.setdefault((transform.updater, transform.step), []).append((weight, transform))
        # In the order of the stacks: a codebook is fitted to what the mask before it leaves.
        self._groups = dict(sorted(groups.items(), key=lambda group: max(map(_place_in_stack, group[1]))))
        # Steps already examined; -1 as long as the update before the first step has not been considered.
        self._examined = {
            key: key[1] if key[1] > 0 or any(transform.updated_at >= 0 for _, transform in members) else -1
            for key, members in self._groups.items()
        }
        self._steps = {key: key[1] for key in self._groups}
        self._logs = None

    def __bool__(self):
        return bool(self._groups)

    @property
    def logs(self):
        """What the updaters report for the logs of `fit`, as of the last update."""
        if self._logs is None:
            by_type = {}
            for (updater, _), members in self._groups.items():
                by_type.setdefault(type(updater), []).extend(weight for weight, _ in members)
            self._logs = {}
            for updater_type, weights in by_type.items():
                self._logs.update(updater_type.logs(weights))
        return self._logs

    @property
    def elapsed(self):
        """Steps counted by this object."""
        return max((self._steps[key] - key[1] for key in self._steps), default=0)

    @property
    def stale(self):
        """Whether something else, such as a restored checkpoint, has set the progress of a transform."""
        return any(
            transform.step != self._steps[key] for key, members in self._groups.items() for _, transform in members
        )

    def due_at(self, elapsed):
        """Whether `advance_to(elapsed)` would make an update; reads no variable."""
        return any(self._due(key, key[1] + elapsed) is not None for key in self._groups)

    def _due(self, key, step):
        return next((s for s in range(step, self._examined[key], -1) if key[0].due(s)), None)

    def advance_to(self, elapsed):
        """Sets the number of elapsed steps, and makes the updates that came due since the last call.

        Of several due updates only the last is made, as when several steps run in one execution. Where a
        transform has been updated, those after it in the stack follow, if their updater can.

        Returns:
            Whether any update was made.
        """
        changed = set()  # variables of the weights with an updated transform
        for key, members in self._groups.items():
            self._steps[key] = max(self._steps[key], key[1] + elapsed)
            step = self._steps[key]
            for _, transform in members:
                transform.step = step
            updater = key[0]
            due = self._due(key, step)
            self._examined[key] = step
            following = []
            if hasattr(updater, "follow"):
                following = [member for member in members if id(member[0].variable) in changed]
                self._update(updater.follow, following, step)
            others = [member for member in members if member not in following]
            if due is not None and not (others and self._keeps_loaded(updater, others, due)):
                self._update(updater.update, others, due)
                changed.update(id(weight.variable) for weight, _ in members)
        return bool(changed)

    def _keeps_loaded(self, updater, members, step):
        """Whether transforms that this model never updated have a state from elsewhere, which is to stay for now."""
        if not hasattr(updater, "keeps_loaded") or any(transform.updated_at >= 0 for _, transform in members):
            return False
        self._before_update()
        return updater.keeps_loaded([weight for weight, _ in members], step)

    def _update(self, update, members, step):
        if not members:
            return
        self._before_update()
        update([weight for weight, _ in members], step)
        self._logs = None
        for _, transform in members:
            transform.updated_at = step


def _place_in_stack(member):
    weight, transform = member
    return next(place for place, item in enumerate(weight.transforms) if item is transform)
