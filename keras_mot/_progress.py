"""Progress bars."""

import contextlib


@contextlib.contextmanager
def progress_bar(show=True):
    """A progress bar on the standard error stream, drawn only where it can be: on a terminal, in a notebook.

    Args:
        show: `False` for none; `None` is as `True`.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    show = show is not False and (console.is_interactive or console.is_jupyter)
    bar = Progress(console=console, transient=True, disable=not show)
    if not show:  # neither started nor stopped: elsewhere than on a terminal, stopping prints an empty line
        yield bar
        return
    with bar:
        yield bar
