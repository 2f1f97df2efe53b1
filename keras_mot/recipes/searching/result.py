"""What a search found: all trials, those that no other beats, and the best one as `compress` returns it."""

import dataclasses
import math
import os
import pathlib
from typing import Any

from keras_mot._tables import html_table, markdown_table, text_table
from keras_mot.analysis import plots
from keras_mot.analysis.brotli import brotli_column
from keras_mot.recipes.result import CompressionResult
from keras_mot.recipes.searching.budget import Budget


@dataclasses.dataclass(frozen=True)
class Trial:
    """One recipe that a search tried.

    Attributes:
        number: from 0.
        family: what its recipe does, see `FAMILIES`.
        asked: bytes, zipped, that its kernels should take.
        predicted: bytes, zipped, that they were expected to take.
        learning_rate: of its longer stages.
        bytes: of its file; `None` if it failed.
        zipped: bytes of a zip archive that holds it.
        latency_ms: median milliseconds of a sample in the runtime; `None` if nothing was timed.
        metric: of the file, in the runtime.
        drop: how much worse that is than the float file's.
        seconds: that the trial took.
        excess: by how much it is above the limits of the budget, the largest share of one; 0 if it keeps to all.
        folder: with its files and `report.json`.
        failure: why there is no result; empty if there is one.
        balance: what losses by zeros counted beside others when it was planned.
        cut: how much of the way low rank or fewer channels went, where other techniques follow; see `Proposal`.
        gradual: whether zeros came little by little in training.
        learned: whether few bits were rounded by `AdaRound`; see `Proposal`.
        epochs: of its longer stages; 0 if nothing was trained.
        after: number of the trial that it is the longer form of; `None` if it is a new one.
        brotli_bytes: size of its file compressed by Brotli, as of `keras_mot.analysis.Measurement`; `None` where that
            is not installed.
    """

    number: int
    family: str
    asked: float
    predicted: float
    learning_rate: float
    bytes: int | None = None
    zipped: int | None = None
    latency_ms: float | None = None
    metric: float | None = None
    drop: float | None = None
    seconds: float = 0.0
    excess: float = math.inf
    folder: pathlib.Path | None = None
    failure: str = ""
    balance: float = 0.25
    cut: float = 0.5
    gradual: bool = False
    learned: bool = False
    epochs: int = 0
    after: int | None = None
    brotli_bytes: int | None = None

    def costs(self) -> dict[str, float | None]:
        """What a `Budget` limits."""
        return {"bytes": self.bytes, "zipped": self.zipped, "latency_ms": self.latency_ms, "drop": self.drop}

    def to_dict(self) -> dict[str, Any]:
        """The trial as JSON values."""
        values = dataclasses.asdict(self)
        return {
            **values,
            "folder": None if self.folder is None else self.folder.name,
            "excess": None if math.isinf(self.excess) else self.excess,
        }


def measured(trials: "list[Trial] | tuple[Trial, ...]") -> list[Trial]:
    """The trials that have a result."""
    return [trial for trial in trials if not trial.failure and trial.zipped is not None]


def front_of(trials: "list[Trial] | tuple[Trial, ...]", cost: str = "zipped") -> tuple[Trial, ...]:
    """The trials than which no other is both as small and as good, and better in one of both; smallest first.

    Args:
        trials: of them, those that failed are left out.
        cost: "zipped", "bytes" or "latency_ms".
    """
    known = [trial for trial in measured(trials) if getattr(trial, cost) is not None and not math.isnan(trial.drop)]
    kept = []
    for trial in sorted(known, key=lambda each: (getattr(each, cost), each.drop, each.number)):
        if not kept or trial.drop < kept[-1].drop:
            kept.append(trial)
    return tuple(kept)


def best_of(trials: "list[Trial] | tuple[Trial, ...]", budget: Budget) -> Trial | None:
    """The best trial within a budget, or, if none is, the one that is nearest to it; `None` without any result."""
    known = measured(trials)
    if not known:
        return None
    within = [trial for trial in known if budget.is_met(trial.costs())]
    if not within:
        return min(known, key=lambda trial: (max(budget.excesses(trial.costs()).values()), trial.drop, trial.number))
    if budget.by_size:
        return min(within, key=lambda trial: (trial.drop, trial.zipped, trial.number))
    return min(within, key=lambda trial: (trial.zipped, trial.drop, trial.number))


def _number(name, cost):
    return f"{cost:,.4g}" if name in ("drop", "latency_ms") else f"{cost:,}"


