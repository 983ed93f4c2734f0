"""The options of remctl-rsh: those of ssh that matter here, and a few of its own.

They are read without argparse: ssh's ways are not argparse's (``-oPort=22``, options behind the
host), and what runs for each file of a repository should start fast.  ``--help``, completion and
the man page are made of the same table, see pages.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from .request import Request, UsageError, forward, port_number, seconds

__all__ = ["COMMAND", "OPTIONS", "Option", "parse"]

COMMAND = "remctl-rsh"
SHELLS = ("bash", "zsh", "fish")  # as in cli/completion.py, which takes longer to import

Setter = Callable[[Request, str], None]


class Option:
    """An option.

    Attributes:
        names: as they are typed.
        metavar: what its value is called; None if it has none.
        help: what it does; "" leaves it out of the help page.
        set: called with the request, and the value ("" if it has none).
    """

    def __init__(self, names: tuple[str, ...], metavar: str | None, help: str, set: Setter) -> None:
        self.names = names
        self.metavar = metavar
        self.help = help
        self.set = set


def _first(name: str, convert: Callable[[str], object] = str) -> Setter:
    return lambda request, value: request.set_first(name, convert(value))


def _always(name: str, value: object = True) -> Setter:
    return lambda request, _: setattr(request, name, value)


def _nothing(_request: Request, _value: str) -> None:
    pass


def _append(name: str) -> Setter:
    return lambda request, value: getattr(request, name).append(forward(value))


def _refuse(what: str) -> Setter:
    def refuse(_request: Request, _value: str) -> None:
        raise UsageError(f"there is no way to have {what} over remctl")

    return refuse


def _refuse_if_wanted(what: str) -> Setter:
    def refuse(_request: Request, value: str) -> None:
        if value.lower() not in ("none", "no", "false"):
            raise UsageError(f"there is no way to have {what} over remctl")

    return refuse


def _completion(request: Request, value: str) -> None:
    if value not in SHELLS:
        raise UsageError(f"completion is for {', '.join(SHELLS)}, not {value!r}")
    request.page = value


# -- Keywords of -o, ssh_config(5) ----------------------------------------------------------------


def _if_yes(name: str) -> Setter:
    def set_(request: Request, value: str) -> None:
        if value.lower() in ("yes", "true", "force"):
            setattr(request, name, True)

    return set_


def _address_of_tunnel(name: str) -> Setter:
    """Take ``[bind_address:]port host:port``: unlike with -L, a space is in it."""
    return lambda request, value: getattr(request, name).append(forward(":".join(value.split())))


def _remote_command(request: Request, value: str) -> None:
    if value.lower() != "none":
        request.set_first("remote_command", value)


def _session_type(request: Request, value: str) -> None:
    if value.lower() not in ("none", "subsystem", "default"):
        raise UsageError(f"SessionType is none, subsystem or default, not {value!r}")
    request.no_command = value.lower() == "none"
    request.subsystem = value.lower() == "subsystem"


def _log_level(request: Request, value: str) -> None:
    request.quiet = value.upper() in ("QUIET", "FATAL")
    request.verbose = value.upper() in ("VERBOSE", "DEBUG", "DEBUG1", "DEBUG2", "DEBUG3")


_KEYWORDS: dict[str, Setter] = {
    "bindaddress": _first("source_ip"),
    "connecttimeout": lambda request, value: (
        None if value == "none" else request.set_first("timeout", seconds(value))
    ),
    "dynamicforward": _refuse_if_wanted("a SOCKS proxy"),
    "forkafterauthentication": _refuse_if_wanted("ssh's way into the background"),
    "hostname": lambda request, value: setattr(request, "host", request.host or value),
    "localforward": _address_of_tunnel("local"),
    "loglevel": _log_level,
    "port": _first("port", port_number),
    "proxycommand": _refuse_if_wanted("a proxy command"),
    "proxyjump": _refuse_if_wanted("a jump host"),
    "remotecommand": _remote_command,
    "remoteforward": _address_of_tunnel("remote"),
    "requesttty": _if_yes("terminal"),
    "sendenv": lambda request, value: request.send_variables(value),
    "sessiontype": _session_type,
    "setenv": lambda request, value: request.set_variables(value),
    "stdinnull": _if_yes("no_input"),
    "tunnel": _refuse_if_wanted("a network interface"),
    "user": _first("user"),
}

# They are about ssh's own encryption, keys, files, agents and X11: Kerberos has settled all that,
# or nobody misses it.  A name that is nowhere here is somebody's mistake.
_IGNORED_KEYWORDS = """
    addkeystoagent addressfamily batchmode bindinterface canonicaldomains canonicalizefallbacklocal
    canonicalizehostname canonicalizemaxdots canonicalizepermittedcnames casignaturealgorithms
    certificatefile challengeresponseauthentication channeltimeout checkhostip ciphers
    clearallforwardings compression connectionattempts controlmaster controlpath controlpersist
    enableescapecommandline enablesshkeysign escapechar exitonforwardfailure fingerprinthash
    forwardagent forwardx11 forwardx11timeout forwardx11trusted gatewayports globalknownhostsfile
    gssapiauthentication gssapiclientidentity gssapidelegatecredentials gssapikexalgorithms
    gssapikeyexchange gssapirenewalforcesrekey gssapiserveridentity gssapitrustdns hashknownhosts
    hostbasedacceptedalgorithms hostbasedauthentication hostbasedkeytypes hostkeyalgorithms
    hostkeyalias identitiesonly identityagent identityfile ignoreunknown ipqos
    kbdinteractiveauthentication kbdinteractivedevices kexalgorithms knownhostscommand localcommand
    logverbose macs nohostauthenticationforlocalhost numberofpasswordprompts
    obscurekeystroketiming passwordauthentication permitlocalcommand permitremoteopen
    pkcs11provider preferredauthentications proxyusefdpass pubkeyacceptedalgorithms
    pubkeyacceptedkeytypes pubkeyauthentication rekeylimit requiredrsasize revokedhostkeys
    securitykeyprovider serveralivecountmax serveraliveinterval streamlocalbindmask
    streamlocalbindunlink stricthostkeychecking syslogfacility tag tcpkeepalive tunneldevice
    updatehostkeys userknownhostsfile verifyhostkeydns visualhostkey warnweakcrypto xauthlocation
