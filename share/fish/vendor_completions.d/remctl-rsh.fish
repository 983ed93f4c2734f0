# Completion for remctl-rsh, which prints the candidates itself.
function _remctl-rsh
    if set -l answer (remctl-rsh --complete (commandline -cp | string collect) 2>/dev/null)
        printf '%s\n' $answer
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c remctl-rsh -f -a '(_remctl-rsh)'
