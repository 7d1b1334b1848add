// InputError: what a user did wrong, as one message: where, what was found, what is accepted, a
// hint. Thrown for bad input only (exit code 2). An infeasible plan is a result, not an error; a
// broken internal contract is std::logic_error or assert.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

namespace headway {

struct InputProblem {
    std::string where;     // "file:line:column", a command line option, or empty
    std::string found;     // "unknown key 'hiden'"
    std::string accepted;  // "one of: hidden, num_layers"; may be empty
    std::string hint;      // "did you mean 'hidden'?"; may be empty

    std::string to_string() const;  // "where: found; accepted: ...; hint: ..."
};

class InputError : public std::runtime_error {
  public:
    explicit InputError(InputProblem problem);
    explicit InputError(std::vector<InputProblem> problems);  // all problems of one file at once

    const std::vector<InputProblem>& problems() const { return problems_; }

  private:
    std::vector<InputProblem> problems_;
};

// A profile lacks a curve that a plan needs; another plan may do without it.
class MissingCurve : public InputError {
    using InputError::InputError;
};

// The candidate nearest to `word` by edit distance if it is near enough to be a typo, else empty.
std::string did_you_mean(const std::string& word, const std::vector<std::string>& candidates);

}  // namespace headway
