"""The scripts that make a shell ask `circuits --complete LINE`."""

from __future__ import annotations

SCRIPTS = {
    "bash": """\
_circuits() {
    local line=${COMP_LINE:0:COMP_POINT} word
    local -a found=()
    while IFS= read -r word; do
        [[ -n $word ]] && found+=("${word// /\\\\ }")
    done < <(command circuits --complete "$line" 2>/dev/null)
    # colons and equals signs are parts of addresses, but bash replaces only what follows the last of them
    local current=${line##*[[:space:]]}
    local before=${current%"${current##*[:=]}"}
    COMPREPLY=("${found[@]#"$before"}")
    if [[ ${#found[@]} -eq 1 && ${found[0]} == */ ]]; then compopt -o nospace 2>/dev/null; fi
    return 0
}
complete -o default -F _circuits circuits
""",
    "zsh": """\
_circuits() {
    local -a found
    found=("${(@f)$(command circuits --complete "$LBUFFER" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then
        compadd -S '' -- ${(M)found:#*/}
        compadd -- ${found:#*/}
    else
        _files
    fi
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
compdef _circuits circuits
""",
    "fish": """\
function __circuits_complete
    set -l found (command circuits --complete (commandline -cp | string collect) 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c circuits -f -a '(__circuits_complete)'
""",
}
"""Shell -> the script that makes it ask `circuits --complete LINE`."""
