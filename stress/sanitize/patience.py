"""A plugin for pytest that makes pytest-xdist wait until its workers have exited.

LeakSanitizer checks a process when it exits.  pytest-xdist kills workers that take longer than ten
seconds, so their leaks would not be reported.
"""

from xdist.workermanage import NodeManager  # type: ignore[import-untyped]

assert hasattr(NodeManager, "EXIT_TIMEOUT"), "it has another name in this pytest-xdist"
NodeManager.EXIT_TIMEOUT = 600  # seconds
