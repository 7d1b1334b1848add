// headway completion: a script that lets bash, or zsh through bashcompinit, complete verbs, options
// and preset names. The script asks the executable itself (VERB --list-options), so that what it
// offers are the options as they are declared.
#include <fmt/format.h>

#include <string>
#include <string_view>

#include "cli/options.hpp"
#include "cli/output.hpp"

namespace headway::cli {
namespace {

constexpr std::string_view kScript = R"(_headway() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words="" name
    COMPREPLY=()
    if ((COMP_CWORD == 1)) || { ((COMP_CWORD == 2)) && [[ $prev == help ]]; }; then
        words="@VERBS@ help version --help --version"
    elif [[ $cur == -* ]]; then
        words=$("${COMP_WORDS[0]}" "${COMP_WORDS[1]}" --list-options 2>/dev/null)
    else
        case "${COMP_WORDS[1]} $prev" in
            *" --profile" | *" --base") words=$("${COMP_WORDS[0]}" list profiles --names 2>/dev/null) ;;
            "alltoall --cluster") words=$("${COMP_WORDS[0]}" list clusters --names 2>/dev/null) ;;
            "list list") words="models clusters profiles" ;;
            "show show") words=$("${COMP_WORDS[0]}" list --names 2>/dev/null) ;;
            "completion completion") words="bash zsh" ;;
        esac
        while IFS= read -r name; do COMPREPLY+=("$name"); done < <(compgen -f -- "$cur")
    fi
    while IFS= read -r name; do COMPREPLY+=("$name"); done < <(compgen -W "$words" -- "$cur")
}
complete -o filenames -F _headway headway
)";

std::string script(std::string_view shell) {
    std::string verbs;
    for (const Verb& verb : all_verbs())
        verbs += (verbs.empty() ? "" : " ") + std::string(verb.name);
    std::string text(kScript);
    constexpr std::string_view mark = "@VERBS@";
    text.replace(text.find(mark), mark.size(), verbs);
    if (shell == "zsh") text.insert(0, "autoload -U +X bashcompinit && bashcompinit\n");
    return text;
}

}  // namespace

int run_completion(Args args) {
    const CommandHelp help{
        .usage = "completion bash|zsh",
        .about =
            "Prints a script that completes verbs, options, files and preset names. For good, put\n"
            "the line below into ~/.bashrc (or, with zsh in place of bash, into ~/.zshrc).",
        .examples = "  source <(headway completion bash)",
        .positional = {"shell"}};
    po::options_description options("Options");
    options.add_options()("shell", po::value<std::string>()->value_name("SHELL"), "bash or zsh")(
        "help,h", "this text");
    const auto values = parse_options(args, help, options);
    if (!values) return kDone;
    const std::string shell =
        one_of(required(*values, "shell", "completion"), {"bash", "zsh"}, "headway completion");
    write_stdout(script(shell));
    return kDone;
}

}  // namespace headway::cli
