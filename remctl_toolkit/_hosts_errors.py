"""Exceptions of host lists."""

from __future__ import annotations

from _remctl_text import printable


class HostListError(ValueError):
    """A host list is wrong or cannot be read; the text is one line, and safe to print."""

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))


class MissingExtraError(ImportError):
    """A package is not installed that comes with an extra.

    Attributes:
        package: the package.
        purpose: what needs it.
        extra: the extra.
    """

    def __init__(self, package: str, purpose: str, extra: str = "fleet") -> None:
        super().__init__(package, purpose, extra)
        self.package = package
        self.purpose = purpose
        self.extra = extra

    def __str__(self) -> str:
        cure = f"pip install 'python-remctl[{self.extra}]'"
        return printable(f"{self.purpose} needs {self.package}: {cure}")
