"""The options of remctl-rsh: those of ssh, and a few more.

argparse is not used, because ssh's rules differ (``-oPort=22``, options after the host), and as git
may start this program very often.  pages.py generates ``--help``, completion and the man page from
the same tables.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from .request import Request, UsageError, endpoint, forward, port_number, seconds

__all__ = ["COMMAND", "IGNORED", "OPTIONS", "REFUSED", "Option", "parse"]

COMMAND = "remctl-rsh"
SHELLS = ("bash", "zsh", "fish")  # as in cli/completion.py, which is slow to import

Setter = Callable[[Request, Sequence[str]], None]
"""Called with the request and the words of the value (none for a switch)."""

# -- Options that are ignored, and options that are refused ---------------------------------------

IGNORED = {
    "Kerberos authenticates both sides": """-I -i CASignatureAlgorithms CertificateFile
        ChallengeResponseAuthentication CheckHostIP DSAAuthentication EnableSSHKeysign
        FingerprintHash GlobalKnownHostsFile GlobalKnownHostsFile2 GSSAPIAuthentication
        GSSAPIClientIdentity GSSAPIKexAlgorithms GSSAPIKeyExchange GSSAPIRenewalForcesRekey
        GSSAPIServerIdentity GSSAPITrustDNS HashKnownHosts HostbasedAcceptedAlgorithms
        HostbasedAuthentication HostbasedKeyTypes HostKeyAlgorithms HostKeyAlias IdentitiesOnly
        IdentityAgent IdentityFile IdentityFile2 KbdInteractiveAuthentication
        KbdInteractiveDevices KerberosAuthentication KnownHostsCommand
        NoHostAuthenticationForLocalhost NumberOfPasswordPrompts PasswordAuthentication
        PKCS11Provider PreferredAuthentications PubkeyAcceptedAlgorithms PubkeyAcceptedKeyTypes
        PubkeyAuthentication RevokedHostKeys RhostsAuthentication RhostsRSAAuthentication
        RSAAuthentication SecurityKeyProvider SkeyAuthentication SmartcardDevice
        StrictHostKeyChecking TISAuthentication UpdateHostKeys UseBlacklistedKeys
        UseKeychain UserKnownHostsFile UserKnownHostsFile2 VerifyHostKeyDNS VisualHostKey""",
    "Kerberos encrypts": """-2 -C -c -m Cipher Ciphers Compression CompressionLevel KexAlgorithms
        MACs Protocol RekeyLimit RequiredRSASize VersionAddendum WarnWeakCrypto""",
    "agents, tickets and X11 are not forwarded": """-A -a -K -k -X -x -Y AddKeysToAgent
        AFSTokenPassing ForwardAgent ForwardX11 ForwardX11Timeout ForwardX11Trusted
        GSSAPIDelegateCredentials KerberosTGTPassing XAuthLocation""",
    "each command has its own connection": "-M -S ControlMaster ControlPath ControlPersist",
    "there is no configuration file": """-F -P CanonicalDomains CanonicalizeFallbackLocal
        CanonicalizeHostname CanonicalizeMaxDots CanonicalizePermittedCNAMEs Tag""",
    "each address of a host is tried once; a lost connection is noticed": """-4 -6
        AddressFamily ConnectionAttempts IPQoS KeepAlive ProtocolKeepAlives ProxyUseFdpass
        ServerAliveCountMax ServerAliveInterval SetupTimeOut TCPKeepAlive UsePrivilegedPort""",
    "there are no prompts and no terminal": """-e BatchMode EnableEscapeCommandline EscapeChar
        ObscureKeystrokeTiming""",
    "messages go to standard error": "-E -y LogVerbose SyslogFacility",
    "a tunnel that cannot be opened is an error; it listens on localhost by default": """
        -g ChannelTimeout ExitOnForwardFailure GatewayPorts PermitRemoteOpen StreamLocalBindMask
        StreamLocalBindUnlink TunnelDevice""",
    "it has an effect only with PermitLocalCommand, which is an error": "LocalCommand",
    "ssh ignores it, too": "FallBackToRsh UseRoaming UseRsh",
}
"""Options that are accepted and ignored, by the reason."""

_JUMP = "forward the server's port with -L, and connect to that with -p and --principal"

REFUSED = {
    "-B BindInterface": ("network interfaces to connect from", "use -b ADDRESS"),
    "-D DynamicForward": ("SOCKS proxies", "forward a single port with -L"),
    "-J ProxyJump": ("jump hosts", _JUMP),
    "-O": ("shared connections", "omit it, each command has its own connection"),
    "-Q": ("a choice of algorithms", "Kerberos chooses them"),
    "-w Tunnel": ("tunnel devices", "forward ports with -L and -R"),
    "Host Include Match": ("a configuration file", "give the options themselves"),
    "PermitLocalCommand": ("local commands", f"run them before {COMMAND}"),
    "ProxyCommand": ("proxy commands", _JUMP),
    "RefuseConnection": ("refused connections", "omit it"),
}
"""Options that are errors unless their value is no or none: the missing feature, and the cure."""

_WITH_VALUE = frozenset("BcDEeFIiJmOPQSw")  # letters in these two tables

_OFF = ("none", "no", "false")


def _refuse(what: str, cure: str) -> Setter:
    def refuse(_request: Request, words: Sequence[str]) -> None:
        if " ".join(words).lower() not in _OFF:
            raise UsageError(f"remctl does not support {what}: {cure}")

    return refuse


def _nothing(_request: Request, _words: Sequence[str]) -> None:
    pass


_WITHOUT_EFFECT: dict[str, Setter] = {
    name: setter
    for names, setter in (
        *((names, _nothing) for names in IGNORED.values()),
        *((names, _refuse(what, cure)) for names, (what, cure) in REFUSED.items()),
    )
    for name in names.split()
}

# -- Keywords of -o, ssh_config(5) ----------------------------------------------------------------


def _one(words: Sequence[str]) -> str:
    if len(words) > 1:
        raise UsageError(f"unexpected {words[1]!r}: put quotes around a value with spaces")
    if not words or not words[0]:
        raise UsageError("a value is missing")
    return words[0]


def _first(name: str, convert: Callable[[str], object] = str) -> Setter:
    return lambda request, words: request.set_first(name, convert(_one(words)))


def _choose(name: str, choices: Mapping[str, object]) -> Setter:
    def choose(request: Request, words: Sequence[str]) -> None:
        value = _one(words)
        if value.lower() not in choices:
            *most, last = choices
            raise UsageError(f"it must be {', '.join(most)} or {last}, not {value!r}")
        request.set_first(name, choices[value.lower()])

    return choose


_YES_OR_NO = {"yes": True, "no": False, "true": True, "false": False}
_LEVELS = ("quiet", "fatal", "error", "info", "verbose", "debug", "debug1", "debug2", "debug3")


def _time(text: str) -> float | None:
    return None if text.lower() == "none" or text.strip("0") == "" else seconds(text)


def _append(name: str) -> Setter:
    # In -o a space separates the parts, in -L a colon.
    return lambda request, words: getattr(request, name).append(forward(":".join(words)))


def _remote_command(request: Request, words: Sequence[str]) -> None:
    if words[0].lower() != "none":
        request.set_first("remote_command", words[0])


KEYWORDS: dict[str, Setter] = {
    "BindAddress": _first("source_ip"),
    "ClearAllForwardings": _choose("no_forwards", _YES_OR_NO),
    "ConnectTimeout": _first("timeout", _time),
    "ForkAfterAuthentication": _choose("background", _YES_OR_NO),
    "HostName": _first("host_name"),
    "IgnoreUnknown": _first("unknown"),
    "LocalForward": _append("local"),
    "LogLevel": _choose("log_level", {level: level for level in _LEVELS}),
    "Port": _first("port", port_number),
    "RemoteCommand": _remote_command,
    "RemoteForward": _append("remote"),
    "RequestTTY": _choose("terminal", {**_YES_OR_NO, "force": True, "auto": None}),
    "SendEnv": Request.send_variables,
    "SessionType": _choose("session", {"none": "none", "subsystem": "subsystem", "default": ""}),
    "SetEnv": Request.set_variables,
    "StdinNull": _choose("no_input", _YES_OR_NO),
    "User": _first("user"),
}
"""Keywords that have an effect; the others are in IGNORED and REFUSED."""

_SETTERS = {name.lower(): setter for name, setter in {**_WITHOUT_EFFECT, **KEYWORDS}.items()}

_WHOLE_VALUE = ("knownhostscommand", "localcommand", "proxycommand", "remotecommand")


def _keyword(request: Request, words: Sequence[str]) -> None:
    """Apply a value of -o, ``NAME=VALUE`` or ``NAME VALUE``, like a line of ssh_config(5)."""
    text = words[0]
    line = text.strip()
    end = min((at for at in map(line.find, "= \t") if at >= 0), default=len(line))
    name, value = line[:end].lower(), line[end:].strip().removeprefix("=").strip()
    if name.startswith("-") or name not in _SETTERS:
        if name and request.unknown and _matches(name, request.unknown):
            return
        raise UsageError(f"-o {text!r}: unknown option")
    try:
        if not value:
            raise UsageError("a value is missing")
        split = split_words(value)
        _SETTERS[name](request, [value] if name in _WHOLE_VALUE else split)
    except UsageError as error:
        raise UsageError(f"-o {text!r}: {error}") from None


def _matches(name: str, patterns: str) -> bool:
    from fnmatch import fnmatchcase

    return any(fnmatchcase(name, pattern.lower()) for pattern in patterns.split(","))


def split_words(text: str) -> list[str]:
    """Split a value into words by the rules of ssh_config(5).

    Words are in single or double quotes, or end at a space; ``#`` starts a comment.  A backslash
    escapes a quote, a backslash or, outside of quotes, a space; elsewhere it is literal.

    Raises:
        UsageError: a quotation is not closed.
    """
    words: list[str] = []
    word: str | None = None
    quote, at = "", 0
    while at < len(text):
        letter, after = text[at], text[at + 1 : at + 2]
        at += 1
        if word is None:
            if letter in " \t":
                continue
            if letter == "#":
                break
            word = ""
        if letter == "\\" and after and after in ("'\"\\" if quote else "'\"\\ "):
            word += after
            at += 1
        elif letter == quote or (not quote and letter in "'\""):
            quote = "" if quote else letter
        elif letter in " \t" and not quote:
            words.append(word)
            word = None
        else:
            word += letter
    if quote:
        raise UsageError("No closing quotation")
    return words if word is None else [*words, word]


# -- The options that do something ----------------------------------------------------------------


class Option:
    """An option.

    Attributes:
        names: the names, with their dashes.
        metavar: the name of its value; None for a switch.
        set: called with the request and the value in a list, which is empty for a switch.
        help: what it does; "" leaves it out of the help page.
    """

    def __init__(self, names: str, metavar: str | None, set: Setter, help: str = "") -> None:
        self.names = names.split()
        self.metavar = metavar
        self.set = set
        self.help = help


def _always(name: str, value: object = True) -> Setter:
    return lambda request, _: setattr(request, name, value)


def _session(value: str) -> Setter:
    def set_session(request: Request, _words: Sequence[str]) -> None:
        request.set_first("session", value)
        if request.session != value:
            raise UsageError("-N, -s and SessionType are mutually exclusive")

    return set_session


def _ours(name: str, convert: Callable[[str], object] = str) -> Setter:
    return lambda request, words: request.set_first(name, convert(words[0]))


def _completion(request: Request, words: Sequence[str]) -> None:
    if words[0] not in SHELLS:
        raise UsageError(f"the shell must be one of {', '.join(SHELLS)}, not {words[0]!r}")
    request.page = words[0]


OPTIONS = (
    Option("-p", "PORT", KEYWORDS["Port"], "port of the server (default: 4373, then 4444)"),
    Option("-l", "USER", KEYWORDS["User"], "the account to run as; USER@HOST is the same"),
    Option(
        *("--principal", "PRINCIPAL", _ours("principal")),
        "Kerberos principal of the server (default: host/HOST)",
    ),
    Option(
        *("--python", "NAME", _ours("python")),
        "the remctl command that runs Python on the host (default: python)",
    ),
    Option(
        *("--shell", "NAME", _ours("shell")),
        "the remctl command that runs sh on the host (default: sh); used only if the server has"
        " it; an empty NAME disables it",
    ),
    Option("--ccache", "CCACHE", _ours("ccache"), "the credential cache with the tickets to use"),
    Option(
        *("--timeout", "SECONDS", _ours("timeout", seconds)),
        "time limit for each step of connecting (default: 30)",
    ),
    Option("-b", "ADDRESS", KEYWORDS["BindAddress"], "connect from this address"),
    Option("-n", None, _always("no_input"), "give the command an empty standard input"),
    Option("--exact", None, _always("exact"), "run the words unchanged, without a shell"),
    Option("-s", None, _session("subsystem"), "the command is the name of a subsystem: sftp"),
    Option("-N", None, _session("none"), "run no command: keep tunnels open until a signal"),
    Option(
        *("-f", None, _always("background")),
        "go to the background when the command has started and the tunnels are open",
    ),
    Option(
        *("-L", "[BIND:]PORT:HOST:PORT", KEYWORDS["LocalForward"]),
        "forward a local PORT to HOST:PORT, connecting from the server",
    ),
    Option(
        *("-R", "[BIND:]PORT:HOST:PORT", KEYWORDS["RemoteForward"]),
        "forward a PORT of the server to HOST:PORT, connecting from here",
    ),
    Option(
        *("-W", "HOST:PORT", _first("stdio", endpoint)),
        "run no command: forward standard input and output to HOST:PORT, from the server",
    ),
    Option(
        *("-o", "NAME=VALUE", _keyword),
        f"an option of ssh_config(5). These have an effect: {', '.join(KEYWORDS)}; the others are"
        " ignored, or errors",
    ),
    Option("-t", None, _always("terminal"), "accepted, but the command runs without a terminal"),
    Option("-T", None, _always("terminal", False), "run without a terminal"),
    Option(
        *("-q", None, _always("log_level", "quiet")),
        "do not report that a signal killed the command",
    ),
    Option("-v", None, _always("log_level", "verbose"), "report each step"),
    Option("-G", None, _always("page", "configuration"), "print host, port and user, and exit"),
    Option(
        *("--print-completion", "SHELL", _completion),
        "print a script that completes options and hosts, for bash, zsh or fish",
    ),
    Option("-h --help", None, _always("page", "help"), "show this page"),
    Option("-V --version", None, _always("page", "version"), "show the version"),
    *(
        Option(name, "VALUE" if name[1] in _WITH_VALUE else None, setter)
        for name, setter in _WITHOUT_EFFECT.items()
        if name.startswith("-")
    ),
)

_BY_NAME = {name: option for option in OPTIONS for name in option.names}

# -- The command line -----------------------------------------------------------------------------


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Request:
    """Parse the command line.

    Args:
        argv: the arguments, without the program's name.
        environ: the environment, for the variables REMCTL_RSH_*.

    Raises:
        UsageError: the command line or a variable is wrong.
    """
    request = Request()
    words = deque(argv)
    _take_options(words, request)
    if request.page not in (None, "configuration"):
        return request
    if not words:
        raise UsageError("no host: give the host, then the command")
    request.set_destination(words.popleft())
    _take_options(words, request)
    request.command = list(words)
    request.set_from_environment(environ)
    _finish(request)
    return request


def _finish(request: Request) -> None:
    """Apply settings that depend on several options, and check combinations."""
    if request.host_name:
        parts = request.host_name.split("%%")
        request.host = "%".join(part.replace("%h", request.host) for part in parts)
    if request.no_forwards:
        request.local, request.remote = [], []
    if request.command and request.remote_command is not None:
        raise UsageError("a command and the option RemoteCommand are mutually exclusive")
    if request.remote_command is not None:
        request.command = [request.remote_command]
    if request.stdio and (request.command or request.subsystem):
        raise UsageError("-W cannot be used with a command")
    if request.subsystem and len(request.command) != 1:
        raise UsageError("-s needs the name of a subsystem")
    if request.exact and (request.subsystem or not request.command):
        raise UsageError("--exact needs a command")
    if request.no_command and request.command:
        raise UsageError("-N cannot be used with a command")
    if request.background and not (request.command or request.no_command):
        raise UsageError("-f needs a command or -N")
    request.background = bool(request.background)
    request.no_input = bool(request.no_input) or request.background
    request.terminal = bool(request.terminal)


def _take_options(words: deque[str], request: Request) -> None:
    """Consume leading options."""
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.popleft()
        if word == "--":
            return
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            _take(name, [value] if equals else [], words, request)
            continue
        letters = word[1:]  # -xT, -p22, -xp 22
        while letters:
            name, letters = f"-{letters[0]}", letters[1:]
            if _take(name, [letters] if letters else [], words, request, letter=True):
                break


def _take(
    name: str, value: list[str], words: deque[str], request: Request, letter: bool = False
) -> bool:
    """Apply an option; return whether it takes a value."""
    option = _BY_NAME.get(name)
    if option is None:
        raise UsageError(f"no such option: {name}")
    valued = option.metavar is not None
    if valued and not value:
        if not words:
            raise UsageError(f"{name}: a value is missing")
        value = [words.popleft()]
    elif value and not valued and not letter:
        raise UsageError(f"{name} takes no value")
    try:
        option.set(request, value if valued else [])
    except UsageError as error:
        raise UsageError(str(error) if name == "-o" else f"{name}: {error}") from None
    return valued
