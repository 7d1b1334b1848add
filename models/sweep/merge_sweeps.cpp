#include "models/sweep/merge_sweeps.hpp"

#include <fmt/format.h>

#include <charconv>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "models/sweep/sweep_file.hpp"
#include "models/text/csv_text.hpp"
#include "models/text/input_file.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline sweep {
namespace {

constexpr std::size_t kMaxShards = 10'000'000;

struct ShardFile {
    std::string name;
    std::ifstream stream;
    std::optional<LineReader> lines;
    SweepHead head;
};

// "12 of 5 plans" -> 12, 5
std::pair<std::size_t, std::size_t> two_numbers(const LineReader& lines, const std::string& text,
                                                std::string_view end) {
    const std::size_t gap = text.find(" of ");
    if (gap == std::string::npos || !text.ends_with(end)) {
        throw InputError({.where = lines.where(), .found = "'" + one_line(text) + "'"});
    }
    const std::string second = text.substr(gap + 4, text.size() - gap - 4 - end.size());
    return {lines.whole_number(text.substr(0, gap)), lines.whole_number(second)};
}

SweepHead read_head(LineReader& lines) {
    SweepHead head;
    lines.expect("# headway sweep 1", "the result file of headway sweep");
    head.scenario = lines.value_of("# scenario: ");
    head.profile = lines.value_of("# profile: ");
    head.version = lines.value_of("# version: ");
    head.seed = lines.whole_number(lines.value_of("# seed: "));
    head.sweep = lines.value_of("# sweep: ");
    const auto [points, plans] = two_numbers(lines, lines.value_of("# points: "), " plans");
    const auto [index, count] = two_numbers(lines, lines.value_of("# shard: "), "");
    head.num_points = points;
    head.num_plans = plans;
    head.shard = {index, count};
    if (plans == 0 || count == 0 || count > kMaxShards || index >= count || points > (1u << 30)) {
        throw InputError({.where = lines.where(),
                          .found = fmt::format("shard {} of {}, {} points of {} plans", index,
                                               count, points, plans)});
    }
    lines.next();
    head.columns = lines.line();
    if (!head.columns.ends_with(kSweepColumns)) {
        throw InputError({.where = lines.where(), .found = "other column names"});
    }
    return head;
}

// The text of a head but for its shard: equal for all files of one sweep.
std::string common_text(SweepHead head) {
    head.shard = {};
    return head.text();
}

void refuse_other(const ShardFile& file, const ShardFile& first) {
    const bool is_version = file.head.sweep == first.head.sweep;
    throw InputError({.where = file.name,
                      .found = is_version ? "written by headway " + file.head.version
                                          : "a shard of sweep " + file.head.sweep,
                      .accepted = fmt::format("{}, as {}",
                                              is_version ? "headway " + first.head.version
                                                         : "sweep " + first.head.sweep,
                                              first.name)});
}

void refuse_missing(std::size_t count, const std::vector<std::unique_ptr<ShardFile>>& by_index) {
    std::string missing;
    std::size_t num_missing = 0;
    for (std::size_t i = 0; i < by_index.size(); ++i) {
        if (by_index[i]) continue;
        if (++num_missing <= 20) missing += fmt::format("{}{}", missing.empty() ? "" : ", ", i);
    }
    if (num_missing == 0) return;
    throw InputError({.where = "headway merge",
                      .found = fmt::format("{} of {} shards are missing: {}{}", num_missing, count,
                                           missing, num_missing > 20 ? ", ..." : ""),
                      .accepted = "all shards of the sweep"});
}

std::unique_ptr<ShardFile> open_shard(const std::filesystem::path& path) {
    auto file = std::make_unique<ShardFile>();
    file->name = path.string();
    file->stream = open_input_file(path, "the file of a shard of headway sweep");
    file->lines.emplace(file->stream, file->name);
    file->head = read_head(*file->lines);
    return file;
}

void copy_point(ShardFile& file, std::ostream& out) {
    for (std::size_t plan = 0; plan < file.head.num_plans; ++plan) {
        if (!file.lines->next() || file.lines->line().starts_with("# end: ")) {
            throw InputError({.where = file.lines->where(),
                              .found = "the shard ends before its last row",
                              .accepted = "a complete shard",
                              .hint = "give its headway sweep command again: it goes on"});
        }
        out << file.lines->line() << '\n';
    }
}

}  // namespace

void merge_sweeps(const std::vector<std::filesystem::path>& files, std::ostream& out) {
    std::vector<std::unique_ptr<ShardFile>> by_index;
    const ShardFile* first = nullptr;
    for (const std::filesystem::path& path : files) {
        auto file = open_shard(path);
        if (first == nullptr) {
            by_index.resize(file->head.shard.count);
            first = file.get();
        }
        if (common_text(file->head) != common_text(first->head) ||
            file->head.shard.count != first->head.shard.count) {
            refuse_other(*file, *first);
        }
        auto& slot = by_index[file->head.shard.index];
        if (slot) {
            throw InputError({.where = file->name,
                              .found = fmt::format("shard {} again", file->head.shard.index),
                              .accepted = "every shard once: it is in " + slot->name});
        }
        slot = std::move(file);
    }
    refuse_missing(by_index.size(), by_index);
    const SweepHead head = by_index.front()->head;
    out << common_text(head);
    for (std::size_t point = 0; point < head.num_points; ++point) {
        copy_point(*by_index[point % by_index.size()], out);
    }
    for (auto& file : by_index) {
        const std::size_t rows = points_of(file->head.shard, head.num_points) * head.num_plans;
        std::string end = end_mark(rows);
        end.pop_back();
        file->lines->expect(end, "the end mark of a complete shard");
        file->lines->expect_end();
    }
    out << end_mark(head.num_points * head.num_plans);
}

}  // namespace headway::inline sweep
