#include "kernels/bench/report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <stdexcept>

namespace headway::kernels::bench {

namespace {

// Cells of the CSV are not quoted.
std::string without_commas(std::string text) {
    std::replace(text.begin(), text.end(), ',', ';');
    return text;
}

}  // namespace

double roofline_us(const Cost& cost, const Ceilings& ceilings) {
    return 1e6 *
           std::max(cost.flops / ceilings.flops_per_second, cost.bytes / ceilings.bytes_per_second);
}

std::string table_line(const Result& r, const Ceilings& ceilings) {
    const std::string verdict = fmt::format("{} {:.2e} {}", r.check.passed ? "ok" : "FAILED",
                                            r.check.error, r.check.detail);
    const std::string who = fmt::format("{:<20} {:<12} {:<5}", r.op, r.impl, r.shape.name);
    if (!r.timing) return fmt::format("{} | {:>43} | {}", who, "not timed", verdict);
    const Quantiles& cold = r.timing->cold;
    return fmt::format(
        "{} | {:9.1f} us ({:.1f}-{:.1f}) hot {:.1f} | {:6.1f} TFLOP/s | {:6.0f} GB/s | {:3.0f} % | "
        "{}",
        who, cold.median_us, cold.p10_us, cold.p90_us, r.timing->hot.median_us,
        1e-6 * r.cost.flops / cold.median_us, 1e-3 * r.cost.bytes / cold.median_us,
        100 * roofline_us(r.cost, ceilings) / cold.median_us, verdict);
}

void write_csv(const std::string& path, const std::vector<Result>& results,
               const DeviceInfo& device, const Ceilings& ceilings) {
    std::ofstream out(path);
    if (!out) throw std::runtime_error("cannot write " + path);
    out << "suite,op,impl,shape,num_heads,head_dim,num_experts,expert_dim,num_tokens,top_k,l2,"
           "median_us,p10_us,p90_us,num_samples,flops,bytes,roofline_us,workspace_bytes,check,"
           "check_error,"
           "sm_mhz,memory_mhz,power_w,temperature_c,throttle,device,driver,cuda,copy_gbs,gemm_"
           "tflops,date,check_detail\n";
    for (const Result& r : results) {
        const auto row = [&](const char* l2, const Quantiles& q) {
            out << fmt::format(
                "{},{},{},{},{},{},{},{},{},{},{},{:.3f},{:.3f},{:.3f},{},{:.6g},{:.6g},{:.3f},{},{"
                "},{:.3e},"
                "{},{},{},{},{},{},{},{},{:.0f},{:.1f},{},{}\n",
                r.suite, r.op, r.impl, r.shape.name, r.shape.num_heads, r.shape.head_dim,
                r.shape.num_experts, r.shape.expert_dim, r.shape.num_tokens, r.shape.top_k, l2,
                q.median_us, q.p10_us, q.p90_us, q.num_samples, r.cost.flops, r.cost.bytes,
                roofline_us(r.cost, ceilings), r.workspace_bytes, r.check.passed ? "ok" : "failed",
                r.check.error, r.clocks.sm_mhz, r.clocks.memory_mhz, r.clocks.power_w,
                r.clocks.temperature_c, r.clocks.throttle, device.name, device.driver,
                device.cuda_runtime, 1e-9 * ceilings.bytes_per_second,
                1e-12 * ceilings.flops_per_second, device.date_utc, without_commas(r.check.detail));
        };
        if (!r.timing) {
            row("none", {});
            continue;
        }
        row("cold", r.timing->cold);
        row("hot", r.timing->hot);
    }
}

}  // namespace headway::kernels::bench
