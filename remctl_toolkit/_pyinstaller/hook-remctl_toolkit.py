"""PyInstaller's hook: the files that are sent to remote hosts, and modules imported when used."""

from PyInstaller.utils.hooks import (  # type: ignore[import-untyped]
    collect_data_files,
    collect_submodules,
)

datas = collect_data_files(
    "remctl_toolkit", include_py_files=True, includes=["**/far_*.py", "**/both_*.py"]
)
hiddenimports = collect_submodules("remctl_toolkit.machine")
