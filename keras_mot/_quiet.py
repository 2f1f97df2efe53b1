"""Keeps the chatter of native libraries off the terminal while they work."""

import contextlib
import os
import sys
import tempfile


@contextlib.contextmanager
def quiet():
    """Sends what is written to the file descriptors 1 and 2 to nowhere for the time of the block.

    Native code writes past `sys.stderr`, so the descriptors themselves are pointed elsewhere. Errors are
    raised as exceptions and stay visible.
    """
    with contextlib.ExitStack() as stack:
        try:
            sink = stack.enter_context(tempfile.TemporaryFile())
            for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
                with contextlib.suppress(Exception):
                    stream.flush()
                saved = os.dup(descriptor)
                stack.callback(os.close, saved)
                stack.callback(os.dup2, saved, descriptor)
                os.dup2(sink.fileno(), descriptor)
        except OSError:  # a process without standard streams has nothing to silence
            pass
        yield