"""


def _keyword(request: Request, text: str) -> None:
    """Take the value of -o: ``NAME=VALUE`` or ``NAME VALUE``."""
    first, *rest = text.split(None, 1) or [""]
    name, equals, value = text.partition("=") if "=" in first else (first, "", "".join(rest))
    name, value = name.strip(), value.strip()
    if not equals and value.startswith("="):  # Port = 22
        value = value[1:].strip()
    setter = _KEYWORDS.get(name.lower())
    if setter is None:
        if name.lower() not in _IGNORED_KEYWORDS.split():
            raise UsageError(f"-o {text!r}: ssh has no such option, or it is not known here")
        return
    if not value:
        raise UsageError(f"-o {text!r}: a value is missing")
    try:
        setter(request, value)
    except UsageError as error:
        raise UsageError(f"-o {text!r}: {error}") from None


# -- The table ------------------------------------------------------------------------------------

OPTIONS = (
    Option(("-p",), "PORT", "port of the server (default: 4373, then 4444)", _KEYWORDS["port"]),
    Option(("-l",), "USER", "the account to run as; USER@HOST is the same", _KEYWORDS["user"]),
    Option(
        ("--principal",),
        "PRINCIPAL",
        "Kerberos principal of the server (default: host/HOST)",
        _first("principal"),
    ),
    Option(
        ("--python",),
        "NAME",
        "the remctl command that runs Python there (default: python)",
        _first("python"),
    ),
    Option(
        ("--shell",),
        "NAME",
        "the remctl command that runs sh there (default: sh); used if the server has it, never"
        " if NAME is empty",
        _first("shell"),
    ),
    Option(
        ("--ccache",), "CCACHE", "the credential cache with the tickets to use", _first("ccache")
    ),
    Option(
        ("--timeout",),
        "SECONDS",
        "time that each step of connecting may take (default: 30)",
        _first("timeout", seconds),
    ),
    Option(("-b",), "ADDRESS", "connect from this address", _KEYWORDS["bindaddress"]),
    Option(("-n",), None, "no standard input: the command has an empty one", _always("no_input")),
    Option(
        ("--exact",),
        None,
        "run the command's words as they are: no shell takes spaces and quotes for its own",
        _always("exact"),
    ),
    Option(
        ("-s",),
        None,
        "the command is the name of a subsystem; the one there is is sftp",
        _always("subsystem"),
    ),
    Option(
        ("-N",), None, "run no command: keep tunnels open until a signal", _always("no_command")
    ),
    Option(
        ("-L",),
        "[BIND:]PORT:HOST:PORT",
        "have connections to a port here continue from there to a host's port",
        _append("local"),
    ),
    Option(
        ("-R",),
        "[BIND:]PORT:HOST:PORT",
        "have connections to a port there continue from here to a host's port",
        _append("remote"),
    ),
    Option(
        ("-o",),
        "NAME=VALUE",
        "an option of ssh_config(5): Port, User, HostName, ConnectTimeout, BindAddress, SendEnv,"
        " SetEnv, RemoteCommand, LocalForward, RemoteForward, StdinNull, SessionType and LogLevel"
        " count; ProxyCommand, ProxyJump, DynamicForward, Tunnel and ForkAfterAuthentication are"
        " errors; the others do nothing",
        _keyword,
    ),
    Option(
        ("-t",),
        None,
        "ask for a terminal: there is none over remctl, which is said, and all goes on",
        _always("terminal"),
    ),
    Option(("-T",), None, "no terminal, and no word about it", _always("terminal", False)),
    Option(("-q",), None, "say nothing about a command that a signal ended", _always("quiet")),
    Option(("-v",), None, "say what is done", _always("verbose")),
    Option(
        ("-G",), None, "print host, port and user, and do nothing", _always("page", "configuration")
    ),
    Option(
        ("--print-completion",),
        "SHELL",
        "print what makes bash, zsh or fish complete options and hosts",
        _completion,
    ),
    Option(("-h", "--help"), None, "show this page", _always("page", "help")),
    Option(("-V", "--version"), None, "show the version", _always("page", "version")),
    *(Option((f"-{letter}",), None, "", _nothing) for letter in "46AaCgKkMXxYy"),
    *(Option((f"-{letter}",), "VALUE", "", _nothing) for letter in "BcEeFIimPS"),
    Option(("-D",), "PORT", "", _refuse("a SOCKS proxy")),
    Option(("-f",), None, "", _refuse("ssh's way into the background")),
    Option(("-J",), "HOST", "", _refuse("a jump host")),
    Option(("-O",), "WORD", "", _refuse("a shared connection")),
    Option(("-Q",), "WORD", "", _refuse("ssh's algorithms")),
    Option(("-W",), "HOST:PORT", "", _refuse("standard input as a tunnel: use -L")),
    Option(("-w",), "TUNNEL", "", _refuse("a network interface")),
)

_BY_NAME = {name: option for option in OPTIONS for name in option.names}


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Request:
    """Return what the command line asks for.

    Args:
        argv: the arguments, without the program's name.
        environ: where the variables REMCTL_RSH_* may be.

    Raises:
        UsageError: it cannot be right.
    """
    request = Request()
    words = deque(argv)
    _take_options(words, request)
    if request.page not in (None, "configuration"):
        return request
    if not words:
        raise UsageError("no host: name one, and then the command")
    request.set_destination(words.popleft())
    _take_options(words, request)
    request.command = list(words)
    request.set_from_environment(environ)
    _check(request)
    return request


def _check(request: Request) -> None:
    if request.command and request.remote_command is not None:
        raise UsageError("there is a command, and another one is the option RemoteCommand")
    if request.remote_command is not None:
        request.command = [request.remote_command]
    if request.subsystem and len(request.command) != 1:
        raise UsageError("-s goes with the name of a subsystem")
    if request.exact and (request.subsystem or not request.command):
        raise UsageError("--exact goes with a command")
    if request.no_command and (request.command or request.subsystem):
        raise UsageError("-N goes without a command")


def _take_options(words: deque[str], request: Request) -> None:
    """Take options from the front, as far as the first word that is none."""
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.popleft()
        if word == "--":
            return
        if word.startswith("--"):
            _take_long(word, words, request)
        else:
            _take_letters(word, words, request)


def _take_long(word: str, words: deque[str], request: Request) -> None:
    name, equals, value = word.partition("=")
    option = _option(name)
    if equals and option.metavar is None:
        raise UsageError(f"{name} has no value")
    if option.metavar is not None and not equals:
        value = _value(name, words)
    _set(option, name, value, request)


def _take_letters(word: str, words: deque[str], request: Request) -> None:
    """Take ``-xT``, ``-p22``, ``-xp 22``."""
    letters = word[1:]
    while letters:
        name, letters = f"-{letters[0]}", letters[1:]
        option = _option(name)
        value = ""
        if option.metavar is not None:
            value, letters = letters or _value(name, words), ""
        _set(option, name, value, request)


def _option(name: str) -> Option:
    option = _BY_NAME.get(name)
    if option is None:
        raise UsageError(f"no such option: {name}")
    return option


def _value(name: str, words: deque[str]) -> str:
    if not words:
        raise UsageError(f"{name}: a value is missing")
    return words.popleft()


def _set(option: Option, name: str, value: str, request: Request) -> None:
    try:
        option.set(request, value)
    except UsageError as error:
        raise UsageError(str(error) if name == "-o" else f"{name}: {error}") from None
