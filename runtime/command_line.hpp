// What every program of headway does with its command line: options that are never guessed, a
// did-you-mean for one that does not exist, the list of options that shells complete from, and one
// line and an exit code for what is thrown.
#pragma once

#include <boost/program_options/options_description.hpp>
#include <boost/program_options/variables_map.hpp>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace headway::runtime {

struct CommandLine {
    std::string name;  // "headway-run", "headway predict"
    std::string usage;
    const boost::program_options::options_description& options;
    std::vector<std::string> positional = {};  // names of options that plain words fill, in order
    bool repeat_last = false;                  // the last of them takes all words that are left
};

// InputError naming the option and what may have been meant.
boost::program_options::variables_map parse(const CommandLine& line,
                                            const std::vector<std::string>& words);

// What --list-options prints: every option that is typed, a tab and what it does, one a line.
std::string option_list(const CommandLine& line);

// The code that `run` returns; 2 where it throws of bad input or of what the machine lacks, 3 of a
// bug, kRankFailureExit of a rank that failed. `name` begins each line on standard error.
int exit_code_of(std::string_view name, const std::function<int()>& run);

}  // namespace headway::runtime
