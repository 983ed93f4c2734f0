"""Report uncaught exceptions, which Python would print and remctld send to the caller."""

import _thread
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["report_uncaught"]


def report_uncaught(report: "Callable[[BaseException], object]") -> None:
    """Call a function for each uncaught exception until the process ends.

    Args:
        report: called with an exception that ends the program, or that was raised in a thread, in
            ``__del__`` or in a function of `atexit`. It must not raise.
    """

    def of_program(_kind: object, error: BaseException, _trace: object) -> None:
        report(error)
        raise SystemExit(os.EX_SOFTWARE)

    def elsewhere(event: "Any") -> None:
        if not issubclass(event.exc_type, SystemExit):  # It ends a thread silently.
            report(event.exc_value or event.exc_type())

    sys.excepthook = of_program
    sys.unraisablehook = elsewhere
    # `threading` gets its hook from there; importing it would add a third to our start-up time.
    _thread._excepthook = elsewhere
    threading: Any = sys.modules.get("threading")
    if threading is not None:
        threading.excepthook = elsewhere
