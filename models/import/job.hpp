// Settings by name: what was asked for, so that nothing else passes in silence, and where each
// value of the scenario came from, so that a check that fails names the argument.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "models/import/settings.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline importing {

class Job {
  public:
    Job(const JobFile& file, std::vector<InputProblem>& problems);

    const JobFile& file() const { return file_; }
    // nullptr when absent or off (None, False).
    const Setting* find(std::string_view name) const;
    bool has(std::string_view name) const { return find(name) != nullptr; }
    // A flag, or true; `otherwise` when absent. False counts as given.
    bool flag(std::string_view name, bool otherwise = false) const;
    std::string text(std::string_view name, std::string_view otherwise = "") const;
    // A whole number in range; a problem otherwise.
    std::optional<int> integer(std::string_view name, int low = 1, int high = 1 << 24) const;
    int integer_or(std::string_view name, int otherwise, int low = 1, int high = 1 << 24) const {
        return integer(name, low, high).value_or(otherwise);
    }
    std::optional<double> number(std::string_view name) const;

    // The key of the scenario that this setting gives.
    void gives(std::string_view key, std::string_view name) const;
    // The place of the setting behind a key, or of the nearest key above it; else the file.
    std::string where(std::string key) const;
    std::string where(const Setting& setting) const;

    void refuse(const Setting* setting, std::string found, std::string accepted,
                std::string hint = "") const;
    // Asks for a setting that is not there at all.
    void need(std::string_view name, std::string accepted) const {
        if (!has(name)) ask("no " + std::string(name), std::move(accepted));
    }
    // What the job leaves open and nobody else said.
    void ask(std::string found, std::string accepted, std::string hint = "") const;

    // "file:line: --argument value: why"
    void leave(const Setting& setting, std::string_view why) const;
    void leave(Position at, const std::string& text) const;
    void assume(std::string text) const { assumed_.push_back(std::move(text)); }
    // Leftovers in the order of the file: those of `leave`, and every setting that nobody asked for
    // and that is not known to change nothing.
    std::vector<std::string> leftovers() const;
    const std::vector<std::string>& assumed() const { return assumed_; }
    // Settings that change nothing of a step's work, or are off.
    int num_of_no_concern() const;

  private:
    struct Leftover {
        Position at;
        std::string text;
    };

    const JobFile& file_;
    std::vector<InputProblem>& problems_;
    std::map<std::string, const Setting*, std::less<>> settings_;
    mutable std::set<std::string, std::less<>> asked_;
    mutable std::map<std::string, const Setting*, std::less<>> origins_;
    mutable std::vector<Leftover> left_;
    mutable std::vector<std::string> assumed_;
};

}  // namespace headway::inline importing
