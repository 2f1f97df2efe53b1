"""Attacks on files, for `attacks.py`: kills, full disks, paths, concurrent runs. Whether anything is lost, or silent.

Each function of `GROUPS` takes an empty folder and a seed, and yields (case, what went wrong or None). They need a
system that forks, such as Linux. Alone: python benchmarks/_attacks_files.py
"""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import random
import socket
import subprocess
import sys
import tempfile
import time
import zipfile

from _forked import Workshop

_BACKEND = "tensorflow"  # converts in its own process
_OLD = b"an older file"
_DISKS = 6  # sizes that a run is tried with


# What is attacked.


def kills(scratch, seed):
    """32 kills at random moments."""
    dice = random.Random(seed)
    with _workshop(scratch) as workshop:
        whole = workshop.call("command", *_compress(scratch, "whole"))
        yield "a run that is left alone", _failure(whole)
        if whole.code:
            return
        for chain in range(3):
            folder = scratch / f"chain-{chain}"
            for kill in range(4):
                moment = dice.uniform(0.05, 0.95) * whole.seconds
                workshop.call("command", *_compress(scratch, folder.name), kill_after=moment)
                yield f"compress, kill {chain}.{kill} after {moment:.2f} s", _broken(folder)
            outcome = workshop.call("command", *_compress(scratch, folder.name))
            yield (
                f"compress, goes on after kills {chain}.0-3",
                _failure(outcome) or _different(folder, scratch / "whole"),
            )
        yield from _kills_of_prune(workshop, scratch, dice)
        for kill in range(16):
            folder = scratch / f"loop-{kill}"
            folder.mkdir()
            moment = dice.uniform(0.1, 0.6)
            while not (folder / "run" / "run.json").exists() and moment < 60:  # a slow machine has not yet begun
                workshop.call("write_again_and_again", folder, kill_after=moment)
                moment *= 2
            yield f"writing all the time, kill {kill}", _broken_loop(folder)


def _kills_of_prune(workshop, scratch, dice):
    folder = scratch / "prune"
    folder.mkdir()
    outputs = [folder / "small.keras", folder / "small.tflite"]
    arguments = _prune(scratch, outputs[0])
    whole = workshop.call("command", *arguments)
    if whole.code:
        yield "prune, left alone", _failure(whole)
        return
    for kill in range(4):
        for output in outputs:
            output.write_bytes(_OLD)
        moment = (0.4, 0.7, 0.9, 0.97)[kill] * whole.seconds * dice.uniform(0.95, 1.02)
        workshop.call("command", *arguments, kill_after=moment)
        broken = [output.name for output in outputs if not _is_old_or_whole(output)]
        yield f"prune, kill {kill} after {moment:.2f} s", f"half of {broken}" if broken else None


def disk_full(scratch, seed):
    """Ten disks that are full at some moment: a small file system where one can be mounted, else a limit on files."""
    dice = random.Random(seed)
    with _workshop(scratch) as workshop:
        whole = workshop.call("command", *_compress(scratch, "whole"))
        if whole.code:
            yield "a run on a large disk", _failure(whole)
            return
        sizes = sorted(path.stat().st_size for path in (scratch / "whole").iterdir())
        for number in range(_DISKS):
            share = (number + dice.uniform(0.2, 0.8)) / _DISKS
            yield (
                f"compress, {share:.0%} of the room",
                _run_on_full_disk(workshop, scratch, f"disk-{number}", sizes, share),
            )
        for name, room in (("small.keras", 3000), ("small.tflite", 1000)):
            yield f"prune to {name}", _write_on_full_disk(workshop, scratch, name, room, _prune(scratch, "{}"))
        yield "export_litert", _write_on_full_disk(workshop, scratch, "m.tflite", 1000, "export")
        yield "Recipe.to_yaml", _write_on_full_disk(workshop, scratch, "r.yaml", 100, "recipe")


def _run_on_full_disk(workshop, scratch, name, sizes, share):
    with _Disk(scratch / name, int(share * sum(sizes))) as disk:
        limit = None if disk.mounted else int(share * sizes[-1])
        outcome = workshop.call("command", *_compress(scratch, f"{name}/run"), file_size=limit)
        if outcome.code == 0:
            return "it says that all went well"
        if not _tells_of_full_disk(outcome):
            return f"it says: {outcome.last_line}"
        broken = _broken(scratch / name / "run")
        if broken:
            return broken
        disk.grow()
        outcome = workshop.call("command", *_compress(scratch, f"{name}/run"))
        return _failure(outcome) or _different(scratch / name / "run", scratch / "whole")


