#include "models/measurements/nccl_json.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <utility>

#include "models/vocab/error.hpp"

namespace headway::inline measurements {
namespace {

using Json = nlohmann::json;

constexpr const char* kWhat = "the JSON that nccl-tests -J or rccl-tests -Z json writes";

std::string lower(std::string text) {
    for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return text;
}

// The fields of a line of CSV, without the blanks around them.
std::vector<std::string> split_fields(const std::string& line) {
    std::vector<std::string> fields;
    std::istringstream stream(line);
    for (std::string field; std::getline(stream, field, ',');) {
        std::erase_if(field, [](char c) { return c == ' ' || c == '\r' || c == '"'; });
        fields.push_back(std::move(field));
    }
    return fields;
}

// Line of a byte of the text, for messages of the JSON parser.
std::size_t line_of(std::string_view text, std::size_t byte) {
    std::size_t line = 1;
    for (const char c : text.substr(0, std::min(byte, text.size()))) line += c == '\n';
    return line;
}

const Json& member(const Json& object, const char* key, const std::string& where) {
    const auto it = object.is_object() ? object.find(key) : object.end();
    if (!object.is_object() || it == object.end())
        reject_log(where, fmt::format("no \"{}\"", key), kWhat);
    return *it;
}

double number_in(const Json& object, const char* key, const std::string& where) {
    const Json& value = member(object, key, where);
    if (!value.is_number() || !std::isfinite(value.get<double>()))
        reject_log(where, fmt::format("{}: {}", key, value.dump()), "a finite number");
    return value.get<double>();
}

int whole_in(const Json& object, const char* key, const std::string& where) {
    const double value = number_in(object, key, where);
    if (value < 0.0 || value > 1e6 || value != std::floor(value))
        reject_log(where, fmt::format("{}: {}", key, value), "a whole number up to a million");
    return static_cast<int>(value);
}

void read_devices(const Json& root, NcclRun& run, const std::string& where) {
    const Json& holder = root.contains("devices") ? root : member(root, "config", where);
    const Json& devices = member(holder, "devices", where);
    std::map<int, std::set<std::string>> hosts;  // by group
    std::map<int, int> sizes;
    for (const Json& device : devices) {
        const int group = device.contains("group") ? device["group"].get<int>() : 0;
        ++sizes[group];
        hosts[group].insert(member(device, "hostname", where).get<std::string>());
        if (run.device.empty())
            run.device = member(device, "device_info", where).get<std::string>();
    }
    if (sizes.empty()) return;
    for (const auto& [group, size] : sizes) {
        if (size == sizes.begin()->second) continue;
        reject_log(where, fmt::format("groups of {} and {} ranks", sizes.begin()->second, size),
                   "groups of one size");
    }
    run.num_ranks = sizes.begin()->second;
    run.num_hosts = static_cast<int>(hosts.begin()->second.size());
}

void read_program(const Json& root, NcclRun& run) {
    const auto args = root.find("args");
    if (args != root.end() && args->is_array() && !args->empty())
        run.program = nccl_program(args->front().get<std::string>());
}

double micros_in(const Json& object, const char* key, const std::string& where) {
    const double micros = number_in(object, key, where);
    if (micros <= 0.0) reject_log(where, fmt::format("time {}", micros), "microseconds above 0");
    return micros;
}

void read_results(const Json& root, NcclRun& run, const std::string& file_name) {
    int index = 0;
    for (const Json& row : member(root, "results", file_name)) {
        const std::string where = fmt::format("{}: results[{}]", file_name, index++);
        const Json& outside = member(row, "out_of_place", where);
        const char* key = outside.contains("cpu_time") ? "cpu_time" : "time";
        const Json& wrong = member(outside, "nwrong", where);
        NcclRow result{.size = number_in(row, "size", where),
                       .seconds = micros_in(outside, key, where) * 1e-6,
                       .where = where};
        if (!wrong.is_null()) check_wrong("#wrong", wrong.dump(), where);
        if (outside.contains("alg_bw")) result.algbw = number_in(outside, "alg_bw", where);
        if (outside.contains("bus_bw")) result.busbw = number_in(outside, "bus_bw", where);
        const std::string redop = member(row, "redop", where).get<std::string>();
        result.reduces = !redop.empty() && redop != "none";
        run.rows.push_back(std::move(result));
    }
}

// One row of rccl-tests. A run is a name on a number of ranks; cycles are its repeats.
struct RcclRow {
    std::string name;
    int nodes = 0, ranks = 0;
    bool in_place = false;
    NcclRow row;
};

// rccl-tests names what NCCL's functions are named: AllReduce, ReduceScatter, AlltoAll.
std::string program_of(const std::string& name) {
    return nccl_program(name.size() > 5 && name.ends_with("_perf") ? name : lower(name), true)
        .value_or(lower(name) + "_perf");
}

std::vector<NcclRun> runs_of(const std::vector<RcclRow>& rows) {
    std::vector<NcclRun> runs;
    for (const RcclRow& r : rows) {
        if (r.in_place) continue;
        const std::string program = program_of(r.name);
        const auto same = [&](const NcclRun& run) {
            return run.program == program && run.num_ranks == r.ranks && run.num_hosts == r.nodes;
        };
        auto run = std::find_if(runs.begin(), runs.end(), same);
        if (run == runs.end()) {
            run = runs.insert(
                runs.end(),
                NcclRun{.program = program, .num_ranks = r.ranks, .num_hosts = r.nodes});
        }
        run->rows.push_back(r.row);
    }
    return runs;
}

std::vector<RcclRow> rccl_rows(const Json& list, const std::string& file_name) {
    std::vector<RcclRow> rows;
    for (const Json& object : list) {
        const std::string where = fmt::format("{}: [{}]", file_name, rows.size());
        const std::string redop = member(object, "redop", where).get<std::string>();
        RcclRow r{.name = member(object, "name", where).get<std::string>(),
                  .nodes = whole_in(object, "nodes", where),
                  .ranks = whole_in(object, "ranks", where),
                  .in_place = number_in(object, "inPlace", where) != 0.0};
        r.row = {.size = number_in(object, "size", where),
                 .seconds = micros_in(object, "time", where) * 1e-6,
                 .algbw = number_in(object, "algBw", where),
                 .busbw = number_in(object, "busBw", where),
                 .reduces = !redop.empty() && redop != "none",
                 .where = where};
        const Json& wrong = member(object, "wrong", where);
        if (!r.in_place)
            check_wrong("#wrong", wrong.is_string() ? wrong.get<std::string>() : wrong.dump(),
                        where);
        rows.push_back(std::move(r));
    }
    return rows;
}

// The CSV has the fields of the JSON, by name; a number is one where the JSON has one.
Json json_of_csv(std::string_view text, const std::string& file_name) {
    Json list = Json::array();
    std::vector<std::string> names;
    std::istringstream lines{std::string(text)};
    int number = 0;
    for (std::string line; std::getline(lines, line);) {
        ++number;
        std::vector<std::string> fields = split_fields(line);
        if (fields.size() < 2) continue;
        if (fields.front() == kRcclCsvHeader) {
            names = fields;
        } else if (!names.empty()) {
            if (fields.size() != names.size()) {
                reject_log(fmt::format("{}:{}", file_name, number),
                           fmt::format("{} fields", fields.size()),
                           fmt::format("{}, as in the header", names.size()));
            }
            Json object;
            for (std::size_t i = 0; i < names.size(); ++i) {
                const bool text_field = names[i] == "name" || names[i] == "type" ||
                                        names[i] == "redop" || names[i] == "wrong";
                const Json value = Json::parse(fields[i], nullptr, false);
                object[names[i]] = text_field || value.is_discarded() ? Json(fields[i]) : value;
            }
            list.push_back(std::move(object));
        }
    }
    return list;
}

}  // namespace

bool looks_like_json(std::string_view text) {
    const std::size_t next = text.find_first_not_of(" \t\r\n", 1);
    return next == std::string_view::npos || text[next] == '{' || text[next] == '"' ||
           text[next] == '}' || text[next] == ']';
}

std::vector<NcclRun> read_nccl_json(std::string_view text, const std::string& file_name) {
    Json root;
    try {
        root = Json::parse(text);
    } catch (const Json::parse_error& error) {
        reject_log(fmt::format("{}:{}", file_name, line_of(text, error.byte)), "not JSON: cut off?",
                   "a whole file of nccl-tests -J or rccl-tests -Z json");
    } catch (const Json::out_of_range&) {
        reject_log(file_name, "a number that no double holds", kWhat);
    }
    try {
        if (root.is_array()) return runs_of(rccl_rows(root, file_name));
        NcclRun run;
        read_program(root, run);
        read_devices(root, run, file_name);
        read_results(root, run, file_name);
        return {run};
    } catch (const Json::exception& error) {
        reject_log(file_name, error.what(), kWhat);
    }
}

std::vector<NcclRun> read_rccl_csv(std::string_view text, const std::string& file_name) {
    try {
        return runs_of(rccl_rows(json_of_csv(text, file_name), file_name));
    } catch (const Json::exception& error) {
        reject_log(file_name, error.what(), "the CSV that rccl-tests -Z csv writes");
    }
}

}  // namespace headway::inline measurements
