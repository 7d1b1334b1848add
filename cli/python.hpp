// The Python side: analysis/ is run, never linked.
#pragma once

#include <string>
#include <vector>

namespace headway::cli {

enum class Chatter { shown, silent };

// Runs a program found on the PATH and returns its exit code, or 127 when it cannot be started.
int run_program(const std::vector<std::string>& words, Chatter chatter);

// A Python that runs analysis/report.py; InputError when there is none.
std::string plain_python();
// One that runs analysis/plot.py.
std::string python_with_matplotlib();

}  // namespace headway::cli
