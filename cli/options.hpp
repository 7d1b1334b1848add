// Option parsing that every verb shares: Boost.Program_options with --help, no abbreviations, and
// errors as InputError with a did-you-mean.
#pragma once

#include <boost/program_options/options_description.hpp>
#include <boost/program_options/value_semantic.hpp>
#include <boost/program_options/variables_map.hpp>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/verbs.hpp"

namespace headway::cli {

namespace po = boost::program_options;

struct CommandHelp {
    std::string_view usage;     // "predict SCENARIO.yaml [options]", without the program's name
    std::string_view about;     // what it does, a few lines
    std::string_view examples;  // commands, one a line; may be empty
    std::vector<std::string> positional;  // names of options that plain words fill, in order
    bool repeat_last = false;             // the last of them takes all words that are left
};

// The parsed options, or nothing when --help, or --list-options (for completion), was asked for and
// printed. Options named in
// `positional` must be in `options` too; those a verb cannot do without are checked by `required`.
std::optional<po::variables_map> parse_options(Args args, const CommandHelp& help,
                                               const po::options_description& options);

// InputError if an option has `file` written, which is read as `what`; `own_option` names it.
void keep_file(const po::variables_map& values, const std::filesystem::path& file,
               const std::string& what, const std::string& own_option = "");

// The value of an option; InputError naming it, and how to get help, when it is absent.
std::string required(const po::variables_map& values, const std::string& name,
                     std::string_view verb);

// `word` if it is one of `accepted`, else InputError with a did-you-mean.
std::string one_of(const std::string& word, const std::vector<std::string>& accepted,
                   const std::string& where);

// The value of a whole-number option, checked against its range.
int whole_number(const po::variables_map& values, const std::string& name, int minimum,
                 int maximum);

// The same of a number with a fraction; not a number is none.
double real_number(const po::variables_map& values, const std::string& name, double minimum,
                   double maximum);

// Whether the command line gives the option: a default does not count.
bool is_given(const po::variables_map& values, const std::string& name);

// Options that are of use beside others only. InputError for one that is given in vain: nothing
// that is typed is ignored in silence.
struct OptionUse {
    const char* name;
    bool used;            // by this command line
    const char* used_by;  // "--device cuda"
};
void check_uses(const po::variables_map& values, const std::vector<OptionUse>& uses);

// InputError if `both`.
void refuse_both(const std::string& one, bool both, const std::string& other);

// The value if given, else nothing.
std::optional<std::string> optional_text(const po::variables_map& values, const std::string& name);

// One line on standard error.
void warn(const std::string& text);
void note(const std::string& text);

}  // namespace headway::cli
