// A block with its parameters, inputs, outputs and memory, as its checks and timings run it.
#pragma once

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <vector>

#include "kernels/adamw/adamw.hpp"
#include "kernels/bench/compare.hpp"
#include "kernels/bench/device.hpp"
#include "kernels/bench/registry.hpp"
#include "kernels/block/block.hpp"

namespace headway::kernels::bench {

enum class BlockExtent { forward, step, step_and_adamw };

class BlockLibrary {
  public:
    BlockLibrary() {
        if (cublasLtCreate(&handle_) != CUBLAS_STATUS_SUCCESS)
            throw CudaError("cublasLtCreate failed");
    }
    BlockLibrary(const BlockLibrary&) = delete;
    BlockLibrary& operator=(const BlockLibrary&) = delete;
    ~BlockLibrary() { cublasLtDestroy(handle_); }
    [[nodiscard]] cublasLtHandle_t get() const { return handle_; }

  private:
    cublasLtHandle_t handle_ = nullptr;
};

struct BlockBenchImpl {
    BlockImpl block;
    AttentionImpl attention = AttentionImpl::cublaslt;
};

inline constexpr AdamWStep block_adamw_step{
    .learning_rate = 1e-6f, .weight_decay = 0.1f, .step = 7};

/// A block with either layer and all that its runs read and write.
template <typename Block>
struct BlockBuffers {
    BlockLibrary library;
    Block block;
    std::size_t elements, parameters;
    DeviceBuffer<bf16> x, delta, dy, h, m, dx, rounded;
    DeviceBuffer<float> master, gradients, first, second;
    DeviceBuffer<unsigned char> saved, workspace;

    /// Inputs are drawn from `seed` on; draw() has to give the parameters before a run.
    template <typename Make>
    BlockBuffers(Make make, std::int64_t num_elements, std::int64_t num_parameters, bool optimizer,
                 std::uint64_t seed)
        : block(make(library.get())),
          elements(std::size_t(num_elements)),
          parameters(std::size_t(num_parameters)),
          x(random_normal<bf16>(elements, 1.0f, seed)),
          delta(random_normal<bf16>(elements, 0.5f, seed + 1)),
          dy(random_normal<bf16>(elements, 1.0f, seed + 2)),
          h(elements),
          m(elements),
          dx(elements),
          rounded(parameters),
          master(parameters),
          gradients(parameters),
          first(optimizer ? parameters : 0),
          second(first.size()),
          saved(block.saved_bytes()),
          workspace(block.workspace_bytes()) {
        for (DeviceBuffer<float>* one : {&first, &second, &gradients}) one->zero();
        poison();
    }
    void draw(std::int64_t begin, std::int64_t end, float sigma, std::uint64_t seed) {
        fill_normal(master.get() + begin, std::size_t(end - begin), sigma, seed);
    }
    /// A step at rate 0 on zero states writes the bf16 copies and changes nothing else.
    void round_parameters() {
        DeviceBuffer<float> zero(parameters), m_state(parameters), v_state(parameters);
        for (DeviceBuffer<float>* one : {&zero, &m_state, &v_state}) one->zero();
        adamw_step(
            AdamWImpl::fused, {.learning_rate = 0},
            {std::int64_t(parameters), master.get(), m_state.get(), v_state.get(), rounded.get()},
            zero.get(), 1.0f, nullptr);
        HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    }
    void poison() {
        for (DeviceBuffer<bf16>* one : {&h, &m, &dx}) one->poison();
        saved.poison();
        workspace.poison();
    }
    void run(BlockExtent extent, cudaStream_t stream) const {
        const BlockParameters weights{master.get(), rounded.get()};
        block.forward(weights, x.get(), delta.get(), h.get(), m.get(), saved.get(), workspace.get(),
                      stream);
        if (extent == BlockExtent::forward) return;
        block.backward(weights, h.get(), dy.get(), dx.get(), gradients.get(), saved.get(),
                       workspace.get(), stream);
        if (extent == BlockExtent::step_and_adamw)
            adamw_step(
                AdamWImpl::fused, block_adamw_step,
                {std::int64_t(parameters), master.get(), first.get(), second.get(), rounded.get()},
                gradients.get(), 1.0f, stream);
    }
    [[nodiscard]] std::size_t bytes() const {
        std::size_t sum = saved.bytes() + workspace.bytes();
        for (const DeviceBuffer<bf16>* one : {&x, &delta, &dy, &h, &m, &dx, &rounded})
            sum += one->bytes();
        for (const DeviceBuffer<float>* one : {&master, &gradients, &first, &second})
            sum += one->bytes();
        return sum;
    }
    /// The parameters as a block reads them: masters up to `num_fp32`, bf16 copies from there.
    [[nodiscard]] std::vector<double> parameters_as_read(std::int64_t num_fp32) const {
        std::vector<double> out = host_as<double>(rounded);
        const std::vector<double> masters = host_as<double>(master);
        std::copy(masters.begin(), masters.begin() + num_fp32, out.begin());
        return out;
    }
};

struct BlockState : BlockBuffers<TransformerBlock> {
    BlockShape shape;
    BlockLayout layout;

