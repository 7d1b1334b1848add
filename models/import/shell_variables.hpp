// Variables of a script while it is read, and the words of it with their variables put in.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "models/import/shell_text.hpp"

namespace headway::inline importing {

struct ShellVariable {
    std::vector<Text> items;  // one, but for arrays
    bool is_array = false;
};

// What surrounds a script: variables of the environment, its own arguments, and the files beside
// it.
struct ShellSurroundings {
    std::map<std::string, std::string, std::less<>> variables;
    std::vector<std::string> arguments;
    // The text of a file, by its path from the script's folder; nothing where there is none.
    std::function<std::optional<std::string>(const std::string&)> file_beside;
};

class ShellVariables {
  public:
    explicit ShellVariables(const ShellSurroundings& surroundings)
        : arguments(surroundings.arguments), given_(surroundings.variables) {}

    // nullptr when neither the script nor the environment sets it.
    const ShellVariable* find(std::string_view name) const;
    // A value with a gap gives way to one of the environment.
    void set(const std::string& name, ShellVariable value);
    void unset(const std::string& name) { values_.erase(name); }
    const std::map<std::string, ShellVariable, std::less<>>& all() const { return values_; }
    // Variables of the environment that the script read.
    const std::set<std::string, std::less<>>& read() const { return read_; }

    std::vector<std::string> arguments;
    std::string script = "script";  // $0 and BASH_SOURCE, seen from the script's folder

  private:
    std::map<std::string, std::string, std::less<>> given_;
    std::map<std::string, ShellVariable, std::less<>> values_;
    mutable std::map<std::string, ShellVariable, std::less<>> from_environment_;
    mutable std::set<std::string, std::less<>> read_;
};

// [begin, end) of a source.
struct ShellSpan {
    std::size_t begin = 0, end = 0;
};

// The text of a script, and where each of its characters stands.
class ShellSource {
  public:
    // `number` goes into the positions: 0 for the script itself.
    ShellSource(std::string_view text, std::string file, int number = 0);
    // What the commands of a span write, where that can be told without running anything.
    std::function<std::optional<Text>(ShellSpan)> output_of;
    std::string_view text() const { return text_; }
    Position at(std::size_t offset) const;
    [[noreturn]] void fail(std::size_t offset, std::string found, std::string hint = "") const;

    // The end of what begins at `offset`: a word of the command line, "$(...)", "${...}", or a
    // quoted text, its quotes included.
    std::size_t end_of_word(std::size_t offset) const;
    std::size_t end_of_dollar(std::size_t offset, int depth = 0) const;
    std::size_t end_of_quote(std::size_t offset, int depth = 0) const;

  private:
    std::size_t end_of_bracket(std::size_t offset, char open, char close, int depth) const;

    std::string_view text_;
    std::string file_;
    int number_;
    std::vector<std::size_t> lines_;
};

// The words that a span becomes: variables put in and, outside quotes, cut at blanks.
std::vector<Text> expand_words(const ShellSource& source, ShellSpan span,
                               ShellVariables& variables);
// The same as one word, as in an assignment; `is_quoted`: as between double quotes.
Text expand_text(const ShellSource& source, ShellSpan span, ShellVariables& variables,
                 bool is_quoted = false);

// i = 0, i += 2, i++: false where the text is no assignment. A value that is open is a gap.
bool assign_arithmetic(const Text& text, ShellVariables& variables);

// What printf writes for %s, %d and %%, \n among them.
Text formatted(const Text& format, const std::vector<Text>& values);
// What dirname, basename and realpath write of a path.
std::string folder_of(std::string_view path);
std::string name_of(std::string_view path);

// The value of $((...)), or a gap where a name in it has no value.
Text evaluate_arithmetic(const Text& text, const ShellVariables& variables);

}  // namespace headway::inline importing
