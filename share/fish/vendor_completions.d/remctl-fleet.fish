# Completion for remctl-fleet, which prints the candidates itself.
function _remctl-fleet
    if set -l answer (remctl-fleet --complete (commandline -cp | string collect) 2>/dev/null)
        printf '%s\n' $answer
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c remctl-fleet -f -a '(_remctl-fleet)'
