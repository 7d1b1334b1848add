// headway: the command line. Looks the verb up, runs it, and turns errors into one clear message
// and an exit code.
#include <fmt/format.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cli/keep_memory.hpp"
#include "cli/output.hpp"
#include "cli/shard.hpp"
#include "cli/verbs.hpp"
#include "models/report/version.hpp"
#include "models/vocab/error.hpp"
#include "runtime/command_line.hpp"

namespace headway::cli {
namespace {

constexpr std::string_view kHelpHead =
    R"(headway predicts how long a training step of a Mixture-of-Experts model takes, and how much
memory it needs, under Expert Parallel (EP) and Head Parallel (HP), on a cluster you describe.
It calibrates itself on your GPUs and checks its predictions against real runs.

Usage: headway VERB [options]
)";

constexpr std::string_view kHelpTail = R"(
First steps:
  headway predict scenarios/paper_4gpu.yaml                       EP and HP side by side
  headway predict scenarios/paper_4gpu.yaml --format json --out result.json
  headway plot result.json -o phases.png                          where the step goes

A scenario is one YAML file: model, cluster, batch, routing and the plans to compare.
headway VERB --help explains a verb; headway --version names the build.
Exit codes: 0 done, 1 infeasible plan or failed check, 2 bad input, 3 internal error.
)";

std::string help_text() {
    std::string text(kHelpHead);
    std::string_view group;
    for (const Verb& verb : all_verbs()) {
        if (verb.group != group) text += fmt::format("\n{}:\n", group = verb.group);
        text += fmt::format("  {:<10}  {}\n", verb.name, verb.summary);
    }
    return text.append(kHelpTail);
}

// What may follow `headway`, for completion; each with a tab and what it is.
std::string verb_list() {
    std::string text;
    for (const Verb& verb : all_verbs()) text += fmt::format("{}\t{}\n", verb.name, verb.summary);
    return text + "help\texplains a verb\n--help\tnames the verbs\n--version\tnames the build\n";
}

const Verb& find_verb(const std::string& word) {
    std::vector<std::string> names;
    for (const Verb& verb : all_verbs()) {
        if (verb.name == word) return verb;
        names.emplace_back(verb.name);
    }
    const std::string near = did_you_mean(word, names);
    throw InputError({.found = "unknown verb '" + word + "'",
                      .accepted = fmt::format("{}", fmt::join(names, ", ")),
                      .hint = near.empty() ? "headway --help explains the verbs"
                                           : "did you mean 'headway " + near + "'?"});
}

std::optional<std::string> environment(const std::string& variable) {
    const char* value = std::getenv(variable.c_str());
    if (value == nullptr) return std::nullopt;
    return value;
}

int run(std::span<const std::string> words) {
    if (words.empty()) {
        std::fputs(help_text().c_str(), stderr);
        return kBadInput;
    }
    const std::string& first = words[0];
    const auto rest = words.subspan(1);
    if (first == "--list-options") {
        write_stdout(verb_list());
        return kDone;
    }
    if (first == "--version" || first == "version") {
        write_stdout(fmt::format("headway {}\n", version()));
        return kDone;
    }
    if (first == "--help" || first == "-h" || first == "help") {
        if (rest.empty()) {
            write_stdout(help_text());
            return kDone;
        }
        return find_verb(rest[0]).run(std::vector<std::string>{"--help"});
    }
    const Verb& verb = find_verb(first);
    if (!verb.is_shared) return verb.run(rest);
    std::vector<std::string> shared(rest.begin(), rest.end());
    const auto share = launched_shard(environment);
    if (share) {
        shared.insert(shared.begin(), fmt::format("--launcher-shard={}/{},{}", share->shard.index,
                                                  share->shard.count, share->launcher));
    }
    return verb.run(shared);
}

}  // namespace
}  // namespace headway::cli

int main(int argc, char** argv) {
    using namespace headway::cli;
    // A closed pipe is seen where the text is written, so that files are still finished.
    std::signal(SIGPIPE, SIG_IGN);
    keep_memory();
    return headway::runtime::exit_code_of(
        "headway", [&] { return run(std::vector<std::string>(argv + 1, argv + argc)); });
}
