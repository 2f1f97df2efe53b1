"""The Optuna study that keeps the trials of a search, and proposes new ones."""

import contextlib
import dataclasses
import json
import logging
import pathlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from keras_mot._messages import describe
from keras_mot._packages import how_to_install, is_installed
from keras_mot.recipes.searching.budget import Budget
from keras_mot.recipes.searching.families import FAMILIES, Proposal
from keras_mot.recipes.searching.result import Trial

NAME = "keras-mot"
LOG = "study.log"
_RESULT, _IDENTITY, _PROPOSAL = "keras_mot:result", "keras_mot:identity", "keras_mot:proposal"
_LARGE = 1e6  # in the place of an infinite excess, which the sampler does not take


def check_installed() -> None:
    """Raises an `ImportError` that says what to install, if a package of searches is missing."""
    missing = [package for package in ("optuna", "scipy") if not is_installed(package)]
    if missing:
        raise ImportError(f"`search` needs {' and '.join(missing)}. Install with: {how_to_install(*missing)}")


class Study:
    """The trials of a search.

    Args:
        folder: of the search.
        storage: where trials are kept: what `optuna.create_study` takes, or `None` for a file in the folder.
        budget: the `Budget`.
        learning_rate: around which learning rates are chosen.
        seed: of the sampler.
        identity: dictionary of texts: what a search must have in common with one that it goes on with.

    Raises:
        ValueError: if the study there is of another search, or damaged, or none can be kept there.
    """

    def __init__(self, folder, storage, budget: Budget, learning_rate, seed, identity):
        import optuna

        self._optuna, self._folder, self._budget = optuna, folder, budget
        with _quiet(), _explaining(folder / LOG if storage is None else storage):
            if storage is None:
                backend = optuna.storages.journal.JournalFileBackend(str(folder / LOG))
                storage = optuna.storages.JournalStorage(backend)
            sampler = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=4, multivariate=True, constraints_func=self._constraints
            )
            self._study = optuna.create_study(
                storage=storage, sampler=sampler, study_name=NAME, directions=["minimize"] * 2, load_if_exists=True
            )
        known = self._study.user_attrs.get(_IDENTITY)
        if known is None:
            self._study.set_user_attr(_IDENTITY, identity)
        different = sorted(name for name, value in identity.items() if known and known.get(name, value) != value)
        if different:
            raise ValueError(
                f"The search in '{folder}' differs in its {' and '.join(different)}: name another "
                "folder (and another `storage`, if you gave one)."
            )
        self._distributions = {
            # All of them, always: Optuna has one list of choices for all trials of a study.
            "family": optuna.distributions.CategoricalDistribution(list(FAMILIES)),
            "size": optuna.distributions.FloatDistribution(0.02, 1.0, log=True),
            "learning_rate": optuna.distributions.FloatDistribution(learning_rate / 5, 2 * learning_rate, log=True),
            "balance": optuna.distributions.FloatDistribution(0.05, 2.0, log=True),
            "gradual": optuna.distributions.CategoricalDistribution([False, True]),
            "cut": optuna.distributions.FloatDistribution(0.2, 0.9),
        }
        self._give_up_unfinished()

    def _give_up_unfinished(self):
        """Trials that an earlier process was killed in the middle of have no result."""
        state = self._optuna.trial.TrialState
        while self._study.get_trials(deepcopy=False, states=(state.WAITING,)):  # one that waits cannot be given up
            self._study.ask(self._distributions)
        for trial in self._study.get_trials(deepcopy=False, states=(state.RUNNING,)):
            self._study.tell(trial.number, state=state.FAIL)

    def _constraints(self, trial):
        values = json.loads(trial.user_attrs.get(_RESULT, "{}"))
        if not values:
            return [_LARGE]
        return [min(share, _LARGE) or -1.0 for share in self._budget.excesses(values).values()]

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All that have ended, in the order in which they were begun, judged by the present budget."""
        states = self._optuna.trial.TrialState
        found = []
        for trial in self._study.get_trials(deepcopy=False, states=(states.COMPLETE, states.FAIL)):
            known = trial.user_attrs.get(_PROPOSAL)
            if known is None:  # it was given up before anything was known of it
                continue
            values = json.loads(trial.user_attrs.get(_RESULT, "{}"))
            made = Trial(trial.number, **{**json.loads(known), **values}, folder=self.folder_of(trial.number))
            if trial.state == states.FAIL and not made.failure:
                made = _replaced(made, failure="it was interrupted")
            excess = max(self._budget.excesses(made.costs()).values())
            found.append(_replaced(made, excess=excess))
        return tuple(found)

    def folder_of(self, number: int) -> pathlib.Path:
        """The folder of a trial."""
        from keras_mot.recipes.searching.worker import trial_folder

        return trial_folder(self._folder, number)

    def begin(
        self, proposal: Proposal | None, dense: float, families: Sequence[str], kernels: float | None = None
    ) -> tuple[Any, Proposal]:
        """Begins a trial: of a proposal, or of one that the sampler makes from the trials so far.

        Args:
            proposal: a `Proposal`, or `None`.
            dense: bytes of all kernels in 8 bits, zipped.
            families: those to choose from, some of `FAMILIES`.
            kernels: bytes of all kernels, if the sampler is to choose all but this.

        Returns:
            Optuna's trial, and the `Proposal`.
        """
        with _quiet():
            if proposal is not None:
                own = {name: getattr(proposal, name) for name in self._distributions if name != "size"}
                self._enqueue(size=proposal.kernels / dense, **own)
            elif kernels is not None:
                self._enqueue(size=kernels / dense)
            trial = self._study.ask(self._distributions)
            if trial.params["family"] not in families:  # another call may have asked for other families
                self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
                self._enqueue(**{**trial.params, "family": families[trial.number % len(families)]})
                trial = self._study.ask(self._distributions)
        if proposal is None:
            params = {**trial.params}
            proposal = Proposal(kernels=params.pop("size") * dense, **params)
        return trial, proposal

    def _enqueue(self, **params):
        self._study.enqueue_trial({name: self._within(name, value) for name, value in params.items()})

    def _within(self, name, value):
        distribution = self._distributions[name]
        return value if hasattr(distribution, "choices") else min(max(value, distribution.low), distribution.high)

    def note(self, trial: Any, proposal: Proposal, predicted: float) -> None:
        """Keeps what a trial is of."""
        known = dataclasses.asdict(proposal)
        known = {"asked": known.pop("kernels"), "predicted": predicted, **known}
        trial.set_user_attr(_PROPOSAL, json.dumps(known))

    def finish(self, trial: Any, values: dict[str, Any]) -> None:
        """Keeps the result of a trial: what `Trial` has of it."""
        trial.set_user_attr(_RESULT, json.dumps(values))
        with _quiet():
            self._study.tell(trial, [float(values["zipped"]), float(values["drop"])])

    def fail(self, trial: Any, reason: str) -> None:
        """Keeps that a trial has no result."""
        trial.set_user_attr(_RESULT, json.dumps({"failure": reason}))
        with _quiet():
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)


@contextlib.contextmanager
def _explaining(place):
    """Where trials cannot be read or kept, whatever Optuna or a data base raises is an error that says where."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:
        raise ValueError(
            f"No trials can be kept in {describe(place)}: {type(error).__name__}: {str(error)[:300]} Name another "
            "folder (or `storage`, such as 'sqlite:///search.db')."
        ) from error


def _replaced(trial, **changes):
    return dataclasses.replace(trial, **changes)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Optuna's log of every trial, and of what is experimental in it, off the terminal."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def families_for(names: Any) -> tuple[str, ...]:
    """The families that are asked for, checked; all by default.

    Raises:
        TypeError: if it is no list of names.
        ValueError: if there is none of a name.
    """
    if names is None:
        return tuple(FAMILIES)
    if isinstance(names, str) or not isinstance(names, list | tuple) or not names:
        raise TypeError(f"`families` should be a list of some of {', '.join(FAMILIES)}; received {describe(names)}.")
    unknown = [name for name in names if not isinstance(name, str) or name not in FAMILIES]
    if unknown:
        raise ValueError(f"There is no family {unknown[0]!r}; there are: {', '.join(FAMILIES)}.")
    return tuple(dict.fromkeys(names))
