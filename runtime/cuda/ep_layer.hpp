// The EP layer of one rank on its GPU, forward and backward, from the kernels: bf16 data, fp32
// gradients of weights. Phases as models/workload names them. A copy per chosen expert
// (Dedup::none), or one per distinct rank with a record of its choices there (Dedup::rank), where
// the destination forms the gated sum over its own experts.
#pragma once

#include <cuda_bf16.h>

#include "kernels/grouped_gemm/ep_experts.hpp"
#include "kernels/permute/maps.hpp"
#include "kernels/permute/permute.hpp"
#include "kernels/router/dense_router.hpp"
#include "runtime/cuda/phase_clock.hpp"
#include "runtime/cuda/row_kernels.hpp"
#include "runtime/layer_setup.hpp"

namespace headway::runtime {

class CudaEpLayer {
  public:
    using bf16 = __nv_bfloat16;
    struct Weights {
        bf16* router = nullptr;             // [E, d]
        bf16 *w1 = nullptr, *w2 = nullptr;  // [own experts, f, d], [own experts, d, f]
    };
    struct Gradients {
        float *router = nullptr, *w1 = nullptr, *w2 = nullptr;
    };

    // Takes weights, gradients and routing from the arena. InputError for what the kernels cannot
    // do. `peers`: the ranks that share the experts, null for all of the context's.
    CudaEpLayer(DeviceContext& context, const LayerSetup& setup, std::int64_t tokens,
                DeviceCommunicator* peers = nullptr);
    ~CudaEpLayer();
    CudaEpLayer(const CudaEpLayer&) = delete;
    CudaEpLayer& operator=(const CudaEpLayer&) = delete;

    const Weights& weights() const { return weights_; }
    const Gradients& gradients() const { return gradients_; }
    // Elements of the three tensors, in the order of Weights.
    std::vector<std::int64_t> sizes() const;

    // x, y, dy, dx are [T, d]. `forced`: chosen experts [T, k], or null. Forward takes what
    // backward needs from the arena; backward, or release(), gives it back.
    void forward(const bf16* x, bf16* y, const std::int32_t* forced);
    void backward(const bf16* x, const bf16* dy, bf16* dx);
    void release();

  private:
    // Of one forward: sizes that only routing tells, and what backward needs.
    struct State {
        std::size_t mark = 0;
        std::vector<std::int64_t> sent, received;  // copies by rank
        std::int64_t num_sent = 0, num_received = 0, num_rows = 0;
        std::int32_t *place = nullptr, *offsets = nullptr;  // of copies at the source [T, k]
        std::int32_t *row_place = nullptr, *row_offsets = nullptr;  // of rows at the experts
        std::int32_t* record_expert = nullptr;                      // rank-dedup: [received, k]
        float* record_gate = nullptr;
        bf16 *returned = nullptr, *rows = nullptr, *pre = nullptr, *act = nullptr,
             *y_rows = nullptr;
    };

    bool alone() const { return num_ranks_ == 1; }
    bool deduplicated() const { return dedup_ == Dedup::rank && !alone(); }
    // Whether received copies must be put into expert order.
    bool regroups() const { return deduplicated() || num_local_ > 1; }
    RowRouting routing_shape() const;
    kernels::EpExperts experts() const;
    kernels::DedupShape dedup_shape() const;
    kernels::SpreadShape copies_at_source() const;
    kernels::SpreadMap source_map(bool weighted) const;
    kernels::SpreadShape copies_at_experts() const;
    kernels::SpreadMap expert_map(bool weighted) const;

    void route_forward(const bf16* x, const std::int32_t* forced);
    void permute_forward(const bf16* x);
    void exchange_counts();
    void exchange_records();
    void exchange(CallSite site, const bf16* from, bf16* to, bool to_experts);
    void return_gate_gradients(const float* record_gradient, float* dgate);

    DeviceContext& context_;
    DeviceCommunicator& peers_;
    int num_ranks_, tokens_, width_, hidden_, num_experts_, num_local_, top_k_;
    Dedup dedup_;
    kernels::GroupedActivation activation_;
    kernels::DenseRouter router_;
    Weights weights_;
    Gradients gradients_;
    std::int32_t* index_ = nullptr;  // [T, k]
    float* gate_ = nullptr;
    std::int32_t* host_counts_ = nullptr;  // pinned
    State state_;
};

}  // namespace headway::runtime
