"""Call a function of a test in a separate interpreter: for signals, forks, crashes and leaks.

    def dies_of_sigpipe(port: int) -> bool:
        ...  # runs in the other process

    def test_sigpipe(server: FakeServer) -> None:
        assert in_child(dies_of_sigpipe, server.port)

Arguments and result are pickled.  The other process has this one's environment and import path.
Whatever it prints goes to its standard error, and is a failure: warnings and exceptions that
could not be raised are seen there.  When it hangs, it prints where all its threads are, and ends.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from support.waiting import PATIENCE

P = ParamSpec("P")
T = TypeVar("T")

# Seconds for a call: less than pytest-timeout gives a test.
LIMIT = min(100.0 * PATIENCE, 400.0)


def in_child(function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """Call a function that is defined at the top of its file, and return its result.

    Raises AssertionError, with what was printed, when it raises, prints, crashes or hangs.
    """
    return _call(["-m", __name__], function, *arguments, **keywords)


def in_child_after(
    preparation: str, function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs
) -> T:
    """Do the same as in_child(), after statements before all imports, such as monkey-patching."""
    program = f"{preparation}\nfrom {__name__} import main\nmain()"
    return _call(["-c", program], function, *arguments, **keywords)


def _call(
    program: list[str], function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs
) -> T:
    call = pickle.dumps((function.__name__, arguments, keywords))
    module = sys.modules[function.__module__]
    child = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-W", "always", *program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    with child:
        try:
            told = pickle.dumps((module.__name__, module.__file__, call))
            answer, printed = child.communicate(told, LIMIT)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGABRT)  # Has faulthandler say where it is.
            answer, printed = child.communicate()
    if child.returncode or printed:
        text = printed.decode(errors="replace").strip()
        raise AssertionError(f"{function.__name__} ended with {child.returncode}:\n{text}")
    result: T = pickle.loads(answer)
    return result


def main() -> None:
    """Run the call of the parent process."""
    result_file, sys.stdout = sys.stdout.buffer, sys.stderr
    module_name, path, call = pickle.load(sys.stdin.buffer)
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    name, arguments, keywords = pickle.loads(call)
    result_file.write(pickle.dumps(getattr(module, name)(*arguments, **keywords)))
    result_file.flush()


if __name__ == "__main__":
    main()
