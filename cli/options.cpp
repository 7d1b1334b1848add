#include "cli/options.hpp"

#include <fmt/format.h>

#include <boost/any.hpp>
#include <cstdio>
#include <filesystem>
#include <sstream>
#include <system_error>

#include "cli/output.hpp"
#include "models/vocab/error.hpp"
#include "runtime/command_line.hpp"

namespace headway::cli {
namespace {

std::string join(const std::vector<std::string>& words) {
    return fmt::format("{}", fmt::join(words, ", "));
}

void print_help(const CommandHelp& help, const po::options_description& options) {
    std::ostringstream text;
    text << "Usage: headway " << help.usage << "\n\n" << help.about << "\n\n" << options;
    if (!help.examples.empty()) text << "\nExamples:\n" << help.examples << "\n";
    write_stdout(text.str());
}

// Files that an option names.
std::vector<std::string> files_of(const po::variable_value& value) {
    if (const auto* one = boost::any_cast<std::string>(&value.value())) return {*one};
    if (const auto* many = boost::any_cast<std::vector<std::string>>(&value.value())) return *many;
    return {};
}

// What a verb writes must be none of what the command line has it read: it would be lost.
void keep_inputs(const po::variables_map& values) {
    for (const auto& [name, value] : values) {
        const bool plain =
            name == "scenario" || name == "shard" || name == "result" || name == "job";
        for (const std::string& file : files_of(value))
            keep_file(values, file, plain ? "what is read" : "the file of --" + name, name);
    }
}

}  // namespace

std::optional<po::variables_map> parse_options(Args args, const CommandHelp& help,
                                               const po::options_description& options) {
    const std::string verb(help.usage.substr(0, help.usage.find(' ')));
    const runtime::CommandLine line{.name = "headway " + verb,
                                    .usage = "headway " + std::string(help.usage),
                                    .options = options,
                                    .positional = help.positional,
                                    .repeat_last = help.repeat_last};
    for (const std::string& word : args) {
        if (word == "--") break;
        if (word == "--list-options") {
            write_stdout(runtime::option_list(line));
            return std::nullopt;
        }
        if (word != "--help" && word != "-h") continue;
        print_help(help, options);
        return std::nullopt;
    }
    const po::variables_map values =
        runtime::parse(line, std::vector<std::string>(args.begin(), args.end()));
    keep_inputs(values);
    return values;
}

void keep_file(const po::variables_map& values, const std::filesystem::path& file,
               const std::string& what, const std::string& own_option) {
    namespace fs = std::filesystem;
    std::error_code ignored;
    for (const char* option : {"out", "csv", "trace", "cluster-out"}) {
        if (option == own_option || values.count(option) == 0) continue;
        for (const std::string& out : files_of(values[option])) {
            if (!fs::is_regular_file(out, ignored) || !fs::is_regular_file(file, ignored) ||
                !fs::equivalent(out, file, ignored))
                continue;
            throw InputError({.where = std::string("--") + option,
                              .found = fmt::format("'{}', which is also {}", out, what),
                              .accepted = "another file"});
        }
    }
}

std::string required(const po::variables_map& values, const std::string& name,
                     std::string_view verb) {
    if (values.count(name) != 0) return values[name].as<std::string>();
    throw InputError({.where = fmt::format("headway {}", verb),
                      .found = "no " + name + " given",
                      .hint = fmt::format("headway {} --help shows the usage", verb)});
}

std::string one_of(const std::string& word, const std::vector<std::string>& accepted,
                   const std::string& where) {
    for (const std::string& candidate : accepted) {
        if (candidate == word) return word;
    }
    const std::string near = did_you_mean(word, accepted);
    throw InputError({.where = where,
                      .found = "unknown value '" + word + "'",
                      .accepted = join(accepted),
                      .hint = near.empty() ? "" : "did you mean '" + near + "'?"});
}

int whole_number(const po::variables_map& values, const std::string& name, int minimum,
                 int maximum) {
    const int value = values[name].as<int>();
    if (minimum <= value && value <= maximum) return value;
    throw InputError({.where = "--" + name,
                      .found = fmt::format("{}", value),
                      .accepted = fmt::format("a whole number from {} to {}", minimum, maximum)});
}

double real_number(const po::variables_map& values, const std::string& name, double minimum,
                   double maximum) {
    const double value = values[name].as<double>();
    if (minimum <= value && value <= maximum) return value;
    throw InputError({.where = "--" + name,
                      .found = fmt::format("{}", value),
                      .accepted = fmt::format("a number from {} to {}", minimum, maximum)});
}

bool is_given(const po::variables_map& values, const std::string& name) {
    return values.count(name) != 0 && !values[name].defaulted();
}

void check_uses(const po::variables_map& values, const std::vector<OptionUse>& uses) {
    for (const OptionUse& use : uses) {
        if (use.used || !is_given(values, use.name)) continue;
        const std::string option =
            use.name == std::string_view("scenario") ? "a scenario" : "--" + std::string(use.name);
        throw InputError({.where = "the command line",
                          .found = option + " given, which nothing here uses",
                          .accepted = option + " with " + use.used_by});
    }
}

void refuse_both(const std::string& one, bool both, const std::string& other) {
    if (!both) return;
    throw InputError({.where = "the command line",
                      .found = fmt::format("both {} and {}", one, other),
                      .accepted = "one of them"});
}

std::optional<std::string> optional_text(const po::variables_map& values, const std::string& name) {
    if (values.count(name) == 0) return std::nullopt;
    return values[name].as<std::string>();
}

void note(const std::string& text) {
    std::fputs(("headway: " + text + "\n").c_str(), stderr);
}

void warn(const std::string& text) {
    std::fputs(("headway: warning: " + text + "\n").c_str(), stderr);
}

}  // namespace headway::cli
