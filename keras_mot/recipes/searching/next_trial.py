"""Which trial comes next: what is wanted most of what can end in time."""

import dataclasses
import math
from collections.abc import Iterator, Sequence

from keras_mot.recipes.searching.budget import Budget
from keras_mot.recipes.searching.families import FAMILIES, Proposal, recipe_of, smallest
from keras_mot.recipes.searching.halving import SETTINGS, best_so_far, expected_seconds, is_near, longer
from keras_mot.recipes.searching.layer_options import LayerChoices
from keras_mot.recipes.searching.planning import LEAST_STEP, is_new, next_size, size_limit
from keras_mot.recipes.searching.result import Trial, best_of, measured

_CORRECTION = 0.005  # of a size: less makes no smaller file
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
        allowed = {None, *self.families}  # an earlier call may have asked for others
        wanted = (each for each in self._wanted(done, running, seconds) if each.family in allowed)
        fitting = (self._fitted(each, done, left) for each in wanted)
        return next((each for each in fitting if each is not None), None)

    def _wanted(self, done, running, seconds) -> Iterator[Proposal]:
        """What to try, the most wanted first."""
        begun = [proposal.after for proposal in running]
        if self._is_late(done, running, seconds):
            yield from self._in_full(done, begun)
        yield from self._untried(done, running)
        best = best_of(done, self.budget)
        yield from self._in_another_size(best, done, running)
        yield from self._rounded_otherwise(best, done, running)
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

    def _in_another_size(self, best, done, running) -> Iterator[Proposal]:
        """The best trial, if it is beyond the budget by its size alone, or may be not the smallest.

        So are those that are a little beyond it, and would be the best.
        """
        for trial in [] if best is None else self._nearly_best(best, done):
            if not FAMILIES[trial.family] or any(proposal.family == trial.family for proposal in running):
                continue
            wanted = not self._is_small_enough(trial) if self.budget.by_size else len(done) % 2 == 0
            size = self._size(done, trial.family, trial.epochs)
            equally_long = [each for each in done if each.epochs == trial.epochs]
            if wanted and (is_new(size, equally_long, trial.family) or self._corrects(size, equally_long, trial)):
                yield _again(trial, kernels=size, epochs=trial.epochs)

    def _rounded_otherwise(self, best, done, running) -> Iterator[Proposal]:
        """The best trial with its few bits found in the other way, which needs none of its other stages again."""
        if best is None or "bits" not in FAMILIES[best.family]:
            return
        if not (self.budget.by_size and self._is_small_enough(best)):  # it becomes no smaller
            return
        other = _again(best, kernels=best.asked, epochs=best.epochs, learned=not best.learned)
        sizes = [(each.asked, each) for each in done] + [(each.kernels, each) for each in running]
        if any(_is_same(other, size, each) for size, each in sizes):
            return
        if recipe_of(other, self.layers, None, best.family)[0].stages[-1].overrides:  # some layers have few bits
            yield other

    def _nearly_best(self, best, done):
        """The best trial, and before it those that lose less, and are a little too large."""
        if not self.budget.by_size:
            return [best]
        near = [trial for trial in measured(done) if trial is not best and is_near(trial, self.budget)]
        return sorted((trial for trial in near if trial.drop < best.drop), key=lambda trial: trial.drop) + [best]

    def _is_small_enough(self, trial):
        return self.budget.is_met({**trial.costs(), "drop": 0.0})

    def _corrects(self, size, trials, beyond):
        """Whether a size that is near to those that were tried is smaller than all of them, which are too large."""
        own = [trial for trial in trials if trial.family == beyond.family and trial.zipped is not None]
        return size < (1 - _CORRECTION) * min(trial.asked for trial in own) and not any(map(self._is_small_enough, own))

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
    return Proposal(**{name: getattr(trial, name) for name in SETTINGS} | changes)


def _is_same(proposal, kernels, other):
    """Whether a trial, or a proposal, is of the same size, length and settings."""
    same = all(getattr(proposal, name) == getattr(other, name) for name in (*SETTINGS, "epochs"))
    return same and proposal.kernels == kernels
