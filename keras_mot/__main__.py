"""Runs the command line as `python -m keras_mot`."""

import sys

from keras_mot.cli import main

if __name__ == "__main__":
    sys.exit(main())
