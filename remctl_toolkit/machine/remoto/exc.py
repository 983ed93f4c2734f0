"""What remoto's exceptions are called here."""

from remctl import RemctlConnectError as HostNotFound

from ..base.errors import CommandTimeoutError as TimeoutError
from ..call import RemoteCallError as RemoteError
from ..call import ResultError as DataFormatError

__all__ = ["DataFormatError", "HostNotFound", "RemoteError", "TimeoutError"]
