"""The start-up file for fish, which is read before the user's configuration."""

from __future__ import annotations

from .settings import NAMES, PROMPT, Settings

__all__ = ["fish_file"]

# Fish runs the handlers of an event in the order of their definition. So _keep is defined before
# those of the user's configuration, and _again, at the first prompt, after them.
_TEXT = """\
if status is-interactive; and not functions -q __remctl_sandbox_first
    set -g __remctl_sandbox_begun

    function __remctl_sandbox_keep --on-event fish_postexec
        if set -q __remctl_sandbox_begun[1]
            {keep}
            set -g __remctl_sandbox_path
            if test "$PATH[1]" = {program_folder}
                set -g __remctl_sandbox_path 1
            end
        end
    end

    function __remctl_sandbox_put_path
        if set -q __remctl_sandbox_path[1]; and test "$PATH[1]" != {program_folder}
            set -gx PATH {first} $PATH {rest}
        end
    end

    function __remctl_sandbox_status
        return $argv[1]
    end

    function __remctl_sandbox_first --on-event fish_prompt
        functions -e __remctl_sandbox_first
        {start}
        set -g __remctl_sandbox_path 1
        __remctl_sandbox_put_path
        for name in {names}
            functions -e $name
            abbr -q $name; and abbr -e $name
        end
        {back}
        if functions -q fish_prompt
            functions -c fish_prompt __remctl_sandbox_their_prompt
        else
            function __remctl_sandbox_their_prompt
                echo -n '> '
            end
        end
        function fish_prompt
            set -l last $status
            echo -n {prompt}
            __remctl_sandbox_status $last
            __remctl_sandbox_their_prompt
        end
        function __remctl_sandbox_again --on-event fish_preexec
            {again}
            __remctl_sandbox_put_path
        end
        __remctl_sandbox_keep
        set -g __remctl_sandbox_begun 1
        __remctl_sandbox_keep
        true >{ready}
    end
end
"""


def fish_file(settings: Settings) -> str:
    """Return the file for a directory ``fish/vendor_conf.d`` of XDG_DATA_DIRS."""
    start, keep, again = [], [], []
    for number, (name, value) in enumerate(settings.variables.items()):
        memory = f"__remctl_sandbox_{number}"
        start.append(_set(name, value))
        keep.append(f"set -g {memory} ${name}")
        again.append(f'test "${name}" = "${memory}"; or set -gx {name} ${memory}')
    back = [
        f'if test "${name}" = {_quoted(ours)}; {_set(name, before)}; end'
        for name, (ours, before) in settings.hooks.items()
    ]
    return _TEXT.format(
        start="\n        ".join(start),
        keep="\n            ".join(keep),
        again="\n            ".join(again),
        back="\n        ".join(back),
        program_folder=_quoted(settings.first[0]),
        first=" ".join(map(_quoted, settings.first)),
        rest=" ".join(map(_quoted, settings.rest.split(":"))),
        names=" ".join(NAMES),
        prompt=_quoted(PROMPT),
        ready=_quoted(str(settings.ready)),
    )


def _set(name: str, value: str | None) -> str:
    return f"set -e {name}" if value is None else f"set -gx {name} {_quoted(value)}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
