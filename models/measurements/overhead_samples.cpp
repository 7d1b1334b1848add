#include "models/measurements/overhead_samples.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <optional>

#include "models/text/csv_text.hpp"
#include "models/text/input_file.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline measurements {
namespace {

// "gemm MxNxK": 2 m n k FLOPs, smallest dimension min(m, n, k).
std::optional<KernelSample> gemm_of(const std::string& quantity) {
    int m = 0, n = 0, k = 0, end = 0;
    if (std::sscanf(quantity.c_str(), "gemm %dx%dx%d%n", &m, &n, &k, &end) != 3) return {};
    if (static_cast<std::size_t>(end) != quantity.size() || std::min({m, n, k}) < 1) return {};
    const double flops = 2.0 * m * n * k;
    return KernelSample{.kernel = Kernel::dense_gemm,
                        .size = flops,
                        .width = static_cast<double>(std::min({m, n, k})),
                        .work = flops};
}

// "host_product"
std::optional<HostCall> host_call_of(std::string_view quantity) {
    for (std::size_t i = 0; i < kNumHostCalls; ++i)
        if (quantity == fmt::format("host_{}", kHostCallNames[i])) return static_cast<HostCall>(i);
    return {};
}

BesideSample& beside(CalibrationSamples& samples, double bytes) {
    auto& all = samples.beside;
    const auto found = std::ranges::find(all, bytes, &BesideSample::bytes);
    return found != all.end() ? *found : all.emplace_back(BesideSample{.bytes = bytes});
}

}  // namespace

DeviceFacts add_overheads(const std::filesystem::path& csv, CalibrationSamples& samples) {
    constexpr std::string_view kColumns = "quantity,bytes,value";
    std::ifstream in = open_input_file(csv, "a CSV that headway-grid --overheads writes");
    LineReader lines(in, csv.string());
    lines.expect(kColumns, "the columns of overheads");
    DeviceFacts facts;
    while (lines.next()) {
        const CsvRow row(lines.line(), kColumns, lines.where());
        row.expect_size(3);
        const std::string quantity(row.text(0));
        if (quantity == "launch") {
            samples.launch.push_back(row.non_negative(2));
        } else if (quantity == "host_sync") {
            samples.host_sync.push_back(row.non_negative(2));
        } else if (const auto call = host_call_of(quantity)) {
            samples.host_calls[*call].push_back(row.non_negative(2));
        } else if (quantity == "count_exchange") {
            samples.count_exchange.push_back(row.non_negative(2));
        } else if (quantity == "experts") {
            samples.experts = row.non_negative(2);
        } else if (quantity == "reduction") {
            beside(samples, row.non_negative(1)).reduction = row.non_negative(2);
        } else if (quantity == "experts_beside") {
            beside(samples, row.non_negative(1)).experts = row.non_negative(2);
        } else if (quantity == "overlap") {
            samples.overlap_slowdown.push_back(row.non_negative(2));
        } else if (quantity == "copy") {
            samples.copies.push_back({row.non_negative(1), row.non_negative(2)});
            if (samples.copies.back().seconds <= 0.0) throw row.error(2, "a time above 0");
        } else if (const auto gemm = gemm_of(quantity)) {
            samples.gemms.push_back(*gemm);
            samples.gemms.back().seconds = row.non_negative(2);
            if (samples.gemms.back().seconds <= 0.0) throw row.error(2, "a time above 0");
        } else if (!quantity.starts_with("host ")) {  // what the calls of a phase come to
            facts[quantity] = row.text(2);
        }
    }
    return facts;
}

}  // namespace headway::inline measurements
