#include "models/import/settings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

namespace headway::inline importing {
namespace {

// "-1e-5" is a value, "-m" is an option of a launcher.
bool is_option(const Text& word) {
    return word.chars.starts_with("--") && word.chars.size() > 2 &&
           std::isalpha(static_cast<unsigned char>(word.chars[2])) != 0;
}

std::string without_quotes(std::string text) {
    const bool is_quoted = text.size() >= 2 && text.front() == text.back() &&
                           (text.front() == '\'' || text.front() == '"');
    return is_quoted ? text.substr(1, text.size() - 2) : text;
}

// model.num_layers=4, the overrides of Megatron-Bridge's and torchtitan's command lines.
std::optional<Setting> override_of(const Text& word) {
    const std::size_t equals = word.chars.find('=');
    if (equals == std::string::npos || equals == 0) return std::nullopt;
    std::string name = word.chars.substr(0, equals);
    const std::size_t plus = name.find_first_not_of('+');
    name.erase(0, std::min(plus, name.size()));
    const bool is_path = name.find('.') != std::string::npos && name.find('/') == name.npos &&
                         std::all_of(name.begin(), name.end(), [](unsigned char c) {
                             return std::isalnum(c) != 0 || c == '_' || c == '.';
                         });
    if (!is_path) return std::nullopt;
    return Setting{name, name, {without_quotes(word.chars.substr(equals + 1))}, word.where()};
}

}  // namespace

std::vector<Text> words_of_command_line(const std::vector<std::string>& arguments) {
    std::vector<Text> words;
    for (const std::string& argument : arguments)
        words.push_back(text_at(argument, {kCommandLine, static_cast<int>(words.size()) + 1}));
    return words;
}

const std::string& file_at(const JobFile& job, Position at) {
    return at.file == 0 ? job.file : job.sources[static_cast<std::size_t>(at.file) - 1];
}

std::string line_of(const JobFile& job, Position at) {
    if (at.line != kCommandLine) return fmt::format("{}:{}", file_at(job, at), at.line);
    return at.column == 0 ? job.file : fmt::format("argument {} of the command line", at.column);
}

std::string Setting::text() const {
    std::string all;
    for (const std::string& value : values) all += (all.empty() ? "" : " ") + shown(value);
    return all;
}

bool Setting::is_off() const {
    if (values.empty()) return false;
    const std::string value = text();
    for (const char* off : {"None", "none", "null", "~", "False", "false", "[]", "", "()", "{}"}) {
        if (value == off) return true;
    }
    return false;
}

std::string setting_name(std::string_view spelling) {
    const std::size_t first = std::min(spelling.find_first_not_of('-'), spelling.size());
    std::string name(spelling.substr(first));
    std::replace(name.begin(), name.end(), '-', '_');
    return name;
}

void add_arguments(const std::vector<std::string>& arguments, JobFile& job) {
    for (Setting& one : arguments_of(words_of_command_line(arguments))) {
        const bool is_there =
            std::any_of(job.settings.begin(), job.settings.end(), [&](const Setting& other) {
                return other.name == one.name && other.values == one.values;
            });
        if (!is_there) job.settings.push_back(std::move(one));
    }
}

std::vector<Setting> arguments_of(const std::vector<Text>& words) {
    constexpr std::string_view of_launcher = " nnodes nproc_per_node ntasks_per_node nodes ";
    std::vector<Setting> settings;
    bool is_open = false;  // the next plain words are values of the last setting
    for (const Text& word : words) {
        // What stands before the program is its launcher's.
        if (word.chars.ends_with(".py")) {
            std::erase_if(settings, [&](const Setting& one) {
                return of_launcher.find(" " + one.name + " ") == std::string_view::npos;
            });
            is_open = false;
            continue;
        }
        if (is_option(word)) {
            const std::size_t equals = word.chars.find('=');
            const std::string spelling = word.chars.substr(0, equals);
            Setting setting{setting_name(spelling), spelling, {}, word.where()};
            if (equals != std::string::npos)
                setting.values.push_back(without_quotes(word.chars.substr(equals + 1)));
            settings.push_back(std::move(setting));
            is_open = equals == std::string::npos;
        } else if (std::optional<Setting> setting = override_of(word)) {
            settings.push_back(std::move(*setting));
            is_open = false;
        } else if (is_open) {
            const bool is_short = word.chars.size() > 1 && word.chars[0] == '-' &&
                                  std::isalpha(static_cast<unsigned char>(word.chars[1])) != 0;
            // A variable that nobody sets is nothing behind a value, and the value behind a name.
            const bool is_nothing = is_one_gap(word.chars) && !settings.back().values.empty();
            if (is_short)
                is_open = false;
            else if (!is_nothing)
                settings.back().values.push_back(without_quotes(word.chars));
        }
    }
    return settings;
}

}  // namespace headway::inline importing
