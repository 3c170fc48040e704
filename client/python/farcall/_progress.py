"""What a function says of itself while it runs."""

import sys


def progress(done: float, total: float = 0, note: str = "") -> None:
    """Tells whoever waits how far the running task is: ``TaskFuture.progress``, the bar of
    ``farcall map``, ``farcall task status``. ``total`` 0: not known.

    Cheap: at most ten messages a second leave the worker, what is between is merged. Outside of a task
    it does nothing, so that a function can be tried at home. Works on workers without this package as
    well (``import farcall`` gives them a module with this function).
    """
    task = sys.modules.get("farcall_task")  # the runner's, in a worker
    if task is not None:
        task.progress(done, total, note)


progress.__module__ = "farcall"  # so that it is found in the stand-in as well
