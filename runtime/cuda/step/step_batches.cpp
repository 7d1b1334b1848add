#include "runtime/cuda/step/step_batches.hpp"

#include <algorithm>
#include <numeric>

#include "kernels/check.hpp"

namespace headway::runtime {
namespace {

const std::int32_t* upload(DeviceArena& arena, const std::vector<std::int32_t>& values,
                           std::int64_t room) {
    auto* at = arena.take<std::int32_t>(room);
    HEADWAY_CUDA_CHECK(cudaMemcpy(at, values.data(), values.size() * sizeof(std::int32_t),
                                  cudaMemcpyHostToDevice));
    return at;
}

}  // namespace

StepBatches::StepBatches(DeviceArena& arena, const StepSetup& setup, const TokenSource& source,
                         int rank, int num_steps)
    : micro_batches_(setup.num_micro_batches) {
    const std::int64_t tokens = setup.tokens();
    for (int batch = 0; batch < num_steps * micro_batches_; ++batch) {
        const StepTokens read = source.of(batch / micro_batches_, batch % micro_batches_, rank);
        std::vector<std::int32_t> order(static_cast<std::size_t>(tokens)), begin;
        std::iota(order.begin(), order.end(), 0);
        const auto token = [&](std::int32_t row) {
            return read.input[static_cast<std::size_t>(row)];
        };
        std::ranges::stable_sort(order, {}, token);
        for (std::size_t i = 0; i < order.size(); ++i) {
            if (i == 0 || token(order[i]) != token(order[i - 1]))
                begin.push_back(static_cast<std::int32_t>(i));
        }
        const int runs = static_cast<int>(begin.size());
        begin.push_back(static_cast<std::int32_t>(tokens));
        batches_.push_back({.input = upload(arena, read.input, tokens),
                            .target = upload(arena, read.target, tokens),
                            .runs = {.num_runs = runs,
                                     .order = upload(arena, order, tokens),
                                     .begin = upload(arena, begin, tokens + 1)}});
    }
}

}  // namespace headway::runtime
