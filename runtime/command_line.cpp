#include "runtime/command_line.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <boost/program_options/parsers.hpp>
#include <boost/program_options/positional_options.hpp>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <system_error>

#include "models/vocab/error.hpp"
#include "runtime/communicator.hpp"

namespace headway::runtime {
namespace {

namespace po = boost::program_options;

InputError unknown_option(const std::string& word, const CommandLine& line) {
    std::vector<std::string> names;
    for (const auto& option : line.options.options()) names.push_back("--" + option->long_name());
    const std::string near = did_you_mean(word, names);
    return InputError({.where = line.name,
                       .found = "unknown option '" + word + "'",
                       .hint = near.empty() ? line.name + " --help lists the options"
                                            : "did you mean '" + near + "'?"});
}

}  // namespace

po::variables_map parse(const CommandLine& line, const std::vector<std::string>& words) {
    po::positional_options_description positional;
    for (const std::string& name : line.positional) {
        const bool last = &name == &line.positional.back();
        positional.add(name.c_str(), last && line.repeat_last ? -1 : 1);
    }
    const int style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
    po::variables_map values;
    try {
        po::store(po::command_line_parser(words)
                      .options(line.options)
                      .positional(positional)
                      .style(style)
                      .run(),
                  values);
        po::notify(values);
    } catch (const po::unknown_option& error) {
        throw unknown_option(error.get_option_name(), line);
    } catch (const po::too_many_positional_options_error&) {
        throw InputError({.where = line.name,
                          .found = "too many words",
                          .accepted = line.usage,
                          .hint = "options begin with --"});
    } catch (const po::error& error) {
        throw InputError({.where = line.name,
                          .found = error.what(),
                          .hint = line.name + " --help lists the options"});
    }
    return values;
}

std::string option_list(const CommandLine& line) {
    std::string text;
    for (const auto& option : line.options.options()) {
        const std::string& name = option->long_name();
        const auto& plain = line.positional;
        if (std::find(plain.begin(), plain.end(), name) != plain.end()) continue;
        const std::string& about = option->description();
        const std::string first = about.substr(0, about.find('\n'));
        text += fmt::format("--{}\t{}\n", name, first);
        const std::string typed =
            option->canonical_display_name(po::command_line_style::allow_dash_for_short);
        if (typed.size() == 2) text += fmt::format("{}\t{}\n", typed, first);
    }
    return text;
}

int exit_code_of(std::string_view name, const std::function<int()>& run) {
    const auto fail = [&](std::string_view kind, const std::string& message, int code) {
        std::fputs(fmt::format("{}: {}: {}\n", name, kind, message).c_str(), stderr);
        return code;
    };
    try {
        return run();
    } catch (const InputError& error) {
        for (const InputProblem& problem : error.problems()) fail("error", problem.to_string(), 2);
        return 2;
    } catch (const RankFailure& failure) {
        std::fflush(nullptr);
        fail("error", failure.what(), kRankFailureExit);
        // A stalled rank still runs: end without destroying what it may use.
        std::_Exit(kRankFailureExit);
    } catch (const std::bad_alloc&) {
        return fail("error",
                    "not enough memory; ask for fewer ranks, layers or plans at once, or raise the "
                    "limit (ulimit -v, cgroup)",
                    2);
    } catch (const std::system_error& error) {
        return fail("error", error.what(), 2);
    } catch (const std::exception& error) {
        return fail("internal error (please report it)", error.what(), 3);
    }
}

}  // namespace headway::runtime
