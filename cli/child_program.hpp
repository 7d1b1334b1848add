// Other programs of headway that a verb runs. They end with this process, however that ends, and
// their words go to a file.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace headway::cli {

// Beside this program, or the bare name, which the PATH resolves.
std::string program_beside(const std::string& name);

// Runs it to its end, calls `watch` now and then meanwhile, and returns how it ended as waitpid
// says it; 127 as its exit code when it cannot be started. InputError where no process can be made.
int run_child(const std::vector<std::string>& words, const std::filesystem::path& log,
              const std::function<void()>& watch = {});

// "exit code 2", "ended by signal 9".
std::string how_ended(int status);
bool could_not_start(int status);

// The last line with words in it.
std::string last_line(const std::filesystem::path& log);

}  // namespace headway::cli
