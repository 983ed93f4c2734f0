"""What remoto's exceptions are called here."""

from remctl import RemctlConnectError as HostNotFound

from ..call import RemoteCallError as RemoteError
from ..call import ResultError as DataFormatError
from ..errors import CommandTimeoutError as TimeoutError

__all__ = ["DataFormatError", "HostNotFound", "RemoteError", "TimeoutError"]
