"""A search at work: which trial comes next, what became of it, when to stop."""

import collections
import contextlib
import dataclasses
import json
import math
import pathlib
import time
import warnings

from keras_mot import analysis
from keras_mot._files import replacing, write_text
from keras_mot._progress import say
from keras_mot.recipes import run_folder
from keras_mot.recipes._collapse import warn_of_collapse
from keras_mot.recipes.compress import compress
from keras_mot.recipes.recipe import Recipe
from keras_mot.recipes.searching.executors import LostTrialError, first_done
from keras_mot.recipes.searching.families import FAMILIES, recipe_of, useful
from keras_mot.recipes.searching.halving import lengths
from keras_mot.recipes.searching.layer_options import BITS, SPARSITIES, VALUES, choices_of
from keras_mot.recipes.searching.next_trial import NextTrial
from keras_mot.recipes.searching.result import SearchResult, best_of, front_of, measured
from keras_mot.recipes.searching.shared_start import begin_with, keep
from keras_mot.recipes.searching.stored_data import store_data
from keras_mot.recipes.searching.study import Study
from keras_mot.recipes.searching.worker import DATA, MODEL, RECIPE, SETTINGS, trial_folder

_SENSITIVITY = "sensitivity.json"
_REPORT = "search.json"
_FLOAT = "float"
_SAMPLES = 256  # that sensitivities are measured on
_HOPELESS = 3  # trials that all fail before one has a result
_RATE = 1e-3  # of recipes that train nothing: it is of no meaning there


