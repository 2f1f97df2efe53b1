"""Which trial comes next: what is wanted most of what can end in time."""

import dataclasses
import math
from collections.abc import Iterator, Sequence

from keras_mot.recipes.searching.budget import Budget
from keras_mot.recipes.searching.families import FAMILIES, Proposal, smallest
from keras_mot.recipes.searching.halving import best_so_far, expected_seconds, longer
from keras_mot.recipes.searching.layer_options import LayerChoices
from keras_mot.recipes.searching.planning import LEAST_STEP, is_new, next_size, size_limit
from keras_mot.recipes.searching.result import Trial, best_of, measured

_KEPT = ("family", "learning_rate", "balance", "cut", "gradual")  # of a trial, in its longer form
_LATE = 0.5  # of the time, after which the best so far is trained in full


@dataclasses.dataclass(frozen=True)
class NextTrial:
    """What decides on the next trial.

    Args:
        budget: the `Budget`.
        families: names of those to try.
        layers: the `LayerChoices` of all layers.
        learning_rate: of what is not left to the sampler.
        epochs: how long trials train, from the shortest on.
        count: how many trials are made in all.
        time: seconds that all of them may take.
    """

    budget: Budget
    families: Sequence[str]
    layers: Sequence[LayerChoices]
    learning_rate: float
    epochs: Sequence[int]
    count: int
    time: float = math.inf

    @property
    def dense(self) -> float:
        """Bytes of all kernels in 8 bits, zipped; 1 where there are none."""
        return sum(layer.dense for layer in self.layers) or 1.0

    def choose(self, done: Sequence[Trial], running: Sequence[Proposal], seconds: float) -> Proposal | None:
        """The next trial.

        Args:
            done: trials that have ended.
            running: what is being tried.
            seconds: that have passed.

        Returns:
            A `Proposal`, without a family if it is left to the sampler; `None` if there is no time for any, or none
            would be another one.
        """
        left = self.time - seconds
        fitting = (self._fitted(each, done, left) for each in self._wanted(done, running, seconds))
        return next((each for each in fitting if each is not None), None)

    def _wanted(self, done, running, seconds) -> Iterator[Proposal]:
        """What to try, the most wanted first."""
        begun = [proposal.after for proposal in running]
        if self._is_late(done, running, seconds):
            yield from self._in_full(done, begun)
        yield from self._untried(done, running)
        best = best_of(done, self.budget)
        if best is not None and self._wants_another_size(best, done, running):
            size = self._size(done, best.family, best.epochs)
            if is_new(size, [trial for trial in done if trial.epochs == best.epochs], best.family):
                yield _again(best, kernels=size, epochs=best.epochs)
        for trial, epochs in longer(done, begun, self.epochs, self.budget):
            yield self._longer(done, trial, epochs)
        shortest = self.epochs[0]
        limited = best is not None and size_limit(self.budget, done, best.family) is not None
        size = self._size(done, best.family, shortest) if limited else None
        if limited and not FAMILIES[best.family] and any(FAMILIES[name] for name in self.families):
            # It has one size alone, which the budget may have no room for: what there is room for.
            size = next_size(self.budget, done, best.family, self.dense, shortest)
        if limited and self._has_been_made(size, done):
            yield from self._in_full(done, begun)
        else:
            yield Proposal(None, size, epochs=shortest)

    def _in_full(self, done, begun):
        """The best so far, trained in full."""
        known = math.isinf(self.time) or any(trial.epochs for trial in measured(done))
        found = best_so_far(done, begun, self.epochs, self.budget, known)
        if found is not None:
            yield self._longer(done, *found)

    def _untried(self, done, running):
        """Each family once, if it can be small enough, or none can."""
        shortest = self.epochs[0]
        tried = {trial.family for trial in done} | {proposal.family for proposal in running}
        sizes = {name: next_size(self.budget, done, name, self.dense, shortest) for name in self.families}
        least = {name: smallest(name, self.layers) for name in self.families}
        some_fit = any(sizes[name] >= least[name] for name in self.families)
        for name in self.families:
            if name in tried or (some_fit and FAMILIES[name] and sizes[name] < least[name]):
                continue
            if FAMILIES[name] and self._has_been_made(sizes[name], done):
                continue
            yield Proposal(name, self._size(done, name, shortest), self.learning_rate, epochs=shortest)

    def _has_been_made(self, size, done):
        """Whether a size leaves all kernels whole: the file would be that of the dense trial, whatever the family."""
        if self.budget.latency_ms is not None:  # which other families may keep to
            return False
        return size > (1 - LEAST_STEP) * self.dense and any(not FAMILIES[trial.family] for trial in measured(done))

    def _is_late(self, done, running, seconds):
        """Whether time or trials are about to end, and nothing was trained in full."""
        short = max(self.epochs[:-1], default=-1)
        if any(each.epochs > short for each in (*measured(done), *running)):
            return False
        return seconds > _LATE * self.time or len(done) + len(running) + 1 >= self.count

    def _wants_another_size(self, best, done, running):
        """Whether the best trial is beyond the budget by its size alone, or may be not the smallest."""
        if not FAMILIES[best.family] or any(proposal.family == best.family for proposal in running):
            return False
        if not self.budget.by_size:
            return len(done) % 2 == 0
        return not self.budget.is_met({**best.costs(), "drop": 0.0})

    def _size(self, done, family, epochs):
        if not FAMILIES[family]:
            return self.dense
        return max(next_size(self.budget, done, family, self.dense, epochs), smallest(family, self.layers))

    def _longer(self, done, trial, epochs):
        return _again(trial, kernels=self._size(done, trial.family, epochs), epochs=epochs, after=trial.number)

    def _fitted(self, proposal, done, left):
        """The proposal, with fewer epochs if the time that is left asks for it; `None` if it cannot be in time."""
        if not measured(done):
            return proposal  # one result, at least
        if left <= 0:
            return None
        seconds = expected_seconds(done, proposal.family, proposal.epochs)
        if seconds is None or seconds <= left:
            return proposal
        base = expected_seconds(done, proposal.family, 0) or 0.0
        epochs = math.floor(proposal.epochs * max(0.0, left - base) / max(seconds - base, 1e-9))
        before = next((trial.epochs for trial in done if trial.number == proposal.after), proposal.epochs)
        return dataclasses.replace(proposal, epochs=epochs) if epochs > before else None


def _again(trial, **changes):
    return Proposal(**{name: getattr(trial, name) for name in _KEPT}, **changes)
