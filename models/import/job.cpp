#include "models/import/job.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "models/import/known_arguments.hpp"
#include "models/scenario/quantity_text.hpp"

namespace headway::inline importing {
namespace {

std::string name_of(const Setting& setting, Dialect dialect) {
    return dialect == Dialect::megatron ? canonical_name(setting.name) : setting.name;
}

// How to say what a gap stands for.
std::string set_hint(const std::string& open) {
    const bool is_argument = open.find_first_not_of("0123456789") == std::string::npos;
    return is_argument ? fmt::format("argument {} of the script, behind '--'", open)
                       : fmt::format("--set {}=VALUE", open);
}

std::array<int, 3> order_of(Position at) {
    return {at.file, at.line, at.column};
}

}  // namespace

Job::Job(const JobFile& file, std::vector<InputProblem>& problems)
    : file_(file), problems_(problems) {
    for (const Setting& setting : file.settings) {
        const std::string name = name_of(setting, file.dialect);
        const Setting*& kept = settings_[name];
        // Sections of Megatron-Bridge repeat names: null in one leaves what another says.
        const bool is_section = setting.name.find('.') != std::string::npos;
        if (kept != nullptr && is_section && setting.is_off()) continue;
        const bool differs = kept != nullptr && kept->values != setting.values;
        if (differs && !is_section &&
            knowledge_of(name, *kept, file.dialect).concern == Concern::read)
            leave(*kept,
                  fmt::format("given again, {} counts",
                              setting.at.line == kCommandLine || setting.at.file != kept->at.file
                                  ? line_of(file, setting.at)
                                  : fmt::format("line:{}", setting.at.line)));
        kept = &setting;
    }
}

const Setting* Job::find(std::string_view name) const {
    asked_.emplace(name);
    const auto found = settings_.find(name);
    if (found == settings_.end() || found->second->is_off()) return nullptr;
    return found->second;
}

bool Job::flag(std::string_view name, bool otherwise) const {
    asked_.emplace(name);
    const auto found = settings_.find(name);
    if (found == settings_.end()) return otherwise;
    const Setting& setting = *found->second;
    return setting.values.empty() || (!setting.is_off() && setting.values.front() != "0");
}

std::string Job::text(std::string_view name, std::string_view otherwise) const {
    const Setting* setting = find(name);
    if (setting == nullptr) return std::string(otherwise);
    std::string text = setting->text();
    if (const auto open = first_gap(setting->values.empty() ? "" : setting->values.front())) {
        refuse(setting, fmt::format("{} is {}, which is not known here", setting->spelling, text),
               "a value", set_hint(*open));
        return std::string(otherwise);
    }
    return text;
}

std::optional<int> Job::integer(std::string_view name, int low, int high) const {
    const Setting* setting = find(name);
    if (setting == nullptr) return std::nullopt;
    const std::string value = setting->text();
    const std::string accepted = fmt::format("an integer from {} to {}", low, high);
    const auto open = first_gap(setting->values.empty() ? "" : setting->values.front());
    if (open) {
        refuse(setting, fmt::format("{} is {}, which is not known here", setting->spelling, value),
               accepted, set_hint(*open));
        return std::nullopt;
    }
    const auto number = parse_integer(value);
    if (!number || *number < low || *number > high) {
        refuse(setting, fmt::format("{} {}", setting->spelling, in_quotes(value)), accepted);
        return std::nullopt;
    }
    return static_cast<int>(*number);
}

std::optional<double> Job::number(std::string_view name) const {
    const Setting* setting = find(name);
    if (setting == nullptr) return std::nullopt;
    const auto number = parse_number(text(name));
    if (!number)
        refuse(setting, fmt::format("{} {}", setting->spelling, in_quotes(setting->text())),
               "a number");
    return number;
}

void Job::gives(std::string_view key, std::string_view name) const {
    const auto found = settings_.find(name);
    if (found != settings_.end()) origins_.insert_or_assign(std::string(key), found->second);
}

std::string Job::where(const Setting& setting) const {
    if (setting.at.line == kCommandLine) return line_of(file_, setting.at);
    return to_string(file_at(file_, setting.at), setting.at);
}

std::string Job::where(std::string key) const {
    while (true) {
        if (const auto found = origins_.find(key); found != origins_.end())
            return where(*found->second);
        const std::size_t dot = key.rfind('.');
        if (dot == std::string::npos) return file_.file;
        key.resize(dot);
    }
}

void Job::refuse(const Setting* setting, std::string found, std::string accepted,
                 std::string hint) const {
    problems_.push_back({setting == nullptr ? file_.file : where(*setting), std::move(found),
                         std::move(accepted), std::move(hint)});
}

void Job::ask(std::string found, std::string accepted, std::string hint) const {
    problems_.push_back({file_.file, std::move(found), std::move(accepted), std::move(hint)});
}

void Job::leave(const Setting& setting, std::string_view why) const {
    const std::string value = setting.text();
    leave(setting.at,
          fmt::format("{}{}{}: {}", setting.spelling, value.empty() ? "" : " ", value, why));
}

void Job::leave(Position at, const std::string& text) const {
    left_.push_back({at, fmt::format("{}: {}", line_of(file_, at), text)});
}

std::vector<std::string> Job::leftovers() const {
    std::vector<Leftover> all = left_;
    for (const ShellNote& note : file_.notes)
        all.push_back({note.at, fmt::format("{}: {}", line_of(file_, note.at), note.text)});
    const auto already = [&](const Setting& setting) {
        return std::any_of(left_.begin(), left_.end(), [&](const Leftover& other) {
            return order_of(other.at) == order_of(setting.at);
        });
    };
    for (const auto& [name, setting] : settings_) {
        if (asked_.contains(name) || setting->is_off() || already(*setting)) continue;
        const Knowledge known = knowledge_of(name, *setting, file_.dialect);
        if (known.concern == Concern::none) continue;
        const std::string near = near_argument(name);
        const std::string why =
            known.concern == Concern::named  ? fmt::format("not modelled: {}", known.why)
            : known.concern == Concern::read ? "without effect beside the other arguments"
            : near.empty()                   ? "unknown to headway, left out"
                           : fmt::format("unknown to headway, left out; did you mean {}?", near);
        const std::string value = setting->text();
        all.push_back(
            {setting->at, fmt::format("{}: {}{}{}: {}", line_of(file_, setting->at),
                                      setting->spelling, value.empty() ? "" : " ", value, why)});
    }
    std::stable_sort(all.begin(), all.end(), [](const Leftover& a, const Leftover& b) {
        return order_of(a.at) < order_of(b.at);
    });
    std::vector<std::string> texts;
    for (Leftover& leftover : all) texts.push_back(std::move(leftover.text));
    return texts;
}

int Job::num_of_no_concern() const {
    int count = file_.sections;
    for (const auto& [name, setting] : settings_) {
        if (asked_.contains(name)) continue;
        if (setting->is_off() ||
            knowledge_of(name, *setting, file_.dialect).concern == Concern::none)
            ++count;
    }
    return count;
}

}  // namespace headway::inline importing
