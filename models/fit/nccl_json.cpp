#include "models/fit/nccl_json.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "models/fit/nccl_rows.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline fit {
namespace {

using Json = nlohmann::json;

// Line of a byte of the text, for messages of the JSON parser.
std::size_t line_of(std::string_view text, std::size_t byte) {
    std::size_t line = 1;
    for (const char c : text.substr(0, std::min(byte, text.size()))) line += c == '\n';
    return line;
}

const Json& member(const Json& object, const char* key, const std::string& where) {
    const auto it = object.is_object() ? object.find(key) : object.end();
    if (!object.is_object() || it == object.end())
        reject_log(where, fmt::format("no \"{}\"", key), "the JSON that nccl-tests -J writes");
    return *it;
}

double number_in(const Json& object, const char* key, const std::string& where) {
    const Json& value = member(object, key, where);
    if (!value.is_number() || !std::isfinite(value.get<double>()))
        reject_log(where, fmt::format("{}: {}", key, value.dump()), "a finite number");
    return value.get<double>();
}

void read_devices(const Json& root, NcclTable& table, const std::string& where) {
    const Json& holder = root.contains("devices") ? root : member(root, "config", where);
    const Json& devices = member(holder, "devices", where);
    std::set<std::string> hosts;
    for (const Json& device : devices) {
        hosts.insert(member(device, "hostname", where).get<std::string>());
        if (table.device.empty())
            table.device = member(device, "device_info", where).get<std::string>();
    }
    table.num_ranks = static_cast<int>(devices.size());
    table.num_hosts = static_cast<int>(hosts.size());
}

std::optional<Collective> program_of(const Json& root, const std::string& where) {
    const auto args = root.find("args");
    if (args == root.end() || !args->is_array() || args->empty()) return std::nullopt;
    return nccl_program(args->front().get<std::string>(), where);
}

void read_results(const Json& root, NcclTable& table, const std::string& file_name) {
    int index = 0;
    for (const Json& row : member(root, "results", file_name)) {
        const std::string where = fmt::format("{}: results[{}]", file_name, index++);
        const Json& outside = member(row, "out_of_place", where);
        const char* key = outside.contains("cpu_time") ? "cpu_time" : "time";
        const double micros = number_in(outside, key, where);
        if (micros <= 0.0)
            reject_log(where, fmt::format("time {}", micros), "microseconds above 0");
        const Json& wrong = member(outside, "nwrong", where);
        if (!wrong.is_null()) check_wrong("#wrong", wrong.dump(), where);
        table.size.push_back(number_in(row, "size", where));
        table.seconds.push_back(micros * 1e-6);
    }
}

}  // namespace

NcclTable read_nccl_json(std::string_view text, const std::string& file_name,
                         std::optional<Collective> asked) {
    Json root;
    try {
        root = Json::parse(text);
    } catch (const Json::parse_error& error) {
        reject_log(fmt::format("{}:{}", file_name, line_of(text, error.byte)), "not JSON: cut off?",
                   "a whole file of nccl-tests -J");
    } catch (const Json::out_of_range&) {
        reject_log(file_name, "a number that no double holds",
                   "the JSON that nccl-tests -J writes");
    }
    try {
        NcclTable table;
        const std::optional<Collective> said = program_of(root, file_name);
        if (!said && !asked)
            reject_log(file_name, "args do not name an nccl-tests program", "alltoall_perf, ...");
        if (said && asked && *said != *asked)
            reject_log(file_name, fmt::format("a log of {}", name(*said)),
                       std::string(name(*asked)));
        table.collective = said ? *said : *asked;
        read_devices(root, table, file_name);
        read_results(root, table, file_name);
        if (table.size.empty()) reject_log(file_name, "no results", "at least one row");
        return table;
    } catch (const Json::exception& error) {
        reject_log(file_name, error.what(), "the JSON that nccl-tests -J writes");
    }
}

}  // namespace headway::inline fit
