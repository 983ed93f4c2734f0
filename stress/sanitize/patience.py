"""A plugin for pytest: pytest-xdist waits until its workers have ended by themselves.

LeakSanitizer looks at a process when it ends.  pytest-xdist gives its workers ten seconds for that,
and then kills them: what they lost would never be told.
"""

from xdist.workermanage import NodeManager  # type: ignore[import-untyped]

assert hasattr(NodeManager, "EXIT_TIMEOUT"), "it has another name in this pytest-xdist"
NodeManager.EXIT_TIMEOUT = 600  # seconds
