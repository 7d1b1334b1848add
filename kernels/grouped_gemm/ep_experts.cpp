#include "kernels/grouped_gemm/ep_experts.hpp"

#include <stdexcept>

#include "kernels/grouped_gemm/cublas.hpp"

namespace headway::kernels {
namespace {

struct Backend {
    GroupedImpl impl;
    const EpExperts& experts;
    cudaStream_t stream;

    cublasHandle_t handle() const { return static_cast<cublasHandle_t>(experts.cublas_handle); }
    void operator()(const GroupedForward& call) const {
        if (impl == GroupedImpl::reference) return grouped_forward_reference(call, stream);
        if (impl == GroupedImpl::hopper) return grouped_forward_hopper(call, stream);
        grouped_forward_cublas(handle(), call, *experts.host_offsets, stream);
    }
    void operator()(const GroupedDgrad& call) const {
        if (impl == GroupedImpl::reference) return grouped_dgrad_reference(call, stream);
        if (impl == GroupedImpl::hopper) return grouped_dgrad_hopper(call, stream);
        grouped_dgrad_cublas(handle(), call, *experts.host_offsets, stream);
    }
    void operator()(const GroupedWgrad& call) const {
        if (impl == GroupedImpl::reference) return grouped_wgrad_reference(call, stream);
        if (impl == GroupedImpl::hopper) return grouped_wgrad_hopper(call, stream);
        grouped_wgrad_cublas(handle(), call, *experts.host_offsets, stream);
    }
};

GroupedShape shape_of(const EpExperts& e, int n, int k) {
    return {.num_groups = e.num_experts,
            .n = n,
            .k = k,
            .capacity_rows = e.capacity_rows,
            .offsets = e.offsets,
            .num_sms = e.num_sms};
}

void check(GroupedImpl impl, const EpExperts& e) {
    if (e.activation == GroupedActivation::none)
        throw std::invalid_argument("EP experts: the activation is gelu_erf, gelu_tanh or swiglu");
    if (impl == GroupedImpl::cublas && (e.cublas_handle == nullptr || e.host_offsets == nullptr))
        throw std::invalid_argument(
            "EP experts: cublas needs a handle and the offsets on the host");
}

}  // namespace

void ep_experts_forward(GroupedImpl impl, const EpExperts& e, const EpExpertsForward& call,
                        cudaStream_t stream) {
    check(impl, e);
    const Backend run{impl, e, stream};
    run(GroupedForward{.shape = shape_of(e, e.hidden_rows(), e.model_dim),
                       .a = call.x,
                       .w = e.w1,
                       .c = call.act,
                       .pre = call.pre,
                       .activation = e.activation});
    run(GroupedForward{
        .shape = shape_of(e, e.model_dim, e.expert_dim), .a = call.act, .w = e.w2, .c = call.y});
}

void ep_experts_backward(GroupedImpl impl, const EpExperts& e, const EpExpertsBackward& call,
                         cudaStream_t stream) {
    check(impl, e);
    const Backend run{impl, e, stream};
    const GroupedShape first = shape_of(e, e.hidden_rows(), e.model_dim);
    const GroupedShape second = shape_of(e, e.model_dim, e.expert_dim);
    run(GroupedDgrad{.shape = second,
                     .dc = call.dy,
                     .w = e.w2,
                     .da = call.dpre,
                     .pre = call.pre,
                     .activation = e.activation});
    run(GroupedWgrad{.shape = second,
                     .dc = call.dy,
                     .a = call.act,
                     .dw_fp32 = call.dw2,
                     .accumulate = call.accumulate});
    run(GroupedDgrad{.shape = first, .dc = call.dpre, .w = e.w1, .da = call.dx});
    run(GroupedWgrad{.shape = first,
                     .dc = call.dpre,
                     .a = call.x,
                     .dw_fp32 = call.dw1,
                     .accumulate = call.accumulate});
}

}  // namespace headway::kernels
