// The implementations of the grouped products. A new one is a file with its three functions,
// declared in grouped_gemm.hpp, and a row here: whole EP experts, checks and benchmarks go by this
// table.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

#include "kernels/grouped_gemm/cublas.hpp"
#include "kernels/grouped_gemm/grouped_gemm.hpp"

namespace headway::kernels {

enum class GroupedImpl { reference, cublas, hopper };

// What a call runs in; the handle and the offsets on the host are for those that need them.
struct GroupedContext {
    cudaStream_t stream = nullptr;
    cublasHandle_t handle = nullptr;
    const std::vector<int>* host_offsets = nullptr;
};

struct GroupedProducts {
    GroupedImpl impl{};
    const char* name = "";
    void (*forward)(const GroupedForward&, const GroupedContext&) = nullptr;
    void (*dgrad)(const GroupedDgrad&, const GroupedContext&) = nullptr;
    void (*wgrad)(const GroupedWgrad&, const GroupedContext&) = nullptr;
    bool needs_host = false;    // the handle and the host's offsets; hence no CUDA graph
    bool without_pre = true;    // the forward can leave the pre-activation unwritten
    bool gates = true;          // SwiGLU between the products
    bool is_reference = false;  // checked against, on small problems, and never timed
};

inline constexpr std::array kGroupedProducts = {
    GroupedProducts{
        .impl = GroupedImpl::reference,
        .name = "reference",
        .forward = [](const GroupedForward& call,
                      const GroupedContext& c) { grouped_forward_reference(call, c.stream); },
        .dgrad = [](const GroupedDgrad& call,
                    const GroupedContext& c) { grouped_dgrad_reference(call, c.stream); },
        .wgrad = [](const GroupedWgrad& call,
                    const GroupedContext& c) { grouped_wgrad_reference(call, c.stream); },
        .is_reference = true},
    GroupedProducts{.impl = GroupedImpl::cublas,
                    .name = "cublas",
                    .forward =
                        [](const GroupedForward& call, const GroupedContext& c) {
                            grouped_forward_cublas(c.handle, call, *c.host_offsets, c.stream);
                        },
                    .dgrad =
                        [](const GroupedDgrad& call, const GroupedContext& c) {
                            grouped_dgrad_cublas(c.handle, call, *c.host_offsets, c.stream);
                        },
                    .wgrad =
                        [](const GroupedWgrad& call, const GroupedContext& c) {
                            grouped_wgrad_cublas(c.handle, call, *c.host_offsets, c.stream);
                        },
                    .needs_host = true,
                    .without_pre = false,
                    .gates = false},
    GroupedProducts{
        .impl = GroupedImpl::hopper,
        .name = "hopper",
        .forward = [](const GroupedForward& call,
                      const GroupedContext& c) { grouped_forward_hopper(call, c.stream); },
        .dgrad = [](const GroupedDgrad& call,
                    const GroupedContext& c) { grouped_dgrad_hopper(call, c.stream); },
        .wgrad = [](const GroupedWgrad& call,
                    const GroupedContext& c) { grouped_wgrad_hopper(call, c.stream); }}};

constexpr const GroupedProducts& grouped_products(GroupedImpl impl) {
    return kGroupedProducts[static_cast<std::size_t>(impl)];
}
static_assert(grouped_products(GroupedImpl::hopper).impl == GroupedImpl::hopper,
              "rows in the order of GroupedImpl");

}  // namespace headway::kernels
