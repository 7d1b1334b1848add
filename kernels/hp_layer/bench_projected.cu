#include "kernels/hp_layer/bench_projected.hpp"

#include <algorithm>
#include <cmath>
#include <memory>

#include "kernels/bench/device.hpp"
#include "kernels/dense/head_gemm.hpp"
#include "kernels/hp_layer/hp_layer.hpp"

namespace headway::kernels::bench {
namespace {

struct State {
    HpLayerShape layer;
    HeadShape heads;
    HpLayerImpl impl{RouterImpl::fused, ExpertImpl::hopper};
    HeadGemms gemms;
    HpLayerMemory memory;
    std::size_t rows, columns;                                // T, d = H d_h
    DeviceBuffer<bf16> x, dy, project, merge, w1, w2;         // inputs
    DeviceBuffer<float> router;                               //
    DeviceBuffer<bf16> x_heads, o_heads, do_heads, dx_heads;  // between the products
    DeviceBuffer<bf16> y, dx;                                 // outputs
    DeviceBuffer<float> dproject, dmerge, dw1, dw2, drouter;  //
    DeviceBuffer<unsigned char> saved, workspace, gemm_workspace;

    explicit State(const Shape& s)
        : layer{s.num_heads, s.num_tokens, s.head_dim, s.num_experts, s.expert_dim, s.top_k},
          heads{s.num_tokens, s.num_heads * s.head_dim, s.num_heads, s.head_dim},
          gemms(HeadImpl::hopper, nullptr, heads),
          memory(hp_layer_memory(impl, layer)),
          rows(std::size_t(s.num_tokens)),
          columns(std::size_t(heads.model_dim)),
          x(random_normal<bf16>(rows * columns, 1.0f, 51)),
          dy(random_normal<bf16>(rows * columns, 1.0f, 52)),
          project(random_normal<bf16>(columns * columns, 1 / std::sqrt(float(columns)), 53)),
          merge(random_normal<bf16>(columns * columns, 1 / std::sqrt(float(columns)), 54)),
          w1(random_normal<bf16>(weights(s), 1 / std::sqrt(float(s.head_dim)), 43)),
          w2(random_normal<bf16>(weights(s), 1 / std::sqrt(float(s.expert_dim)), 44)),
          router(random_normal<float>(std::size_t(s.num_groups()) * s.head_dim,
                                      1 / std::sqrt(float(s.head_dim)), 45)),
          x_heads(rows * columns),
          o_heads(rows * columns),
          do_heads(rows * columns),
          dx_heads(rows * columns),
          y(rows * columns),
          dx(rows * columns),
          dproject(columns * columns),
          dmerge(columns * columns),
          dw1(w1.size()),
          dw2(w2.size()),
          drouter(router.size()),
          saved(memory.saved),
          workspace(std::max(memory.forward_workspace, memory.backward_workspace)),
          gemm_workspace(gemms.workspace_bytes()) {}

