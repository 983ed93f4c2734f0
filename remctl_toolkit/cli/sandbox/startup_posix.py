"""Start-up files for sh, ksh, bash and zsh.

They must work with any options, aliases and traps of the user's configuration.  So values are
quoted, a backslash before builtins prevents aliases, and no unset variable is expanded.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from .settings import NAMES, PROMPT, Settings

__all__ = ["bash_hook", "bashrc", "sh_file", "zsh_files"]

# _start sets the sandbox's values. At each prompt, _keep saves the values before the user's hooks
# run, and _again restores them afterwards.
_FUNCTIONS = """\
\\set +e
_remctl_sandbox_start() {{
    {start} ||
        \\return 1
    _remctl_sandbox_path=1
    _remctl_sandbox_show &&
        _remctl_sandbox_keep
}}
_remctl_sandbox_show() {{
    if [ -n "$_remctl_sandbox_path" ]; then
        case ":${{PATH-}}:" in
            :{first}:*) ;;
            *) \\export PATH={first}"${{PATH:+:$PATH}}":{rest} || \\return 1 ;;
        esac
    fi
    case "${{PS1-}}" in
        {prompt}*) ;;
        *) PS1={prompt}"${{PS1:-\\$ }}" ;;
    esac
}}
_remctl_sandbox_keep() {{
    {keep}
    case ":${{PATH-}}:" in
        :{first}:*) _remctl_sandbox_path=1 ;;
        *) _remctl_sandbox_path= ;;
    esac
}}
_remctl_sandbox_again() {{
    {again}
    _remctl_sandbox_show
}}
_remctl_sandbox_begun=
"""

# If the user's configuration has made a variable read-only, _start ends the subshell.  The shell
# then exits before it is ready.
_END = """\
if (_remctl_sandbox_start) >/dev/null 2>&1; then
    _remctl_sandbox_start
    \\true >|{ready}
else
    \\exit 1
fi
"""

_BASH_ONCE = "if \\declare -F _remctl_sandbox_start >/dev/null; then \\return 0; fi\n"

# Bash 5.1 and later run each element of an array. A plain assignment to PROMPT_COMMAND replaces
# only the first element.
_BASH_PROMPT = """\
_remctl_sandbox_before() {
    \\local status=$?
    if [ -n "$_remctl_sandbox_begun" ]; then _remctl_sandbox_keep; fi
    \\return "$status"
}
_remctl_sandbox_after() {
    \\local status=$?
    if [ -n "$_remctl_sandbox_begun" ]; then
        _remctl_sandbox_again
    else
        _remctl_sandbox_start
        _remctl_sandbox_begun=1
    fi
    \\return "$status"
}
if (PROMPT_COMMAND=) 2>/dev/null; then :; else \\exit 1; fi
if [ "$((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1]))" -ge 501 ]; then
    PROMPT_COMMAND=("" _remctl_sandbox_before "${PROMPT_COMMAND[@]}" _remctl_sandbox_after)
else
    PROMPT_COMMAND="_remctl_sandbox_before
${PROMPT_COMMAND-}
_remctl_sandbox_after"
fi
"""

_ZSH_PROMPT = """\
_remctl_sandbox_before() {
    \\emulate -L zsh
    if [[ -n $_remctl_sandbox_begun ]]; then _remctl_sandbox_keep; fi
}
_remctl_sandbox_after() {
    \\emulate -L zsh
    if [[ -n $_remctl_sandbox_begun ]]; then
        _remctl_sandbox_again
    else
        _remctl_sandbox_start
        _remctl_sandbox_begun=1
    fi
}
_remctl_sandbox_hooks() {
    \\emulate -L zsh
    # The function precmd would run before all others.
    if (( $+functions[precmd] )); then
        functions[_remctl_sandbox_precmd]=$functions[precmd]
        \\unfunction precmd
        precmd_functions=(_remctl_sandbox_precmd $precmd_functions)
    fi
    precmd_functions=(_remctl_sandbox_before $precmd_functions _remctl_sandbox_after)
}
_remctl_sandbox_hooks
"""

# Reads one of the user's files, then makes zsh look for the next one in the sandbox's directory.
_ZSH_FILE = """\
{back}
{own}
_remctl_sandbox_zdotdir="${{ZDOTDIR-}}"
if [[ -o interactive ]]; then ZDOTDIR={folder}; fi
"""

_ZSH_BACK = """\
if [[ -n "$_remctl_sandbox_zdotdir" ]]; then
    \\export ZDOTDIR="$_remctl_sandbox_zdotdir"
else
    \\unset ZDOTDIR
