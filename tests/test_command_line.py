import sys

import pytest

import keras_mot
from keras_mot._command_line import is_command_line

pytestmark = pytest.mark.backend_independent


@pytest.mark.parametrize(
    ("arguments", "original", "expected"),
    [
        (["/usr/bin/keras-mot", "--help"], [], True),
        (["keras-mot"], [], True),
        (["keras-mot.exe", "inspect"], [], True),
        (["-m", "--help"], ["python", "-m", "keras_mot", "--help"], True),
        (["-m"], ["python", "-X", "dev", "-mkeras_mot"], True),
        (["-m"], ["python", "-m", "keras_mot.export.litert.engines.worker"], False),
        (["-m", "keras_mot"], ["python", "-m", "my_package", "keras_mot"], False),
        (["train.py"], ["python", "train.py"], False),
        (["keras-mot.py"], ["python", "keras-mot.py"], False),
        ([""], ["python"], False),
        ([], ["python"], False),
    ],
)
def test_which_processes_are_the_command_line(monkeypatch, arguments, original, expected):
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(sys, "orig_argv", original)
    assert is_command_line() == expected


def test_elsewhere_the_import_gives_everything():
    assert all(hasattr(keras_mot, name) for name in keras_mot.__all__)


def test_the_command_line_imports_what_the_package_gives():
    import keras_mot
    from keras_mot import _rooms

    assert {*_rooms.__all__, *keras_mot._ON_FIRST_USE, "__version__"} == set(keras_mot.__all__)