    static std::size_t weights(const Shape& s) {
        return std::size_t(s.num_groups()) * std::size_t(s.expert_dim) * std::size_t(s.head_dim);
    }
    void run(bool backward, cudaStream_t stream) const {
        const HpLayerParameters parameters{{w1.get(), w2.get()}, router.get(), nullptr};
        void* space = gemm_workspace.get();
        gemms.project(x.get(), project.get(), x_heads.get(), space, stream);
        hp_layer_forward(impl, layer, parameters, x_heads.get(), o_heads.get(), saved.get(),
                         workspace.get(), stream);
        gemms.merge(o_heads.get(), merge.get(), y.get(), space, stream);
        if (!backward) return;
        gemms.merge_dgrad(dy.get(), merge.get(), do_heads.get(), space, stream);
        gemms.merge_wgrad(dy.get(), o_heads.get(), dmerge.get(), space, stream);
        hp_layer_backward(impl, layer, parameters, x_heads.get(), do_heads.get(),
                          {dx_heads.get(), dw1.get(), dw2.get(), drouter.get()}, saved.get(),
                          workspace.get(), stream);
        gemms.project_dgrad(dx_heads.get(), project.get(), dx.get(), space, stream);
        gemms.project_wgrad(dx_heads.get(), x.get(), dproject.get(), space, stream);
    }
    void poison() {
        for (DeviceBuffer<bf16>* buffer : {&x_heads, &o_heads, &do_heads, &dx_heads, &y, &dx})
            buffer->poison();
        for (DeviceBuffer<float>* buffer : {&dproject, &dmerge, &dw1, &dw2, &drouter})
            buffer->poison();
    }
    [[nodiscard]] std::size_t bytes() const {
        std::size_t sum = saved.bytes() + workspace.bytes() + gemm_workspace.bytes();
        for (const DeviceBuffer<bf16>* buffer : {&x, &dy, &project, &merge, &w1, &w2, &x_heads,
                                                 &o_heads, &do_heads, &dx_heads, &y, &dx})
            sum += buffer->bytes();
        for (const DeviceBuffer<float>* buffer :
             {&router, &dproject, &dmerge, &dw1, &dw2, &drouter})
            sum += buffer->bytes();
        return sum;
    }
};

/// The layer itself is checked by hp_layer_step. Here each product is compared with cuBLASLt's on
/// the inputs that it had, so that a bf16 flip before the router cannot change the routing.
double worst_product_error(const State& s, bool backward) {
    cublasLtHandle_t handle = nullptr;
    if (cublasLtCreate(&handle) != CUBLAS_STATUS_SUCCESS) throw CudaError("cublasLtCreate failed");
    double worst = 0;
    {
        const HeadGemms library(HeadImpl::library, handle, s.heads);
        const DeviceBuffer<unsigned char> space(library.workspace_bytes());
        DeviceBuffer<bf16> rows(s.rows * s.columns);
        DeviceBuffer<float> weights(s.columns * s.columns);
        const auto compare = [&](const auto& got, const auto& expected) {
            const double error = relative_l2(got.get(), expected.get(), got.size());
            if (!(error <= worst)) worst = error;  // NaN stays
        };
        library.project(s.x.get(), s.project.get(), rows.get(), space.get(), nullptr);
        compare(s.x_heads, rows);
        library.merge(s.o_heads.get(), s.merge.get(), rows.get(), space.get(), nullptr);
        compare(s.y, rows);
        if (backward) {
            library.merge_dgrad(s.dy.get(), s.merge.get(), rows.get(), space.get(), nullptr);
            compare(s.do_heads, rows);
            library.project_dgrad(s.dx_heads.get(), s.project.get(), rows.get(), space.get(),
                                  nullptr);
            compare(s.dx, rows);
            library.merge_wgrad(s.dy.get(), s.o_heads.get(), weights.get(), space.get(), nullptr);
            compare(s.dmerge, weights);
            library.project_wgrad(s.dx_heads.get(), s.x.get(), weights.get(), space.get(), nullptr);
            compare(s.dproject, weights);
        }
        HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    }
    cublasLtDestroy(handle);
    return worst;
}

CheckResult check(State& state, bool backward) {
    state.poison();
    state.run(backward, nullptr);
    const double error = worst_product_error(state, backward);
    return {.passed = error < 4e-3,
            .error = error,
            .detail = "worst product to cuBLASLt on the same inputs"};
}

}  // namespace

std::optional<Case> make_projected(const Shape& s, bool backward) {
    const HpLayerShape layer{s.num_heads,   s.num_tokens, s.head_dim,
                             s.num_experts, s.expert_dim, s.top_k};
    if (!router_supported(RouterImpl::fused, layer.router()) ||
        !experts_backward_supported(ExpertImpl::hopper, layer.experts()))
        return std::nullopt;
    const auto state = std::make_shared<State>(s);
    Case made;
    made.check = [state, backward](cudaStream_t) { return check(*state, backward); };
    made.run = [state, backward](cudaStream_t stream) { state->run(backward, stream); };
    const double rows = double(s.num_rows()), tokens = double(s.num_subtokens());
    const double width = double(s.num_heads) * s.head_dim;
    const double forward_flops = 4 * rows * s.head_dim * s.expert_dim +
                                 2 * tokens * s.head_dim * s.num_experts +
                                 4 * double(s.num_tokens) * width * width;
    const double weight_bytes = double(state->w1.bytes() + state->w2.bytes()) + 4 * width * width;
    made.cost.flops = backward ? 3 * forward_flops : forward_flops;
    made.cost.bytes = 4 * double(s.num_tokens) * width + weight_bytes;
    if (backward) made.cost.bytes += 6 * double(s.num_tokens) * width + 3 * weight_bytes;
    made.workspace_bytes = state->bytes();
    return made;
}

}  // namespace headway::kernels::bench
