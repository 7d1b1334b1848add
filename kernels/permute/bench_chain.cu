#include "kernels/permute/bench_chain.hpp"

#include <memory>

#include "kernels/bench/device.hpp"
#include "kernels/permute/maps.hpp"
#include "kernels/permute/permute.hpp"

namespace headway::kernels::bench {
namespace {

constexpr auto kImpl = PermuteImpl::vectorised;

// Expert e stands for a factor, exact in bf16: y = factor(e) x.
__host__ __device__ float factor(int expert) {
    return 1.0f + float(expert % 16) * 0.0625f;
}

__global__ void expert_kernel(const std::int32_t* offsets, int num_experts, int width, bf16* rows) {
    const std::int64_t row = blockIdx.x;
    int expert = 0;
    while (expert + 1 < num_experts && offsets[expert + 1] <= row) ++expert;
    for (int i = int(threadIdx.x); i < width; i += int(blockDim.x))
        rows[row * width + i] =
            __float2bfloat16(factor(expert) * __bfloat162float(rows[row * width + i]));
}

/// y[t] = x[t] sum_j gate[t,j] factor(e_j), in fp64.
__global__ void expected_kernel(SpreadShape s, const bf16* x, const std::int32_t* index,
                                const float* gate, double* y) {
    const std::int64_t row = blockIdx.x;
    double sum = 0;
    for (int j = 0; j < s.fan_out; ++j)
        sum += double(gate[row * s.fan_out + j]) * factor(index[row * s.fan_out + j]);
    for (int i = int(threadIdx.x); i < s.width; i += int(blockDim.x))
        y[row * s.width + i] = sum * __bfloat162float(x[row * s.width + i]);
}

struct Sorted {
    KeySortShape shape;
    DeviceBuffer<std::int32_t> place, offsets;
    DeviceBuffer<char> workspace;
    Sorted(std::size_t items, int keys)
        : shape{std::int64_t(items), keys},
          place(items),
          offsets(std::size_t(keys) + 1),
          workspace(key_sort_workspace_bytes(shape)) {}
    void run(const std::int32_t* keys) const {
        key_sort(shape, keys, place.get(), offsets.get(), workspace.get(), nullptr);
        HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    }
};

/// The records' local experts as keys over all ranks: copies lie by destination rank.
DeviceBuffer<std::int32_t> global_keys(const DedupShape& s, const Sorted& copies,
                                       const DeviceBuffer<std::int32_t>& record,
                                       std::size_t num_copies) {
    std::vector<std::int32_t> keys = record.to_host();
    keys.resize(num_copies * std::size_t(s.top_k));
    const std::vector<std::int32_t> offsets = copies.offsets.to_host();
    int rank = 0;
    for (std::size_t i = 0; i < keys.size(); ++i) {
        while (std::int32_t(i / std::size_t(s.top_k)) >= offsets[rank + 1]) ++rank;
        if (keys[i] >= 0) keys[i] += rank * s.experts_per_rank;
    }
    DeviceBuffer<std::int32_t> out(keys.size());
    out.from_host(keys);
    return out;
}

CheckResult check_chain(const Shape& shape, int num_ranks,
                        const std::vector<std::int32_t>& chosen) {
    const int k = shape.top_k, width = shape.head_dim;
    const DedupShape dedup{shape.num_tokens, k, num_ranks, shape.num_experts / num_ranks};
    const std::size_t pairs = chosen.size();
    DeviceBuffer<std::int32_t> index(pairs), key(pairs), record(pairs * k);
    DeviceBuffer<float> gate(pairs), record_gate(pairs * k);
    index.from_host(chosen);
    fill_uniform(gate.get(), pairs, 0.0f, 1.0f, 37);
    const auto x = random_normal<bf16>(std::size_t(shape.num_tokens) * width, 1.0f, 38);

    Sorted copies(pairs, num_ranks);
    dedup_keys(dedup, index.get(), key.get(), nullptr);
    copies.run(key.get());
    dedup_records(dedup, index.get(), gate.get(), copies.place.get(), record.get(),
                  record_gate.get(), nullptr);
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    const auto num_copies = std::size_t(copies.offsets.to_host().back());
    DeviceBuffer<bf16> sent(num_copies * width), returned(sent.size()), rows(pairs * width),
        y(x.size());
    for (DeviceBuffer<bf16>* one : {&sent, &returned, &rows, &y}) one->poison();
    const SpreadShape at_source{shape.num_tokens, k, width};
    const SpreadShape at_experts{std::int64_t(num_copies), k, width};
    spread_rows(kImpl, at_source, {.place = copies.place.get()}, x.get(), sent.get(), nullptr);
    Sorted by_expert(num_copies * k, shape.num_experts);
    const DeviceBuffer<std::int32_t> keys = global_keys(dedup, copies, record, num_copies);
    by_expert.run(keys.get());
    spread_rows(kImpl, at_experts, {.place = by_expert.place.get()}, sent.get(), rows.get(),
                nullptr);
    expert_kernel<<<unsigned(pairs), 128>>>(by_expert.offsets.get(), shape.num_experts, width,
                                            rows.get());
    check_launch();
    collect_rows(kImpl, at_experts, {.place = by_expert.place.get(), .weight = record_gate.get()},
                 rows.get(), returned.get(), nullptr);
    collect_rows(kImpl, at_source, {.place = copies.place.get()}, returned.get(), y.get(), nullptr);
    DeviceBuffer<double> expected(y.size());
    expected_kernel<<<unsigned(shape.num_tokens), 128>>>(at_source, x.get(), index.get(),
                                                         gate.get(), expected.get());
    check_launch();
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    const double error = relative_l2(y.get(), expected.get(), y.size());
    const bool all_rows = std::size_t(by_expert.offsets.to_host().back()) == pairs;
    // Three roundings to bf16: rows, a rank's sum, the whole.
    return {.passed = error < 5e-3 && all_rows,
            .error = error,
            .detail = text_of("rel L2 to fp64; %zu copies for %zu choices%s", num_copies, pairs,
                              all_rows ? "" : " ROWS LOST")};
}

}  // namespace

Case make_dedup_chain(const Shape& shape, int num_ranks, std::vector<std::int32_t> index) {
    Case made;
    made.check = [shape, num_ranks, index = std::move(index)](cudaStream_t) {
        return check_chain(shape, num_ranks, index);
    };
    made.run = [](cudaStream_t) {};
    return made;
}

}  // namespace headway::kernels::bench
