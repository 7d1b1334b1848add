#include "models/recorded/nccl_calls.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <charconv>
#include <cstdint>
#include <numeric>
#include <optional>
#include <string_view>
#include <utility>

#include "models/trace/collective_join.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline recorded {
namespace {

constexpr const char* kRecorderHint =
    "record with headway_recorder.py and give its table: --comm S.json";

[[noreturn]] void refuse(const std::string& where, std::string found, std::string hint) {
    throw InputError({.where = where,
                      .found = std::move(found),
                      .accepted = "collectives whose kind, ranks and bytes are known",
                      .hint = std::move(hint)});
}

// "[0, 1, 2]"; nothing for a list that is cut.
std::optional<std::vector<double>> numbers_of(std::string_view text) {
    std::vector<double> numbers;
    while (true) {
        const std::size_t digit = text.find_first_of("0123456789.");
        if (digit == text.npos) return numbers;
        if (text[digit] == '.') return std::nullopt;
        text.remove_prefix(digit);
        double value = 0.0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value,
                                                  std::chars_format::fixed);
        if (error != std::errc() || value > 1e15) return std::nullopt;
        numbers.push_back(value);
        text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    }
}

double bytes_of_type(std::string_view dtype) {
    constexpr std::array<std::pair<std::string_view, double>, 12> sizes = {{{"BFloat16", 2},
                                                                            {"Half", 2},
                                                                            {"Float", 4},
                                                                            {"Double", 8},
                                                                            {"Long", 8},
                                                                            {"Int", 4},
                                                                            {"Short", 2},
                                                                            {"Byte", 1},
                                                                            {"Char", 1},
                                                                            {"Bool", 1},
                                                                            {"Float8_e4m3fn", 1},
                                                                            {"Float8_e5m2", 1}}};
    for (const auto& [name, size] : sizes)
        if (dtype == name) return size;
    return 0.0;
}

std::vector<double> splits_of(const TorchTrace& trace, const std::string& text, double bytes,
                              int ranks, double& row_bytes) {
    auto rows = numbers_of(text);
    if (rows && rows->empty())
        return std::vector<double>(static_cast<std::size_t>(ranks), bytes / ranks);
    if (!rows || rows->size() != static_cast<std::size_t>(ranks))
        refuse(trace.file,
               fmt::format("splits of an all-to-all over {} ranks that are cut: {}", ranks, text),
               kRecorderHint);
    const double all = std::accumulate(rows->begin(), rows->end(), 0.0);
    row_bytes = all > 0.0 ? bytes / all : 0.0;
    for (double& r : *rows) r *= row_bytes;
    return *rows;
}

}  // namespace

Collective collective_of(const std::string& where, const std::string& kind) {
    if (kind == "all_to_all") return Collective::all_to_all;
    if (kind == "all_reduce") return Collective::all_reduce;
    if (kind == "all_gather") return Collective::all_gather;
    if (kind == "reduce_scatter") return Collective::reduce_scatter;
    const bool message = kind == "send" || kind == "recv" || kind == "batch_isend_irecv";
    refuse(where, fmt::format("a call of {} in the step", kind),
           message ? "a pipeline needs a trace of each stage, which headway does not replay yet"
                   : "headway replays all_to_all, all_reduce, all_gather and reduce_scatter: move "
                     "it out of the step");
}

RecordedCall call_of_kernel(const TorchTrace& trace, const NcclCall& call) {
    const std::string type = call.name.empty() ? "nothing of it" : "dtype '" + call.dtype + "'";
    const double size = bytes_of_type(call.dtype);
    if (call.name.empty() || size == 0.0 || call.group_size < 1)
        refuse(trace.file, "a kernel of NCCL of which the trace says " + type, kRecorderHint);
    RecordedCall result{.group = call.group,
                        .dtype = call.dtype,
                        .in_bytes = size * static_cast<double>(call.in),
                        .out_bytes = size * static_cast<double>(call.out),
                        .elements = call.in};
    switch (kind_of(call, "")) {
        case CallKind::all_to_all:
            result.kind = "all_to_all";
            result.send = splits_of(trace, call.in_splits, result.in_bytes, call.group_size,
                                    result.row_bytes);
            result.receive = splits_of(trace, call.out_splits, result.out_bytes, call.group_size,
                                       result.row_bytes);
            break;
        case CallKind::all_reduce:
            result.kind = "all_reduce";
            break;
        case CallKind::all_gather:
            result.kind = "all_gather";
            break;
        case CallKind::reduce_scatter:
            result.kind = "reduce_scatter";
            break;
        case CallKind::point_to_point:
            result.kind = "send";
            break;
        case CallKind::other:
            result.kind = call.name;
    }
    return result;
}

std::vector<int> ranks_of_kernel(const TorchTrace& trace, const NcclCall& call) {
    const auto numbers = numbers_of(call.ranks);
    if (!numbers || numbers->size() != static_cast<std::size_t>(call.group_size))
        refuse(trace.file,
               fmt::format("ranks of a group of {} that are cut: {}", call.group_size, call.ranks),
               kRecorderHint);
    std::vector<int> ranks;
    for (const double number : *numbers) {
        if (number > 1 << 20) refuse(trace.file, fmt::format("rank {:g}", number), kRecorderHint);
        ranks.push_back(static_cast<int>(number));
    }
    return ranks;
}

RecordedGroup group_of(const std::string& where, const std::string& name,
                       const std::vector<int>& ranks) {
    const int size = static_cast<int>(ranks.size());
    const int stride = size > 1 ? ranks[1] - ranks[0] : 1;
    bool axis = stride >= 1;
    for (std::size_t i = 1; i < ranks.size(); ++i) axis = axis && ranks[i] - ranks[i - 1] == stride;
    // Groups side by side fill a block of size x stride ranks.
    axis = axis && ranks.front() % (size * stride) < stride;
    if (!axis)
        refuse(
            where, fmt::format("group '{}' of ranks {}", name, fmt::join(ranks, ", ")),
            "headway replays groups that are an axis of the layout: equally far apart, in blocks "
            "that begin at a multiple of their length");
    return {.name = name, .size = size, .stride = stride};
}

}  // namespace headway::inline recorded