fi
"""

# /etc/zshrc of macOS puts the history in the sandbox's directory.
_ZSH_HISTORY = """\
if [[ "${{HISTFILE-}}" == {folder}/* ]]; then
    HISTFILE="${{ZDOTDIR:-${{HOME-}}}}/${{HISTFILE##*/}}"
fi
"""


def sh_file(settings: Settings, file: str) -> str:
    """Return the file for sh and ksh, which the variable ENV names.

    Args:
        settings: the settings.
        file: the user's own file, in the form of ENV: the shell expands parameters in it.
    """
    quoted = '"{}"'.format(file.replace('"', '\\"'))
    parts = [
        _back(settings, "ENV"),
        _read(quoted) if settings.user_config and file else "",
        _functions(settings),
        _unhide([name for name in NAMES if "-" not in name], "\\command unset -f"),
        _all_back(settings),
        _end(settings),
    ]
    return "\n".join(parts)


def bashrc(settings: Settings, hook: str) -> str:
    """Return the file that bash reads instead of ~/.bashrc.

    Args:
        settings: the settings.
        hook: path of the file with the text of bash_hook().
    """
    return (_read("~/.bashrc") if settings.user_config else "") + f"\\. {shlex.quote(hook)}\n"


def bash_hook(settings: Settings) -> str:
    """Return the file that bash reads after the user's configuration, or at its first prompt."""
    parts = [
        _BASH_ONCE,
        _functions(settings),
        _unhide(NAMES, "\\unset -f"),
        _all_back(settings),
        _BASH_PROMPT,
        _end(settings),
    ]
    return "\n".join(parts)


def zsh_files(settings: Settings, folder: str) -> dict[str, str]:
    """Return the files of ZDOTDIR, by name.

    Args:
        settings: the settings.
        folder: the directory with the files.
    """

    def read(name: str) -> str:
        place = f'"${{ZDOTDIR:-${{HOME-}}}}/{name}"'
        return f"if [[ -r {place} ]]; then \\source {place}; fi\n" if settings.user_config else ""

    quoted = shlex.quote(folder)
    history = _ZSH_HISTORY.format(folder=quoted)
    rest = [
        _functions(settings),
        _unhide(NAMES, "\\unset -f"),
        _all_back(settings),
        _ZSH_PROMPT,
        _end(settings),
    ]
    env_file, profile = (
        _ZSH_FILE.format(back=back, own=read(name), folder=quoted)
        for name, back in ((".zshenv", _back(settings, "ZDOTDIR")), (".zprofile", _ZSH_BACK))
    )
    return {
        ".zshenv": env_file,
        ".zprofile": profile,
        ".zshrc": "\n".join([_ZSH_BACK, history, read(".zshrc"), *rest]),
    }


def _functions(settings: Settings) -> str:
    """Return the functions for all these shells."""
    start, keep, again = [], [], []
    for number, (name, value) in enumerate(settings.variables.items()):
        memory = f"_remctl_sandbox_{number}"
        start.append(_set(name, value))
        keep.append(f"{memory}=${{{name}-}}")
        again.append(f'[ "${{{name}-}}" = "${memory}" ] || \\export {name}="${memory}"')
    return _FUNCTIONS.format(
        start=" &&\n        ".join(start),
        keep="\n    ".join(keep),
        again="\n    ".join(again),
        first=shlex.quote(":".join(settings.first)),
        rest=shlex.quote(settings.rest),
        prompt=shlex.quote(PROMPT),
    )


def _end(settings: Settings) -> str:
    return _END.format(ready=shlex.quote(str(settings.ready)))


def _read(quoted: str) -> str:
    """Return code to read a user's file; "command" keeps an error in it from ending ours."""
    return f"if [ -r {quoted} ]; then \\command . {quoted}; fi\n"


def _set(name: str, value: str | None) -> str:
    return f"\\unset {name}" if value is None else f"\\export {name}={shlex.quote(value)}"


def _back(settings: Settings, name: str) -> str:
    """Return code to restore a variable that led to our files, unless it has changed."""
    if name not in settings.hooks:
        return ""
    ours, before = settings.hooks[name]
    return f'if [ "${{{name}-}}" = {shlex.quote(ours)} ]; then {_set(name, before)}; fi'


def _all_back(settings: Settings) -> str:
    return "\n".join(_back(settings, name) for name in settings.hooks)


def _unhide(names: Iterable[str], unset: str) -> str:
    """Return code to remove aliases and functions of these names."""
    return "\n".join(
        f"\\unalias {name} 2>/dev/null || :\n{unset} {name} 2>/dev/null || :" for name in names
    )
