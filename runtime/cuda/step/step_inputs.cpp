#include "runtime/cuda/step/step_inputs.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <numeric>

#include "kernels/check.hpp"

namespace headway::runtime {
namespace {

using Words = std::vector<std::int32_t>;
using FactorWords = std::array<std::int32_t, sizeof(kernels::AdamWFactors) / sizeof(std::int32_t)>;

// A batch in memory: input and target [T], order [T] and begin [T + 1] of its runs.
std::int64_t words_of_batch(std::int64_t tokens) {
    return 4 * tokens + 1;
}

StepBatch batch_at(const std::int32_t* at, std::int64_t tokens, int most_runs) {
    return {.input = at,
            .target = at + tokens,
            .runs = {.most_runs = most_runs, .order = at + 2 * tokens, .begin = at + 3 * tokens}};
}

void append_batch(const StepTokens& read, Words& words) {
    Words order(read.input.size()), begin;
    std::iota(order.begin(), order.end(), 0);
    const auto token = [&](std::int32_t row) { return read.input[static_cast<std::size_t>(row)]; };
    std::ranges::stable_sort(order, {}, token);
    for (std::size_t i = 0; i < order.size(); ++i) {
        if (i == 0 || token(order[i]) != token(order[i - 1]))
            begin.push_back(static_cast<std::int32_t>(i));
    }
    begin.resize(order.size() + 1, static_cast<std::int32_t>(order.size()));  // empty runs behind
    const auto append = [&](const Words& part) {
        words.insert(words.end(), part.begin(), part.end());
    };
    append(read.input);
    append(read.target);
    append(order);
    append(begin);
}

kernels::AdamWFactors factors_of(const StepOptimizer& o, int step) {
    return kernels::adamw_factors({.learning_rate = static_cast<float>(o.learning_rate),
                                   .beta1 = static_cast<float>(o.beta1),
                                   .beta2 = static_cast<float>(o.beta2),
                                   .epsilon = static_cast<float>(o.epsilon),
                                   .step = step + 1},
                                  1.0f);
}

std::size_t bytes_of(std::int64_t words) {
    return sizeof(std::int32_t) * static_cast<std::size_t>(words);
}

}  // namespace

StepInputs::StepInputs(DeviceArena& arena, const StepSetup& setup, const TokenSource& source,
                       int rank, int num_steps) {
    const std::int64_t tokens = setup.tokens(), batch = words_of_batch(tokens);
    const std::int64_t of_batches = batch * setup.num_micro_batches;
    words_ = of_batches + static_cast<std::int64_t>(FactorWords{}.size());
    all_ = arena.take<std::int32_t>(words_ * num_steps);
    now_ = arena.take<std::int32_t>(words_);
    const auto most_runs = std::min<std::int64_t>(tokens, setup.model.vocab_size);
    for (int m = 0; m < setup.num_micro_batches; ++m)
        batches_.push_back(batch_at(now_ + m * batch, tokens, static_cast<int>(most_runs)));
    factors_ = reinterpret_cast<const kernels::AdamWFactors*>(now_ + of_batches);
    for (int step = 0; step < num_steps; ++step) {
        Words words;
        for (const StepTokens& read : source.of(step, rank)) append_batch(read, words);
        const auto factors = std::bit_cast<FactorWords>(factors_of(setup.optimizer, step));
        words.insert(words.end(), factors.begin(), factors.end());
        HEADWAY_CUDA_CHECK(cudaMemcpy(all_ + step * words_, words.data(), bytes_of(words_),
                                      cudaMemcpyHostToDevice));
    }
}

void StepInputs::load(int step, cudaStream_t stream) const {
    HEADWAY_CUDA_CHECK(cudaMemcpyAsync(now_, all_ + step * words_, bytes_of(words_),
                                       cudaMemcpyDeviceToDevice, stream));
}

}  // namespace headway::runtime
