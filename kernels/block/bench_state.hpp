// A block with its parameters, inputs, outputs and memory, as its checks and timings run it.
#pragma once

#include <cmath>

#include "kernels/adamw/adamw.hpp"
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

struct BlockState {
    BlockShape shape;
    BlockLayout layout;
    BlockLibrary library;
    TransformerBlock block;
    std::size_t elements, parameters;
    DeviceBuffer<bf16> x, delta, dy, h, m, dx, rounded;
    DeviceBuffer<float> master, gradients, first, second;
    DeviceBuffer<unsigned char> saved, workspace;

    BlockState(const BlockBenchImpl& impl, const BlockShape& s, bool optimizer)
        : shape(s),
          layout(block_layout(s)),
          block(library.get(), impl.block, s,
                make_attention(impl.attention, library.get(), s.attention)),
          elements(std::size_t(s.num_tokens()) * std::size_t(s.width())),
          parameters(std::size_t(layout.total)),
          x(random_normal<bf16>(elements, 1.0f, 91)),
          delta(random_normal<bf16>(elements, 0.5f, 92)),
          dy(random_normal<bf16>(elements, 1.0f, 93)),
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
        draw_parameters();
        first.zero();
        second.zero();
        gradients.zero();
        poison();
    }
    void draw_parameters() {
        struct Part {
            std::int64_t begin, end;
            float sigma;
        };
        const float model = 1 / std::sqrt(float(shape.width())),
                    head = 1 / std::sqrt(float(shape.layer.width)),
                    hidden = 1 / std::sqrt(float(shape.layer.hidden));
        const Part parts[] = {{layout.norm1, layout.router, 1.0f},
                              {layout.router, layout.qkv, head},
                              {layout.qkv, layout.w1, model},
                              {layout.w1, layout.w2, head},
                              {layout.w2, layout.total, hidden}};
        std::uint64_t seed = 94;
        for (const Part& part : parts)
            fill_normal(master.get() + part.begin, std::size_t(part.end - part.begin), part.sigma,
                        ++seed);
        // A step at rate 0 on zero states writes the bf16 copies and changes nothing else.
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
};

/// The block at few heads, tokens and experts against fp64 on the host.
CheckResult check_block_against_host(const BlockBenchImpl& impl, const BlockShape& timed);

}  // namespace headway::kernels::bench
