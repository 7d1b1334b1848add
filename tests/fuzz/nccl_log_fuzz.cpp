// libFuzzer target of the nccl-tests importer, text and JSON. Any bytes either read or throw
// InputError; a log that reads makes a curve that rises, or InputError again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "models/measurements/nccl_log.hpp"
#include "models/vocab/error.hpp"

namespace {

void check(const headway::NcclTable& table) {
    using namespace headway;
    if (table.num_ranks < 2 || table.size.size() != table.seconds.size()) std::abort();
    const TimeCurve curve = to_time_curve(table, PathClass::nvlink);
    if (curve.bytes.empty() || curve.bytes.size() != curve.seconds.size()) std::abort();
    for (std::size_t i = 0; i < curve.seconds.size(); ++i) {
        if (!(curve.seconds[i] > 0.0)) std::abort();
        if (i == 0) continue;
        if (!(curve.bytes[i] > curve.bytes[i - 1])) std::abort();
        if (curve.seconds[i] < curve.seconds[i - 1]) std::abort();
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace headway;
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    try {
        // What is said of ranks is not there to be used, what is left out is stated.
        const LogFacts facts{.num_ranks = size % 2 == 0 ? 0 : 8, .num_hosts = 0};
        const NcclLog log = read_nccl_log(text, "fuzz.log", facts);
        if (log.tables.empty()) std::abort();
        for (const NcclTable& table : log.tables) check(table);
    } catch (const InputError& error) {
        if (error.problems().empty() || *error.what() == '\0') std::abort();
    }
    return 0;
}
