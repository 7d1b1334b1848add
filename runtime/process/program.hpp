// What the programs beside headway (headway-run, -lab, -exchange, -grid, -comm) share: the
// environment they were started in, --help, --version and --list-options; the rest is every
// program's (runtime/command_line.hpp).
#pragma once

#include <boost/program_options/options_description.hpp>
#include <boost/program_options/variables_map.hpp>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/process/launch_environment.hpp"

namespace headway::runtime {

// How this process was started.
struct Launch {
    Environment environment;
    std::vector<std::string> arguments;  // without the program's name
};

// The options of every program, under the text of --help; its own are added to them.
boost::program_options::options_description common_options(std::string_view usage);

struct Program {
    std::string_view name;  // "headway-run"
    std::string_view version;
    const boost::program_options::options_description& options;  // the common ones among them
    std::vector<std::string> positional;  // names of options that plain words fill, in order
    std::function<int(const boost::program_options::variables_map&, const Launch&)> run;
};

// Exit codes: what `run` returns; 2 bad input, 3 internal error, 4 a rank failed.
// `environment`: of main, NAME=VALUE, null at its end.
int run_program(const Program& program, int argc, char** argv, char** environment);

// The value of a whole number, or of a real one, that has a lowest sensible value. InputError
// naming the option.
int at_least(const boost::program_options::variables_map& values, const std::string& name,
             int minimum);
double seconds_above_zero(const boost::program_options::variables_map& values,
                          const std::string& name);

// The value of an option that `program` cannot do without. InputError when it is absent.
std::string required(const boost::program_options::variables_map& values, const std::string& name,
                     std::string_view program);

}  // namespace headway::runtime