def _write_on_full_disk(workshop, scratch, name, room, how):
    """What is written to a full disk leaves the old file; `how` is what to write, or the arguments of a command."""
    folder = scratch / f"disk-{name}"
    with _Disk(folder, room, _OLD, name) as disk:
        limit = None if disk.mounted else room
        path = folder / name
        if isinstance(how, str):
            outcome = workshop.call("write_to", how, path, scratch / "model.keras", file_size=limit)
        else:
            filled = [argument.format(path) for argument in how if argument != "--tflite"]
            outcome = workshop.call("command", *filled, file_size=limit)
        if outcome.code == 0:
            return "it says that all went well"
        if not _tells_of_full_disk(outcome) or name not in outcome.text:
            return f"it says: {outcome.last_line}"
        if path.read_bytes() != _OLD:
            return "the old file is lost"
        left = sorted(file.name for file in folder.iterdir() if file.name not in (name, "filler"))
        return f"left behind: {left}" if left else None


def paths(scratch, seed):
    """Sixteen paths to write to that are something special."""
    precious = "a user's own file"
    target, store = scratch / "target.tflite", scratch / "store"
    store.mkdir()
    for name in ("mine.keras", "mine.h5", "mine.onnx", "data2.npz", "mine.tflite"):
        (scratch / name).write_text(precious)
    os.mkfifo(scratch / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        before = os.getcwd()
        os.chdir(scratch)
        try:
            server.bind("socket")
        finally:
            os.chdir(before)
    links = {"to-keras.tflite": scratch / "mine.keras", "good.tflite": target, "nowhere.tflite": scratch / "no" / "m"}
    links |= {"loop.tflite": scratch / "loop.tflite", "dangling.tflite": store / "new.tflite"}
    for name, end in links.items():
        (scratch / name).symlink_to(end)
    target.write_bytes(_OLD)
    refused = ["mine.keras", "mine.h5", "mine.onnx", "data2.npz", "pipe", "socket", "store", "to-keras.tflite"]
    refused += ["nowhere.tflite", "loop.tflite", "n" * 300]
    cases = [("export", scratch / name, True) for name in refused]
    cases += [("export", pathlib.Path(os.devnull), True), ("recipe", scratch / "mine.tflite", True)]
    cases += [("export", scratch / name, False) for name in ("good.tflite", "dangling.tflite", "n" * 245 + ".tflite")]
    with _workshop(scratch) as workshop:
        for kind, path, is_refused in cases:
            label = path.name if len(path.name) < 40 else f"a name of {len(path.name)} characters"
            kind_of_path = _kind(path)
            outcome = workshop.call("write_to", kind, path, scratch / "model.keras")
            if is_refused:
                problem = None if "ValueError: " in outcome.text and outcome.code else f"it says: {outcome.last_line}"
                lost = [name for name in refused[:4] if (scratch / name).read_text() != precious]
                problem = f"lost: {lost}" if lost else problem
            else:
                problem = _failure(outcome)
                if not problem and path.read_bytes()[4:8] != b"TFL3":
                    problem = "nothing was written"
            if not problem and _kind(path) != kind_of_path and kind_of_path:
                problem = f"it is another kind of file now: {_kind(path)}"
            yield f"{kind} to {label}", problem


def _kind(path):
    try:
        return os.lstat(path).st_mode >> 12
    except OSError:
        return 0


def concurrent_runs(scratch, seed):
    """Two runs in one folder at once: the same, and one that begins anew."""
    with _workshop(scratch) as workshop:
        yield "two at once: the same run", _two_at_once(workshop, scratch, "same", "tiny", [])
        problem = _two_at_once(workshop, scratch, "other", "other", ["--restart"])
        yield "two at once: another recipe, begun anew", problem


def _two_at_once(workshop, scratch, name, recipe, options):
    first = workshop.start("command", *_compress(scratch, name))
    deadline = time.monotonic() + 300
    while not (scratch / name / "run.lock").exists():
        if time.monotonic() > deadline:
            return _failure(workshop.end(first)) or "the first run never locked its folder"
        time.sleep(0.01)
    second = workshop.call("command", *_compress(scratch, name, recipe), *options)
    outcome = workshop.end(first)
    if second.code == 0:
        return "the second run was not refused"
    if f"process {first} on " not in second.text:
        return f"the second run does not say who is there: {second.last_line}"
    return _failure(outcome) or _broken(scratch / name)


# What must hold.


def _failure(outcome):
    return None if outcome.code == 0 else f"exit code {outcome.code}: {outcome.last_line}"


def _tells_of_full_disk(outcome):
    return any(os.strerror(number) in outcome.text for number in (errno.ENOSPC, errno.EFBIG))


def _broken(folder):
    """What is not whole in the folder of a run, or None: `run.json` lists files, and they are what it says."""
    log = folder / "run.json"
    if not log.exists():
        return None  # killed before the first stage was done
    try:
        values = json.loads(log.read_text())
        listed = [stage[key] for stage in values["stages"] for key in ("model_path", "artifact")]
    except (ValueError, KeyError) as error:
        return f"run.json: {error}"
    for name in listed:
        if not (folder / name).exists():
            return f"{name} is missing"
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != values["sha256"][name]:
            # A stage that is done again is written before it is noted: its old digest makes the next run do it anew.
            return f"{name} is not what run.json says"
    sizes = {stage["artifact"]: stage["bytes"] for stage in values["stages"]}
    wrong = [name for name, size in sizes.items() if (folder / name).stat().st_size != size]
    return f"numbers beside another file: {wrong}" if wrong else None


def _different(folder, whole):
    """How a run that went on differs from one that was left alone, or None."""
    names = sorted(path.name for path in whole.iterdir())
    if sorted(path.name for path in folder.iterdir()) != names:
        return f"other files: {sorted(path.name for path in folder.iterdir())}"
    logs = [json.loads((each / "run.json").read_text()) for each in (folder, whole)]
    for mine, theirs in zip(*(log["stages"] for log in logs), strict=True):
        changed = [key for key in mine if mine[key] != theirs[key] and key not in ("seconds", "latency_ms")]
        if changed:
            return f"stage {mine['name']}: other {changed}"
    files = [name for name in names if name.endswith(".tflite")]
    other = [name for name in files if (folder / name).read_bytes() != (whole / name).read_bytes()]
    return f"other content: {other}" if other else _broken(folder)


def _broken_loop(folder):
    file = folder / "file"
    if file.exists() and (len(content := file.read_bytes()) != 100_000 or len(set(content)) != 1):
        return "half a file"
    return _half_of_a_run(folder / "run")


def _half_of_a_run(folder):
    """Every file is whole, though a run that begins anew may have removed some that are listed."""
    if not folder.exists():
        return "nothing was written"
    with contextlib.suppress(FileNotFoundError):
        json.loads((folder / "run.json").read_text())
    for path in [*folder.glob("0*.keras"), *folder.glob("0*.tflite")]:
        content = path.read_bytes()
        if len(content) != 20_000 or len(set(content)) != 1:
            return f"half of {path.name}"
    return None


def _is_old_or_whole(path):
    content = path.read_bytes()
    if content == _OLD:
        return True
    if path.suffix != ".keras":
        return content[4:8] == b"TFL3"
    with zipfile.ZipFile(path) as archive:
        return archive.testzip() is None


# Tools.


@contextlib.contextmanager
def _workshop(scratch):
    with Workshop("_attacks_files_work", _BACKEND) as workshop:
        made = workshop.call("make_inputs", scratch)
        if made.code:
            raise RuntimeError(f"The model to attack could not be made: {made.text}")
        yield workshop


def _compress(scratch, output, recipe="tiny"):
    inputs = [scratch / "model.keras", "--recipe", scratch / f"{recipe}.yaml", "--data", scratch / "data.npz"]
    return ["compress", *map(str, inputs), "-o", str(scratch / output)]


def _prune(scratch, output):
    training = ["--sparsity", "0.5", "--epochs", "1", "--batch-size", "32", "--frequency", "1", "--tflite"]
    return ["prune", str(scratch / "model.keras"), "--data", str(scratch / "data.npz"), *training, "-o", str(output)]


class _Disk(contextlib.AbstractContextManager):
    """A folder with room for so many bytes beside a first file; a plain folder where nothing can be mounted."""

    def __init__(self, folder, room, content=b"", name=None):
        folder.mkdir()
        self._folder = folder
        pages = 4096 * (4 + -(-room // 4096) + (1 if content else 0))
        mount = ["mount", "-t", "tmpfs", "-o", f"size={pages}", "tmpfs", str(folder)]
        self.mounted = os.name == "posix" and os.geteuid() == 0 and _works(mount)
        if name:
            (folder / name).write_bytes(content)
        if self.mounted and name:  # a page holds more than these small files: no room at all
            with contextlib.suppress(OSError), open(folder / "filler", "wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))

    def grow(self):
        if self.mounted:
            subprocess.run(["mount", "-o", "remount,size=64m", str(self._folder)], check=True)

    def __exit__(self, *error):
        if self.mounted:
            subprocess.run(["umount", str(self._folder)], check=True)


def _works(command):
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


GROUPS = {"kills": kills, "disk full": disk_full, "paths": paths, "concurrent runs": concurrent_runs}


def main():
    failures = 0
    for group, attack in GROUPS.items():
        if sys.argv[1:] and group not in sys.argv[1:]:
            continue
        start, tried = time.monotonic(), 0
        with tempfile.TemporaryDirectory() as folder:
            for case, problem in attack(pathlib.Path(folder), 0):
                tried += 1
                failures += problem is not None
                print(f"{group}: {case}: {problem or 'held'}", flush=True)
        print(f"{group}: {tried} tried, {time.monotonic() - start:.0f} s", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
