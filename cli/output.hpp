// Where text goes: standard output that survives a closed pipe, result files that are whole or
// absent, and progress that only a terminal sees.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace headway::cli {

// A reader that left early (`headway predict ... | head`) is no error; a full disk is: InputError.
void write_stdout(std::string_view text);

// To the file if one is given (atomically), else, or for "-", to standard output.
void write_result(std::string_view text, const std::optional<std::string>& out);

bool stdout_is_terminal();

// "label: 42 / 100, 12.0 s left" on one line of standard error, at most ten times a second, and
// only when that is a terminal. The destructor wipes the line.
class Progress {
  public:
    explicit Progress(std::string label);
    ~Progress();
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

    void update(std::size_t done, std::size_t total);

  private:
    std::string label_;
    bool terminal_ = false;
    bool drawn_ = false;
    double next_s_ = 0.0;
    double begin_s_ = 0.0;
    std::size_t begin_done_ = 0;
};

}  // namespace headway::cli
