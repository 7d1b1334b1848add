#include "runtime/process/program.hpp"

#include <fmt/format.h>

#include <cmath>
#include <iostream>

#include "models/vocab/error.hpp"
#include "runtime/command_line.hpp"

namespace headway::runtime {
namespace {

namespace po = boost::program_options;

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

po::options_description common_options(std::string_view usage) {
    po::options_description options{std::string(usage)};
    options.add_options()("help,h", "this text")("version", "version of the build");
    return options;
}

int run_program(const Program& program, int argc, char** argv, char** environment) {
    return exit_code_of(program.name, [&] {
        const Launch launch = launch_of(argc, argv, environment);
        const CommandLine line{.name = std::string(program.name),
                               .usage = fmt::format("{} --help", program.name),
                               .options = program.options,
                               .positional = program.positional};
        if (!launch.arguments.empty() && launch.arguments[0] == "--list-options") {
            std::cout << option_list(line);
            return 0;
        }
        const po::variables_map values = parse(line, launch.arguments);
        if (values.count("help")) {
            std::cout << program.options;
            return 0;
        }
        if (values.count("version")) {
            std::cout << program.name << " " << program.version << "\n";
            return 0;
        }
        return program.run(values, launch);
    });
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
