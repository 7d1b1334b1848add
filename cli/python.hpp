// The Python side: analysis/ is run, never linked, with a Python that has matplotlib.
#pragma once

#include <string>
#include <vector>

namespace headway::cli {

enum class Chatter { shown, silent };

// Runs a program found on the PATH and returns its exit code, or 127 when it cannot be started.
int run_program(const std::vector<std::string>& words, Chatter chatter);

// InputError, naming `verb`, when there is none.
std::string python_with_matplotlib(const std::string& verb);

}  // namespace headway::cli
