// Kernel curves from the CSV that `headway-bench --csv` writes on a GPU: achieved rate on a grid of
// size and width, per kernel kind and pass, of each operation's fastest implementation. A cell that
// several shapes fall into (sizes within 5 %) holds their median; what they scatter around it (a
// dependence the curve does not have, such as the expert width of a fused kernel) is the curve's
// residual.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "models/vocab/profile.hpp"

namespace headway::inline measurements {

// One timed case. Times of the cold-L2 runs; `rows` is tokens * top_k / experts, rows per expert.
struct BenchRow {
    std::string op, implementation;
    double num_heads = 1, head_dim = 0, num_experts = 0, expert_dim = 0, num_tokens = 0, top_k = 0;
    double median_us = 0, flops = 0, bytes = 0;
    std::string device, driver, cuda, date, clock_mhz;
};

// Rows whose check passed and that were timed with a cold L2. InputError: file:line, what is wrong.
std::vector<BenchRow> read_kernel_bench(const std::filesystem::path& file);

// `base` with the curves that `rows` can replace. The provenance names device, driver and CUDA of
// the rows, and says which curves are theirs and which are still the base's.
Profile with_measured_kernels(const Profile& base, const std::vector<BenchRow>& rows);

}  // namespace headway::inline measurements
