#include "models/recorded/call_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>

#include "models/text/input_file.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline recorded {
namespace {

using Json = nlohmann::json;

constexpr const char* kTableAccepted =
    "the side table that headway_recorder.py writes (…_comm.json)";
constexpr double kMostBytes = 1e15;
constexpr int kMostRanks = 1 << 20;

class TableReader {
  public:
    explicit TableReader(std::string file) : file_(std::move(file)) {}

    CallTable read(const Json& json) const {
        if (!json.is_object()) refuse("no JSON object");
        if (const int format = whole(json, "format", 0, 1 << 20); format != 1)
            refuse(fmt::format("format {}", format),
                   "format 1; the recorder is of another headway");
        CallTable table{.file = file_,
                        .device = text(json, "device"),
                        .rank = whole(json, "rank", 0, kMostRanks),
                        .world_size = whole(json, "world_size", 1, kMostRanks),
                        .fake = flag(json, "fake"),
                        .experts = whole(json, "experts", 0, 1 << 20),
                        .step_ms = number(json, "step_ms", 1e9),
                        .enqueue_ms = number(json, "enqueue_ms", 1e9),
                        .peak_bytes = number(json, "peak_bytes", kMostBytes)};
        if (!(table.step_ms > 0.0) || !(table.enqueue_ms > 0.0))
            refuse("a step of no time", "step_ms and enqueue_ms above 0");
        if (table.rank >= table.world_size)
            refuse(fmt::format("rank {} of {}", table.rank, table.world_size));
        const Json& host_us = member(json, "nccl_host_us", Json::value_t::object);
        for (const auto& [kind, value] : host_us.items())
            table.nccl_host_us[kind] = real(value, "nccl_host_us", 1e9);
        const Json& groups = member(json, "groups", Json::value_t::object);
        for (const auto& [name, ranks] : groups.items())
            table.groups[name] = ranks_of(ranks, name, table);
        for (const Json& call : member(json, "calls", Json::value_t::array))
            table.calls.push_back(call_of(call, table));
        return table;
    }

    [[noreturn]] void refuse(const std::string& found,
                             const std::string& accepted = kTableAccepted) const {
        throw InputError({.where = file_, .found = found, .accepted = accepted});
    }

  private:
    const Json& member(const Json& json, const char* key, Json::value_t type) const {
        const auto found = json.find(key);
        if (found == json.end()) refuse(fmt::format("no '{}'", key));
        const bool same =
            found->type() == type || (type == Json::value_t::number_float && found->is_number());
        if (!same) refuse(fmt::format("'{}' of another type: {}", key, found->type_name()));
        return *found;
    }
    std::string text(const Json& json, const char* key) const {
        return member(json, key, Json::value_t::string).get<std::string>();
    }
    bool flag(const Json& json, const char* key) const {
        return member(json, key, Json::value_t::boolean).get<bool>();
    }
    double real(const Json& value, const char* key, double most) const {
        const double number = value.is_number() ? value.get<double>() : -1.0;
        if (number >= 0.0 && number <= most) return number;
        refuse(fmt::format("'{}' is {}", key, value.dump().substr(0, 40)),
               fmt::format("a number from 0 to {:g}", most));
    }
    double number(const Json& json, const char* key, double most) const {
        return real(member(json, key, Json::value_t::number_float), key, most);
    }
    int whole(const Json& json, const char* key, int least, int most) const {
        const double value = number(json, key, most);
        if (value == std::floor(value) && value >= least) return static_cast<int>(value);
        refuse(fmt::format("'{}' is {:g}", key, value),
               fmt::format("a whole number from {} to {}", least, most));
    }
    std::vector<int> ranks_of(const Json& json, const std::string& name,
                              const CallTable& table) const {
        std::vector<int> ranks;
        if (!json.is_array()) refuse(fmt::format("group '{}' without a list of ranks", name));
        for (const Json& rank : json) {
            const double value = real(rank, "ranks", table.world_size - 1);
            ranks.push_back(static_cast<int>(value));
        }
        if (std::ranges::find(ranks, table.rank) == ranks.end())
            refuse(fmt::format("group '{}' without rank {}, which was recorded", name, table.rank));
        return ranks;
    }
    std::vector<double> splits_of(const Json& json, const char* key, const RecordedCall& call,
                                  const CallTable& table) const {
        std::vector<double> splits;
        for (const Json& value : member(json, key, Json::value_t::array))
            splits.push_back(real(value, key, kMostBytes));
        if (splits.size() != table.groups.at(call.group).size())
            refuse(fmt::format("{} entries of '{}' in a group of {}", splits.size(), key,
                               table.groups.at(call.group).size()));
        return splits;
    }
    RecordedCall call_of(const Json& json, const CallTable& table) const {
        if (!json.is_object()) refuse("a call that is no JSON object");
        RecordedCall call{.kind = text(json, "kind"),
                          .group = text(json, "group"),
                          .dtype = text(json, "dtype"),
                          .in_bytes = number(json, "in_bytes", kMostBytes),
                          .out_bytes = number(json, "out_bytes", kMostBytes),
                          .async = flag(json, "async")};
        if (!table.groups.contains(call.group))
            refuse(fmt::format("a call in group '{}', which is not listed", call.group));
        if (json.contains("elements"))
            call.elements = static_cast<std::int64_t>(number(json, "elements", kMostBytes));
        if (call.kind == "all_to_all") {
            call.row_bytes = number(json, "row_bytes", kMostBytes);
            call.send = splits_of(json, "send", call, table);
            call.receive = splits_of(json, "receive", call, table);
        }
        return call;
    }

    std::string file_;
};

}  // namespace

CallTable read_call_table(const std::filesystem::path& path) {
    const TableReader reader(path.string());
    const std::string text = read_input_file(path, kTableAccepted);
    const Json json = Json::parse(text, nullptr, false);
    if (json.is_discarded()) reader.refuse("no JSON, or a file that is cut");
    return reader.read(json);
}

}  // namespace headway::inline recorded
