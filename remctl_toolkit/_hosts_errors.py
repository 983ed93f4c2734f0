"""Exceptions of host lists."""

from __future__ import annotations

from _remctl_text import printable

_MAX_TEXT = 1000  # characters of a message: a line of a file may have millions


class HostListError(ValueError):
    """A host list is invalid or cannot be read; the text is one line, and safe to print.

    Long texts are shortened in the middle.
    """

    def __init__(self, text: str) -> None:
        text = printable(text)
        if len(text) > _MAX_TEXT:
            text = f"{text[: _MAX_TEXT // 2]} ... {text[-_MAX_TEXT // 2 :]}"
        super().__init__(text)


# The names of packages on PyPI and in Debian.
_PACKAGES = {
    "ClusterShell": ("ClusterShell", "python3-clustershell"),
    "dnspython": ("dnspython", "python3-dnspython"),
    "python-gssapi": ("gssapi", "python3-gssapi"),
    "rich": ("rich", "python3-rich"),
}


class MissingExtraError(ImportError):
    """An optional package is not installed.

    Attributes:
        package: the package.
        purpose: the feature that needs it.
    """

    def __init__(self, package: str, purpose: str) -> None:
        super().__init__(package, purpose)
        self.package = package
        self.purpose = purpose

    def __str__(self) -> str:
        pypi, debian = _PACKAGES[self.package]
        cure = f"pip install {pypi}, or apt install {debian}"
        return printable(f"{self.purpose} needs {self.package}: {cure}")