    BlockState(const BlockBenchImpl& impl, const BlockShape& s, bool optimizer)
        : BlockBuffers(
              [&](cublasLtHandle_t handle) {
                  return TransformerBlock(handle, impl.block, s,
                                          make_attention(impl.attention, handle, s.attention));
              },
              s.num_tokens() * s.width(), block_layout(s).total, optimizer, 91),
          shape(s),
          layout(block_layout(s)) {
        const float model = 1 / std::sqrt(float(shape.width())),
                    head = 1 / std::sqrt(float(shape.layer.width)),
                    hidden = 1 / std::sqrt(float(shape.layer.hidden));
        draw(layout.norm1, layout.router, 1.0f, 95);
        draw(layout.router, layout.qkv, head, 96);
        draw(layout.qkv, layout.w1, model, 97);
        draw(layout.w1, layout.w2, head, 98);
        draw(layout.w2, layout.total, hidden, 99);
        round_parameters();
    }
};

/// Part of the flat array, and its name.
struct BlockPart {
    const char* name;
    std::int64_t begin, end;
};

/// A step against fp64 on the host: y = h + m, and the worst of dx and the parts' gradients.
template <typename Block>
CheckResult compare_step(const BlockBuffers<Block>& s, const HostBlockResult& expected,
                         std::initializer_list<BlockPart> parts) {
    std::vector<double> y = host_as<double>(s.h);
    const std::vector<double> m = host_as<double>(s.m);
    for (std::size_t i = 0; i < y.size(); ++i) y[i] += m[i];
    const double error = relative_error(y.data(), expected.y.data(), y.size());
    WorstError worst;
    worst.add("dx", relative_error(host_as<double>(s.dx).data(), expected.dx.data(), s.elements));
    const std::vector<double> got = host_as<double>(s.gradients);
    for (const BlockPart& part : parts)
        worst.add(part.name,
                  relative_error(got.data() + part.begin, expected.gradients.data() + part.begin,
                                 std::size_t(part.end - part.begin)));
    return {
        .passed = error < 6e-3 && worst.value < 2e-2,
        .error = error,
        .detail = text_of("y to fp64, small; worst gradient %.1e (%s)", worst.value, worst.name)};
}

/// Two runs at full size from poisoned memory give the same bits. The optimizer is left out: it
/// changes what the next run reads.
template <typename Block>
bool repeats(BlockBuffers<Block>& s, BlockExtent extent) {
    const bool backward = extent != BlockExtent::forward;
    const BlockExtent repeated = backward ? BlockExtent::step : extent;
    s.run(repeated, nullptr);
    std::vector<DeviceRange> outputs = {range_of(s.h), range_of(s.m)};
    if (backward) outputs.insert(outputs.end(), {range_of(s.dx), range_of(s.gradients)});
    return same_bits_again(outputs, [&] {
        s.poison();
        s.run(repeated, nullptr);
    });
}

/// Of `forward` FLOPs on tokens [T, d]: backward is twice that.
inline Cost block_cost(double forward, double tokens, double d, double weights,
                       BlockExtent extent) {
    Cost cost{forward, 8 * tokens * d + 2 * weights};
    if (extent != BlockExtent::forward) cost = {3 * forward, 14 * tokens * d + 8 * weights};
    if (extent == BlockExtent::step_and_adamw) cost.bytes += 30 * weights;
    return cost;
}

/// The block at few heads, tokens and experts against fp64 on the host.
CheckResult check_block_against_host(const BlockBenchImpl& impl, const BlockShape& timed);

}  // namespace headway::kernels::bench
