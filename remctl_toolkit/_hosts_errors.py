"""Exceptions of host lists."""

from __future__ import annotations

from _remctl_text import printable

_LONGEST = 1000  # characters of a text: a line of a file may have millions


class HostListError(ValueError):
    """A host list is wrong or cannot be read; the text is one line, and safe to print.

    Of a long text, the middle is left out.
    """

    def __init__(self, text: str) -> None:
        text = printable(text)
        if len(text) > _LONGEST:
            text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
        super().__init__(text)


# What to install: names on PyPI, and Debian's.
_PACKAGES = {
    "ClusterShell": ("ClusterShell", "python3-clustershell"),
    "dnspython": ("dnspython", "python3-dnspython"),
    "python-gssapi": ("gssapi", "python3-gssapi"),
    "rich": ("rich", "python3-rich"),
}


class MissingExtraError(ImportError):
    """A package is not installed that only some features need.

    Attributes:
        package: the package.
        purpose: what needs it.
    """

    def __init__(self, package: str, purpose: str) -> None:
        super().__init__(package, purpose)
        self.package = package
        self.purpose = purpose

    def __str__(self) -> str:
        pypi, debian = _PACKAGES[self.package]
        cure = f"pip install {pypi}, or apt install {debian}"
        return printable(f"{self.purpose} needs {self.package}: {cure}")
