// The head of a Megatron log: `_print_args` of megatron/training/arguments.py writes every argument
// as "  name ......... value", behind whatever a launcher puts before a line.
#include <algorithm>
#include <cctype>

#include "models/import/settings.hpp"

namespace headway::inline importing {
namespace {

struct DumpLine {
    std::string_view name, value;
    std::size_t name_at = 0;
};

std::optional<DumpLine> dump_line(std::string_view line) {
    const std::size_t dots = line.find(" ..");
    if (dots == std::string_view::npos || dots == 0) return std::nullopt;
    std::size_t begin = dots;
    while (begin > 0 && is_in_name(line[begin - 1])) --begin;
    const std::size_t end = line.find_first_not_of('.', dots + 1);
    const bool is_apart = begin == 0 || line[begin - 1] == ' ' || line[begin - 1] == '\t';
    if (begin == dots || !is_apart || std::isalpha(static_cast<unsigned char>(line[begin])) == 0 ||
        end == std::string_view::npos || line[end] != ' ')
        return std::nullopt;
    std::string_view value = line.substr(end + 1);
    const std::size_t last = value.find_last_not_of(" \t\r");
    value = value.substr(0, last == std::string_view::npos ? 0 : last + 1);
    return DumpLine{line.substr(begin, dots - begin), value, begin};
}

// ['moe_act', 'core_attn'] as two values; anything else as one.
std::vector<std::string> dumped_values(std::string_view text) {
    if (!text.starts_with('[') || !text.ends_with(']') || text.find('[', 1) != text.npos)
        return {std::string(text)};
    std::vector<std::string> values;
    std::string value;
    for (const char c : text.substr(1)) {
        if (c == ',' || c == ']') {
            if (!value.empty()) values.push_back(std::move(value));
            value.clear();
        } else if (c != '\'' && c != '"' && c != ' ') {
            value += c;
        }
    }
    if (values.empty()) values.emplace_back("[]");
    return values;
}

template <class Visit>
void each_line(std::string_view text, Visit visit) {
    int number = 1;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find('\n'), text.size());
        if (!visit(text.substr(0, end), number++)) return;
        text.remove_prefix(std::min(end + 1, text.size()));
    }
}

}  // namespace

bool is_megatron_log(std::string_view text) {
    constexpr int enough = 5;
    int found = 0;
    each_line(text, [&](std::string_view line, int) {
        if (dump_line(line)) ++found;
        return found < enough;
    });
    return found >= enough;
}

JobFile read_megatron_log(std::string_view text, const std::string& file) {
    JobFile job{file, "argument dump of a Megatron log"};
    std::vector<std::string> seen;
    each_line(text, [&](std::string_view line, int number) {
        if (line.find("end of arguments") != line.npos && !job.settings.empty()) return false;
        const auto found = dump_line(line);
        if (!found) return true;
        // Ranks, and the runs of one file, print the same names again: the first dump counts.
        const std::string name(found->name);
        const bool is_new = std::find(seen.begin(), seen.end(), name) == seen.end();
        if (!is_new) return true;
        seen.push_back(name);
        job.settings.push_back({name,
                                name,
                                dumped_values(found->value),
                                {number, static_cast<int>(found->name_at) + 1}});
        return true;
    });
    return job;
}

bool is_bridge_log(std::string_view text) {
    return text.find("Task Configuration ---") != std::string_view::npos;
}

JobFile read_bridge_log(std::string_view text, const std::string& file) {
    // The lines before keep their number, as empty ones.
    std::string yaml;
    bool is_inside = false, is_over = false;
    std::string_view prefix;
    each_line(text, [&](std::string_view line, int) {
        const std::size_t mark = line.find("------- Task Configuration");
        const bool ends =
            is_inside && line.substr(std::min(prefix.size(), line.size())).starts_with("---");
        if (ends) is_over = true;
        if (is_inside && !is_over && line.starts_with(prefix)) yaml += line.substr(prefix.size());
        if (mark != line.npos && !is_over) {
            is_inside = true;
            prefix = line.substr(0, mark);
        }
        yaml += '\n';
        return !is_over;
    });
    JobFile job = read_job_yaml(yaml, file, {});
    job.format = "configuration of Megatron-Bridge in a log";
    return job;
}

}  // namespace headway::inline importing
