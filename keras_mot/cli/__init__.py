"""The command line `keras-mot`: it parses, calls the library, and prints."""

from keras_mot.cli._main import main

__all__ = ["main"]