@dataclasses.dataclass(frozen=True)
class SearchResult(CompressionResult):
    """The result of `search`: that of the best trial, as `compress` returns it, and all trials beside it.

    `print(result)` shows the stages of the best trial, and the front. It serves wherever a `CompressionResult` does.

    Attributes:
        budget: the `Budget`.
        trials: tuple of `Trial`s.
        best_trial: the one that `model` and `stages` are of.
        seconds: that all trials together took, those of earlier calls included.
    """

    budget: Budget | None = None
    trials: tuple[Trial, ...] = ()
    best_trial: Trial | None = None
    seconds: float = 0.0

    @property
    def met(self) -> bool:
        """Whether the best trial keeps to the budget."""
        return self.budget.is_met(self.best_trial.costs())

    @property
    def cost(self) -> str:
        """What the front is over: "latency_ms" if the budget limits that alone, "bytes", or "zipped"."""
        if self.budget.zipped is None and self.budget.bytes is not None:
            return "bytes"
        return "latency_ms" if self.budget.zipped is None and self.budget.latency_ms is not None else "zipped"

    @property
    def front(self) -> tuple[Trial, ...]:
        """The trials than which no other is both smaller and better (the Pareto front), smallest first."""
        return front_of(self.trials, self.cost)

    def what_stood_in_the_way(self) -> str:
        """One sentence on the limits that the best trial does not keep to; empty if it keeps to all."""
        excesses = {name: share for name, share in self.budget.excesses(self.best_trial.costs()).items() if share}
        if not excesses:
            return ""
        costs = self.best_trial.costs()
        words = []
        for name in excesses:
            cost = costs[name]
            have = "was not measured" if cost is None else f"is {_number(name, cost)}"
            words.append(f"`{name}` {have}, where {getattr(self.budget, name):,g} is the limit")
        return (
            f"No trial keeps to the budget ({self.budget}). The nearest, {self.best_trial.number}, falls short: "
            f"{' and '.join(words)}. {self._advice(excesses)}"
        )

    def _advice(self, excesses):
        if "drop" in excesses and len(excesses) == 1:
            return "More epochs in `fine_tune`, more training data, or a larger size would help."
        if self.budget.drop is None:
            least = min(measured(self.trials), key=lambda trial: getattr(trial, self.cost) or math.inf)
            return f"The smallest that was found has {getattr(least, self.cost):,g}; more trials go further."
        return "The limits exclude each other as far as was tried: raise one of them, or the number of trials."

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            **super().to_dict(),
            "budget": {name: limit for name, limit in dataclasses.asdict(self.budget).items() if limit is not None},
            "met": self.met,
            "best_trial": self.best_trial.number,
            "front": [trial.number for trial in self.front],
            "seconds": self.seconds,
            "trials": [trial.to_dict() for trial in self.trials],
        }

    def to_markdown(self) -> str:
        """The stages of the best trial and the front as Markdown tables."""
        return f"{super().to_markdown()}\n{markdown_table(*self._front_table(), caption=self._front_caption())}"

    def __str__(self) -> str:
        return f"{super().__str__()}\n\n{text_table(*self._front_table(), caption=self._front_caption())}"

    def _repr_html_(self) -> str:
        return f"{super()._repr_html_()}\n{html_table(*self._front_table(), caption=self._front_caption())}"

    def _front_table(self):
        shown = self.front
        columns = {
            "trial": [f"{trial.number}{' *' if trial == self.best_trial else ''}" for trial in shown],
            "recipe": [trial.family for trial in shown],
            "epochs": [str(trial.epochs) for trial in shown],
            self.metric_name.split(" of ")[0]: [f"{trial.metric:.4f}" for trial in shown],
            "drop": [f"{trial.drop:.4f}" for trial in shown],
            "bytes": [f"{trial.bytes:,}" for trial in shown],
            "zipped": [f"{trial.zipped:,}" for trial in shown],
            **brotli_column(shown),
            "ms": ["-" if trial.latency_ms is None else f"{trial.latency_ms:.3f}" for trial in shown],
            "s": [f"{trial.seconds:.0f}" for trial in shown],
        }
        return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]

    def _front_caption(self):
        failed = sum(bool(trial.failure) for trial in self.trials)
        lost = f" ({failed} without a result)" if failed else ""
        best = "the best, which keeps to the budget" if self.met else "the nearest to the budget"
        return (
            f"the front: what no other of {len(self.trials)} trials{lost} beats in size and quality; *: {best}; "
            f"{self.seconds:.0f} s in all. {self.what_stood_in_the_way()}"
        ).rstrip()

    def plot(self, path: str | os.PathLike) -> None:
        """Draws the metric against the size of all trials, and the front.

        Args:
            path: of the picture, `.svg`, `.png` or `.pdf`; a file of that name is replaced.

        Raises:
            ImportError: if Matplotlib is not installed.
            ValueError: if no file can be written there.
        """
        cost, best, floor = self.cost, self.best_trial, None
        points = [
            plots.Point(f"trial {trial.number}", getattr(trial, cost), trial.metric, trial.family, trial == best)
            for trial in measured(self.trials)
            if getattr(trial, cost) is not None
        ]
        if self.budget.drop is not None and not math.isnan(self.stages[0].metric):
            floor = self.stages[0].metric + self.budget.drop * (-1 if self.greater_is_better else 1)
        name = {"latency_ms": "ms", "bytes": "bytes", "zipped": "bytes, zipped"}[cost]
        limit = getattr(self.budget, cost)
        plots.save(plots.front(points, self.metric_name, name, self.greater_is_better, floor, limit), path)
