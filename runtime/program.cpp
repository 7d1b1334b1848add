#include "runtime/program.hpp"

#include <fmt/format.h>

#include <boost/program_options/parsers.hpp>
#include <boost/program_options/positional_options.hpp>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <iostream>

#include "models/vocab/error.hpp"
#include "runtime/communicator.hpp"

namespace headway::runtime {
namespace {

namespace po = boost::program_options;

InputError unknown_option(const std::string& word, const Program& program) {
    std::vector<std::string> names;
    for (const auto& option : program.options.options())
        names.push_back("--" + option->long_name());
    const std::string near = did_you_mean(word, names);
    return InputError({.where = std::string(program.name),
                       .found = "unknown option '" + word + "'",
                       .hint = near.empty() ? fmt::format("{} --help lists them", program.name)
                                            : "did you mean '" + near + "'?"});
}

po::variables_map parse(const Program& program, const std::vector<std::string>& arguments) {
    po::positional_options_description positional;
    for (const std::string& name : program.positional) positional.add(name.c_str(), 1);
    po::variables_map values;
    try {
        po::store(
            po::command_line_parser(arguments)
                .options(program.options)
                .positional(positional)
                .style(po::command_line_style::unix_style & ~po::command_line_style::allow_guessing)
                .run(),
            values);
        po::notify(values);
    } catch (const po::unknown_option& error) {
        throw unknown_option(error.get_option_name(), program);
    } catch (const po::too_many_positional_options_error&) {
        throw InputError({.where = std::string(program.name),
                          .found = "too many words",
                          .hint = "options begin with --"});
    } catch (const po::error& error) {
        throw InputError({.where = std::string(program.name),
                          .found = error.what(),
                          .hint = fmt::format("{} --help lists the options", program.name)});
    }
    return values;
}

Launch launch_of(int argc, char** argv, char** environment) {
    Launch launch{.arguments = {argv + 1, argv + argc}};
    for (char** e = environment; *e != nullptr; ++e) {
        const std::string line(*e);
        const std::size_t equals = line.find('=');
        if (equals == std::string::npos) continue;
        launch.environment[line.substr(0, equals)] = line.substr(equals + 1);
    }
    return launch;
}

}  // namespace

int run_program(const Program& program, int argc, char** argv, char** environment) {
    const auto fail = [&](const std::string& text, int code) {
        std::fputs(fmt::format("{}: {}\n", program.name, text).c_str(), stderr);
        return code;
    };
    try {
        const Launch launch = launch_of(argc, argv, environment);
        const po::variables_map values = parse(program, launch.arguments);
        if (values.count("help")) {
            std::cout << program.options;
            return 0;
        }
        if (values.count("version")) {
            std::cout << program.name << " " << program.version << "\n";
            return 0;
        }
        return program.run(values, launch);
    } catch (const InputError& error) {
        return fail(std::string("error: ") + error.what(), 2);
    } catch (const RankFailure& failure) {
        std::fflush(nullptr);
        fail(std::string("error: ") + failure.what(), kRankFailureExit);
        // A stalled rank still runs: end without destroying what it may use.
        std::_Exit(kRankFailureExit);
    } catch (const std::exception& error) {
        return fail(std::string("internal error (please report it): ") + error.what(), 3);
    }
}

int at_least(const po::variables_map& values, const std::string& name, int minimum) {
    const int value = values[name].as<int>();
    if (value >= minimum) return value;
    throw InputError({.where = "--" + name,
                      .found = std::to_string(value),
                      .accepted = fmt::format("a whole number from {}", minimum)});
}

double seconds_above_zero(const po::variables_map& values, const std::string& name) {
    const double value = values[name].as<double>();
    if (value > 0.0 && std::isfinite(value)) return value;
    throw InputError(
        {.where = "--" + name, .found = fmt::format("{}", value), .accepted = "seconds above 0"});
}

std::string required(const po::variables_map& values, const std::string& name,
                     std::string_view program) {
    if (values.count(name)) return values[name].as<std::string>();
    throw InputError({.where = std::string(program),
                      .found = fmt::format("no {}", name),
                      .hint = fmt::format("{} --help explains the options", program)});
}

}  // namespace headway::runtime
