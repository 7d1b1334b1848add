#include "kernels/grouped_gemm/ep_experts.hpp"

#include <stdexcept>
#include <string>

namespace headway::kernels {
namespace {

struct Backend {
    const GroupedProducts& products;
    GroupedContext context;

    Backend(GroupedImpl impl, const EpExperts& e, cudaStream_t stream)
        : products(grouped_products(impl)), context{stream, e.cublas_handle, e.host_offsets} {}
    void operator()(const GroupedForward& call) const { products.forward(call, context); }
    void operator()(const GroupedDgrad& call) const { products.dgrad(call, context); }
    void operator()(const GroupedWgrad& call) const { products.wgrad(call, context); }
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
    const GroupedProducts& products = grouped_products(impl);
    if (products.needs_host && (e.cublas_handle == nullptr || e.host_offsets == nullptr))
        throw std::invalid_argument(std::string("EP experts: ") + products.name +
                                    " needs a handle and the offsets on the host");
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
