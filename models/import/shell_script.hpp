// A launch script, read as far as its variables and conditions can be followed without running
// anything: assignments, arrays, if, case, for, functions, files that it takes in. Nothing is
// executed.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "models/import/shell_variables.hpp"

namespace headway::inline importing {

struct ShellCommand {
    std::vector<Text> words;
    std::map<std::string, std::string, std::less<>> environment;  // NAME=value before the words
};

struct ShellNote {
    Position at;
    std::string text;
};

struct ShellRun {
    std::vector<ShellCommand> commands;  // that would run, in order; here-documents among them
    std::vector<ShellNote> notes;        // what was not followed, or assumed
    std::map<std::string, ShellVariable, std::less<>> variables;  // at the end
    std::set<std::string, std::less<>> read;                      // of the surroundings
    std::map<std::string, std::string, std::less<>> directives;   // #SBATCH --nodes=4
    std::vector<std::string> sources;  // files that it takes in; positions count them from 1
};

ShellRun follow_script(std::string_view text, const std::string& file,
                       const ShellSurroundings& surroundings);

enum class Tri { no, yes, unknown };
// The words of [ ... ] or [[ ... ]]. Files are taken to exist; `opens` gets the gaps that leave the
// outcome open.
Tri evaluate_test(const std::vector<Text>& words, std::vector<std::string>& opens);

}  // namespace headway::inline importing