class Trials:
    """Makes the trials of a search; arguments as of `search`."""

    def __init__(self, model, data, folder, settings, budget, fine_tune, executor, progress):
        self._model, self._data, self._folder, self._settings = model, data, folder, settings
        self._budget, self._fine_tune, self._executor, self._progress = budget, fine_tune, executor, progress
        self._rate = self._fine_tune.learning_rate if self._fine_tune else _RATE

    def prepare(self, arranged, identity, storage, families, seed):
        """Everything that comes before the first trial, in an order in which mistakes show first."""
        self._started = time.monotonic()
        self._families = useful(families, self._budget)
        known = self._folder / _SENSITIVITY
        # Refuses another search's folder before anything is computed.
        self._study = Study(self._folder, storage, self._budget, self._rate, seed, identity)
        self._check_folders()
        if self._executor.shares_process:
            self._executor.bind(self._run_here)
        else:
            store_data(self._folder / DATA, *self._data)
            with replacing(self._folder / MODEL, owned=True) as temporary:
                self._model.save(temporary)
            write_text(self._folder / SETTINGS, json.dumps(self._settings), owned=True)
        if arranged.validation is None:
            self._say("no validation data: results are measured on the training data")
        self._choices = choices_of(self._model, self._losses(known, arranged, seed))
        if not self._choices:
            self._families = [name for name in self._families if not FAMILIES[name]] or ["dense"]

    def _check_folders(self):
        """Refuses to go on where what trials have left was taken away: the best of them could not be given back."""
        folders = [trial_folder(self._folder, trial.number) for trial in measured(self._study.trials)]
        gone = [str(folder) for folder in folders if not (folder / RECIPE).is_file()]
        if gone:
            raise ValueError(
                f"The search in '{self._folder}' has trials whose recipes are gone: {gone}. Put these folders back, or "
                "begin in another one."
            )

    def _losses(self, path, arranged, seed):
        """What the outputs lose by each layer and setting; read from the folder, if they are there."""
        table = None
        if path.is_file():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                table = analysis.Sensitivity.from_dict(json.loads(path.read_text()))
        if table is None:
            self._say("how sensitive each layer is to zeros, shared values and fewer bits")
            inputs = arranged.calibration(_SAMPLES, seed)
            table = analysis.sensitivity(
                self._model,
                inputs,
                weight_bits=BITS,
                sparsity=SPARSITIES,
                values=VALUES,
                max_samples=_SAMPLES,
                progress=self._progress,
            )
            write_text(path, json.dumps(table.to_dict()), owned=True)
        losses = collections.Counter()  # small losses, as those of two kernels of a layer, add up
        for row in table.rows:
            losses[row.layer, row.technique, row.setting] += row.loss
        return dict(losses)

    def run(self, trials, time_limit):
        """Runs trials until there are so many, the time is over, or nothing else is worth one."""
        epochs = lengths(self._fine_tune, trials, len(self._families), time_limit is not None)
        seconds = math.inf if time_limit is None else time_limit
        what = self._budget, self._families, self._choices, self._rate
        self._next = NextTrial(*what, epochs, trials, seconds)
        running, begun = {}, len(self._study.trials)
        if begun:
            self._say(f"going on after {begun} trials in {self._folder}")
        try:
            while True:
                # Until a file was measured, nothing is known of what surrounds the kernels in it.
                places = self._executor.workers if measured(self._study.trials) else 1
                while begun < trials and len(running) < places:
                    place = self._begin([place[2] for place in running.values()])
                    if place is None:  # until another one has ended, at least
                        break
                    running[place[0].number], begun = place, begun + 1
                if not running:
                    break
                number = first_done({each: place[1] for each, place in running.items()})
                self._end(*running.pop(number))
                self._check_hope()
            if begun < trials and self._next.choose(self._study.trials, [], 0.0) is None:  # however much time is left
                self._say("nothing else is worth a trial: there is room for all weights in 8 bits")
        except BaseException:
            for trial, handle, *_ in running.values():
                handle.stop()
                self._study.fail(trial, "it was interrupted")
            raise

    def _begin(self, running):
        """Begins a trial: Optuna's, its handle, the `Proposal`, and when it was; `None` if there is none to begin."""
        done = self._study.trials
        proposal = self._next.choose(done, running, time.monotonic() - self._started)
        if proposal is None:
            return None
        dense = self._next.dense
        if proposal.family is not None:
            trial, proposal = self._study.begin(proposal, dense, self._families)
        else:
            varied = [name for name in self._families if FAMILIES[name]] or self._families
            trial, sampled = self._study.begin(None, dense, varied, proposal.kernels)
            proposal = dataclasses.replace(sampled, epochs=proposal.epochs)
        folder = trial_folder(self._folder, trial.number)
        folder.mkdir(exist_ok=True)
        recipe, predicted = recipe_of(proposal, self._choices, self._fine_tune, f"search-{trial.number:04d}")
        recipe.to_yaml(folder / RECIPE)
        others = [each.folder for each in measured(done)] if recipe.stages[1:] else []
        begin_with(self._folder / _FLOAT, folder, recipe, others)
        self._study.note(trial, proposal, predicted)
        started = time.monotonic()
        return trial, self._executor.submit(self._folder, trial.number), proposal, started

    def _run_here(self, number):
        folder = trial_folder(self._folder, number)
        recipe = Recipe.from_yaml(folder / RECIPE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a trial lacks is seen by its result
            return compress(self._model, recipe, *self._data, output_dir=folder, progress=False, **self._settings)

    def _end(self, trial, handle, proposal, started):
        start = f"trial {trial.number}, {proposal.family}, {proposal.epochs} epochs"
        try:
            handle.wait()
            values = self._values(trial.number) | {"seconds": time.monotonic() - started}
        except (LostTrialError, OSError, ValueError, KeyError) as error:
            self._study.fail(trial, str(error)[:2000])
            self._say(f"{start}: no result: {str(error)[:300]}")
            return
        self._study.finish(trial, values)
        with contextlib.suppress(OSError, ValueError):  # it is spared time, no more
            keep(trial_folder(self._folder, trial.number), self._folder / _FLOAT)
        met = "keeps to the budget" if self._budget.is_met(values) else "beyond the budget"
        self._say(
            f"{start}: {self._metric_name} {values['metric']:.4f}, {values['bytes']:,} bytes, "
            f"{values['zipped']:,} zipped, {met} ({values['seconds']:.0f} s)"
        )
        self._tidy()

    def _values(self, number):
        """What the report of a trial says of its last stage."""
        report = json.loads((trial_folder(self._folder, number) / "report.json").read_text())
        first, last = report["stages"][0], report["stages"][-1]
        self._metric_name = report["metric_name"]
        drop = (first["metric"] - last["metric"]) * (1 if report["greater_is_better"] else -1)
        if math.isnan(drop):
            raise ValueError(f"The metric of its file is {last['metric']}.")
        return {
            "bytes": last["bytes"],
            "zipped": last["zipped_bytes"],
            "latency_ms": last["latency_ms"],
            "metric": last["metric"],
            "drop": drop,
            "brotli_bytes": last["brotli_bytes"],
        }

    def _tidy(self):
        """Removes the models of trials that others beat in every respect; their reports and recipes stay."""
        done = self._study.trials
        kept = {trial.number for cost in ("zipped", "bytes", "latency_ms") for trial in front_of(done, cost)}
        best = best_of(done, self._budget)
        for trial in measured(done):
            if trial.number in kept or trial is best or trial.folder is None or not trial.folder.is_dir():
                continue
            for file in trial.folder.iterdir():
                if run_folder.is_file_of_a_stage(file.name):
                    file.unlink()

    def _check_hope(self):
        done = self._study.trials
        if len(done) >= _HOPELESS and not measured(done):
            raise RuntimeError(
                f"The first {len(done)} trials have no result. The last: {done[-1].failure or 'it was interrupted'}"
            )

    def result(self):
        """The `SearchResult`, also written to the folder."""
        done = self._study.trials
        best = best_of(done, self._budget)
        if best is None:
            raise RuntimeError(f"No trial has a result. The last: {done[-1].failure or 'it was interrupted'}")
        self._say(f"the best is trial {best.number}, {best.family}")
        known = self._run_here(best.number)  # all of it is there: it is loaded
        fields = {field.name: getattr(known, field.name) for field in dataclasses.fields(known)}
        result = SearchResult(
            **fields,
            budget=self._budget,
            trials=done,
            best_trial=best,
            seconds=sum(trial.seconds for trial in done),
        )
        if self._budget.drop is None or not result.met:
            warn_of_collapse(result)
        write_text(pathlib.Path(self._folder) / _REPORT, json.dumps(result.to_dict(), indent=2), owned=True)
        return result

    def _say(self, message):
        if self._progress:
            say(message)
