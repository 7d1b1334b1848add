#include <cmath>

#include "kernels/bench/device.hpp"
#include "kernels/router/routing_check.hpp"

namespace headway::kernels::bench {

namespace {

struct Sums {
    unsigned long long invalid, different;
    double gate_difference, gate_norm, regret;
};

__device__ void atomic_max(double* address, double value) {
    // Non-negative doubles order as their bits do.
    atomicMax(reinterpret_cast<unsigned long long*>(address),
              static_cast<unsigned long long>(__double_as_longlong(value)));
}

__global__ void judge_kernel(RouterShape shape, RouterInput input, RouterOutput output,
                             Sums* sums) {
    extern __shared__ double score[];  // [E], then the magnitudes [E]
    double* magnitude = score + shape.num_experts;
    __shared__ int num_wrong;
    const int64_t token = blockIdx.x;
    const int64_t first = token / shape.num_tokens * shape.num_experts;
    const int k = shape.top_k;
    for (int e = threadIdx.x; e < shape.num_experts; e += blockDim.x) {
        double sum = 0, absolute = 0;
        for (int i = 0; i < shape.width; ++i) {
            const double term = double(__bfloat162float(input.x[token * shape.width + i])) *
                                input.weights[(first + e) * shape.width + i];
            sum += term, absolute += fabs(term);
        }
        score[e] = sum + (input.bias == nullptr ? 0.0f : input.bias[first + e]);
        magnitude[e] = absolute;
    }
    if (threadIdx.x == 0) num_wrong = 0;
    __syncthreads();
    const int32_t* index = output.index + token * k;
    const float* gate = output.gate + token * k;
    for (int j = threadIdx.x; j < k; j += blockDim.x) {
        const int chosen = index[j];
        bool valid = chosen >= 0 && chosen < shape.num_experts && isfinite(gate[j]);
        for (int i = 0; i < j; ++i) valid = valid && index[i] != chosen;
        if (!valid) {
            atomicAdd(&sums->invalid, 1ull);
            continue;
        }
        int rank = 0;
        for (int e = 0; e < shape.num_experts; ++e)
            rank += score[e] > score[chosen] || (score[e] == score[chosen] && e < chosen);
        if (rank < k) continue;
        atomicAdd(&num_wrong, 1);
        for (int e = 0; e < shape.num_experts; ++e) {  // the k-th best: exactly k - 1 go before it
            int before = 0;
            for (int o = 0; o < shape.num_experts; ++o)
                before += score[o] > score[e] || (score[o] == score[e] && o < e);
            if (before == k - 1)
                atomic_max(&sums->regret, (score[e] - score[chosen]) / magnitude[chosen]);
        }
    }
    __syncthreads();
    if (threadIdx.x != 0) return;
    if (num_wrong > 0) atomicAdd(&sums->different, 1ull);
    double top = -INFINITY, total = 0, difference = 0, norm = 0;
    for (int j = 0; j < k; ++j) {
        if (index[j] < 0 || index[j] >= shape.num_experts) return;
        const double bias = input.bias == nullptr ? 0.0f : input.bias[first + index[j]];
        top = fmax(top, score[index[j]] - bias);
    }
    for (int pass = 0; pass < 2; ++pass)
        for (int j = 0; j < k; ++j) {
            const double bias = input.bias == nullptr ? 0.0f : input.bias[first + index[j]];
            const double weight = exp(score[index[j]] - bias - top);
            if (pass == 0) {
                total += weight;
                continue;
            }
            difference += (gate[j] - weight / total) * (gate[j] - weight / total);
            norm += weight / total * (weight / total);
        }
    atomicAdd(&sums->gate_difference, difference);
    atomicAdd(&sums->gate_norm, norm);
}

}  // namespace

RoutingVerdict judge_routing(const RouterShape& shape, const RouterInput& input,
                             const RouterOutput& output) {
    DeviceBuffer<Sums> sums(1);
    sums.zero();
    const int bytes = int(shape.num_experts * 2 * sizeof(double));
    judge_kernel<<<int(shape.num_subtokens()), 128, bytes>>>(shape, input, output, sums.get());
    check_launch();
    const Sums host = sums.to_host()[0];
    RoutingVerdict verdict{.num_subtokens = shape.num_subtokens(),
                           .num_invalid = long(host.invalid),
                           .num_different_sets = long(host.different),
                           .worst_regret = host.regret,
                           .gate_error = std::sqrt(host.gate_difference / host.gate_norm)};
    if (output.counts != nullptr && host.invalid == 0) {
        DeviceBuffer<int32_t> counts(std::size_t(shape.grouping().num_block_counts()));
        counts.poison();
        count_choices(shape.grouping(), output.index, counts.get(), nullptr);
        verdict.counts_match = bitwise_equal(counts.get(), output.counts, counts.bytes());
    }
    return verdict;
}

}  // namespace headway::kernels::bench
