// headway completion: a script with which bash, zsh or fish completes verbs, options, preset names
// and files of all programs. The scripts ask the executables themselves (--list-options), so that
// what they offer are the options as they are declared.
#include <map>
#include <string>
#include <string_view>

#include "cli/options.hpp"
#include "cli/output.hpp"

namespace headway::cli {
namespace {

constexpr std::string_view kBash = R"(_headway() {
    local program=${COMP_WORDS[0]} verb=${COMP_WORDS[1]} cur=${COMP_WORDS[COMP_CWORD]}
    local prev=${COMP_WORDS[COMP_CWORD-1]} words="" name
    COMPREPLY=()
    if [[ ${program##*/} != headway ]]; then
        verb=
    elif ((COMP_CWORD == 1)); then
        verb=help
    fi
    if [[ $verb == help ]]; then
        words=$("$program" --list-options 2>/dev/null | cut -f1)
    elif [[ $cur == -* ]]; then
        words=$("$program" $verb --list-options 2>/dev/null | cut -f1)
    else
        case "$verb $prev" in
            *" --profile" | *" --base") words=$("$program" list profiles --names 2>/dev/null) ;;
            "alltoall --cluster" | "import --cluster") words=$("$program" list clusters --names 2>/dev/null) ;;
            "list list") words="models clusters profiles" ;;
            "show show") words=$("$program" list --names 2>/dev/null) ;;
            "completion completion") words="bash zsh fish" ;;
        esac
        while IFS= read -r name; do COMPREPLY+=("$name"); done < <(compgen -f -- "$cur")
    fi
    while IFS= read -r name; do COMPREPLY+=("$name"); done < <(compgen -W "$words" -- "$cur")
}
complete -o filenames -F _headway headway headway-run headway-lab headway-exchange headway-grid headway-comm
)";

// Run as a function of the same name where the completion system loads it from a file `_headway`.
constexpr std::string_view kZsh =
    R"zsh(#compdef headway headway-run headway-lab headway-exchange headway-grid headway-comm
_headway() {
    local program=$words[1] verb=$words[2] tab=$'\t' lines=
    local -a found
    if [[ ${program:t} != headway ]]; then
        verb=
    elif (( CURRENT == 2 )); then
        verb=help
    fi
    if [[ $verb == help || $PREFIX == -* ]]; then
        [[ $verb == help ]] && verb=
        lines=$($program $verb --list-options 2>/dev/null)
        found=(${(f)lines})
        found=("${(@)found//:/\\:}")
        found=("${(@)found//$tab/:}")
        _describe word found
        return
    fi
    case "$verb $words[CURRENT-1]" in
        (*" --profile" | *" --base") lines=$($program list profiles --names 2>/dev/null) ;;
        ("alltoall --cluster" | "import --cluster") lines=$($program list clusters --names 2>/dev/null) ;;
        ("list list") lines=$'models\nclusters\nprofiles' ;;
        ("show show") lines=$($program list --names 2>/dev/null) ;;
        ("completion completion") lines=$'bash\nzsh\nfish' ;;
    esac
    found=(${(f)lines})
    (( $#found )) && compadd -a found
    _files
}
if [[ $funcstack[1] == _headway ]]; then
    _headway "$@"
else
    compdef _headway headway headway-run headway-lab headway-exchange headway-grid headway-comm
fi
)zsh";

constexpr std::string_view kFish = R"(function __headway_at_verb
    set -l words (commandline -opc)
    test (count $words) -eq 1; or test "$words[2..-1]" = help
end
function __headway_words
    set -l words (commandline -opc)
    set -l program $words[1]
    if not string match -qr '(^|/)headway$' -- $program
        $program --list-options 2>/dev/null
    else if __headway_at_verb
        $program --list-options 2>/dev/null
    else
        switch "$words[2] $words[-1]"
            case '* --profile' '* --base'
                $program list profiles --names 2>/dev/null
            case 'alltoall --cluster' 'import --cluster'
                $program list clusters --names 2>/dev/null
            case 'list list'
                printf '%s\n' models clusters profiles
            case 'show show'
                $program list --names 2>/dev/null
            case 'completion completion'
                printf '%s\n' bash zsh fish
            case '*'
                $program $words[2] --list-options 2>/dev/null
        end
    end
end
complete -c headway -n __headway_at_verb -f
for program in headway headway-run headway-lab headway-exchange headway-grid headway-comm
    complete -c $program -a '(__headway_words)'
end
)";

}  // namespace

int run_completion(Args args) {
    const CommandHelp help{
        .usage = "completion bash|zsh|fish",
        .about =
            "Prints a script that completes verbs, options, files and preset names of all\n"
            "programs. An installed headway has it in place; else put one of the lines below into\n"
            "~/.bashrc, ~/.zshrc (after compinit) or ~/.config/fish/config.fish.",
        .examples =
            "  source <(headway completion bash)\n"
            "  source <(headway completion zsh)\n"
            "  headway completion fish | source",
        .positional = {"shell"}};
    po::options_description options("Options");
    options.add_options()("shell", po::value<std::string>()->value_name("SHELL"),
                          "bash, zsh or fish")("help,h", "this text");
    const auto values = parse_options(args, help, options);
    if (!values) return kDone;
    const std::map<std::string, std::string_view> scripts{
        {"bash", kBash}, {"zsh", kZsh}, {"fish", kFish}};
    const std::string shell = one_of(required(*values, "shell", "completion"),
                                     {"bash", "zsh", "fish"}, "headway completion");
    write_stdout(std::string(scripts.at(shell)));
    return kDone;
}

}  // namespace headway::cli
