"""Modules that are there under TFMOT's paths, so that its scripts find what they name.

A name that keras-mot does not have is an error that says what takes its place, whether it is read from a module or
imported.
"""

import importlib.abc
import sys
import types

from keras_mot.tfmot.names import SUCCESSORS, all_modules

_PACKAGE = "keras_mot"


class AliasModule(types.ModuleType):
    """A module with some names of its own, and those of a room.

    Args:
        name: full name of the module.
        names: dictionary of what is in it.
        room: the room that has all other names, or `None`.
    """

    def __init__(self, name: str, names: dict, room: types.ModuleType | None):
        super().__init__(name, f"Under TFMOT's name: {room.__name__ if room else 'what keras-mot has of it'}.")
        self.__path__ = []  # what it does not have is looked up as a module, see `SuccessorFinder`
        self._room = room
        vars(self).update(names)
        own = [each for each in names if not each.startswith("_")]
        self.__all__ = sorted({*own, *(getattr(room, "__all__", ()) if room else ())})

    def __getattr__(self, name):
        room = vars(self).get("_room")
        if room is not None and not name.startswith("__") and hasattr(room, name):
            return getattr(room, name)
        raise AttributeError(_missing(self.__name__, name))

    def __dir__(self):
        return sorted({*vars(self), *self.__all__})


class SuccessorFinder(importlib.abc.MetaPathFinder):
    """Tells in an `ImportError` what takes the place of a name that is imported from an `AliasModule`."""

    def find_spec(self, fullname, path=None, target=None):
        """Nothing: raises the error, or leaves it to Python."""
        parent, _, name = fullname.rpartition(".")
        if isinstance(sys.modules.get(parent), AliasModule) and name in SUCCESSORS:
            raise ImportError(_missing(parent, name), name=parent)
        return None


def _missing(module, name):
    if name in SUCCESSORS:
        return f"`{name}` of TFMOT is not in keras-mot: {SUCCESSORS[name]}"
    return f"module '{module}' has no attribute '{name}'. The guide 'Coming from TFMOT' lists what is where."


def install() -> types.ModuleType:
    """Makes all modules, hangs each into the one above it, and returns `keras_mot.experimental`."""
    made = {}
    for path, (names, room) in sorted(all_modules().items()):
        module = made[path] = AliasModule(f"{_PACKAGE}.{path}", names, room)
        sys.modules[module.__name__] = module
        parent, _, name = path.rpartition(".")
        above = made.get(parent) or sys.modules[f"{_PACKAGE}.{parent}" if parent else _PACKAGE]
        setattr(above, name, module)
    if not any(isinstance(finder, SuccessorFinder) for finder in sys.meta_path):
        sys.meta_path.append(SuccessorFinder())
    return made["experimental"]
