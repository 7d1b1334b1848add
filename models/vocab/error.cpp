#include "models/vocab/error.hpp"

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <utility>

namespace headway {
namespace {

std::string join(const std::vector<InputProblem>& problems) {
    std::string text;
    for (const InputProblem& problem : problems) {
        if (!text.empty()) text += '\n';
        text += problem.to_string();
    }
    return text;
}

std::size_t edit_distance(const std::string& a, const std::string& b) {
    std::vector<std::size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), std::size_t{0});
    for (std::size_t i = 1; i <= a.size(); ++i) {
        std::size_t diagonal = std::exchange(row[0], i);
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            row[j] = std::min({substitute, row[j] + 1, row[j - 1] + 1});
        }
    }
    return row.back();
}

// fp4 is no slip for fp64: a short name is its number.
bool differ_in_digits_alone(std::string a, std::string b) {
    constexpr std::size_t kShort = 5;
    const auto is_digit = [](char c) { return '0' <= c && c <= '9'; };
    if (a.size() > kShort || std::none_of(a.begin(), a.end(), is_digit)) return false;
    std::erase_if(a, is_digit);
    std::erase_if(b, is_digit);
    return a == b;
}

}  // namespace

std::string InputProblem::to_string() const {
    std::string text = where.empty() ? found : where + ": " + found;
    if (!accepted.empty()) text += "; accepted: " + accepted;
    if (!hint.empty()) text += "; hint: " + hint;
    return text;
}

InputError::InputError(InputProblem problem)
    : InputError(std::vector<InputProblem>{std::move(problem)}) {}

InputError::InputError(std::vector<InputProblem> problems)
    : std::runtime_error(join(problems)), problems_(std::move(problems)) {}

std::string did_you_mean(const std::string& word, const std::vector<std::string>& candidates) {
    std::string best;
    std::size_t best_distance = std::max<std::size_t>(2, word.size() / 3) + 1;
    // NOTE: a very long word cannot be a typo of a key; the bound keeps hostile input cheap.
    if (word.size() > 64) return best;
    for (const std::string& candidate : candidates) {
        const std::size_t distance = edit_distance(word, candidate);
        if (distance < best_distance && !differ_in_digits_alone(word, candidate)) {
            best_distance = distance;
            best = candidate;
        }
    }
    return best;
}

}  // namespace headway
