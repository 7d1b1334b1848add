// What belongs to no single operation: shapes that must be refused with a message, and layers that
// get no tokens at all. Check only.
#include <algorithm>
#include <functional>
#include <stdexcept>

#include "kernels/adamw/adamw.hpp"
#include "kernels/bench/device.hpp"
#include "kernels/bench/registry.hpp"
#include "kernels/block/block.hpp"
#include "kernels/combine/combine.hpp"
#include "kernels/grouped_gemm/ep_experts.hpp"
#include "kernels/permute/maps.hpp"
#include "kernels/permute/permute.hpp"

namespace headway::kernels::bench {
namespace {

struct Refusal {
    const char* what;
    std::function<void()> call;
};

ExpertShape expert_shape(int width, int hidden, Activation activation) {
    return {128, 128, 4, width, hidden, activation};
}

std::vector<Refusal> refusals() {
    const auto route = [](RouterImpl impl, const RouterShape& shape) {
        return [=] { router_forward(impl, shape, {}, {}, nullptr, nullptr); };
    };
    const auto forward = [](ExpertImpl impl, const ExpertShape& shape) {
        return [=] { experts_forward(impl, shape, {}, {}, nullptr, nullptr, nullptr); };
    };
    const auto backward = [](ExpertImpl impl, const ExpertShape& shape) {
        return
            [=] { experts_backward(impl, shape, {}, {}, nullptr, nullptr, {}, nullptr, nullptr); };
    };
    const auto spread = [](const SpreadShape& shape) {
        return [=] {
            spread_rows(PermuteImpl::vectorised, shape, {},
                        static_cast<const __nv_bfloat16*>(nullptr), nullptr, nullptr);
        };
    };
    return {
        {"k > E", route(RouterImpl::fused, {1, 64, 64, 8, 9})},
        {"k = 0", route(RouterImpl::fused, {1, 64, 64, 8, 0})},
        {"k > 32", route(RouterImpl::reference, {1, 64, 64, 64, 33})},
        {"fused router at d = 96", route(RouterImpl::fused, {1, 64, 96, 8, 2})},
        {"grouping with k > E",
         [] {
             count_choices({1, 64, 8, 9}, nullptr, nullptr, nullptr);
         }},
        {"2^31 rows",
         [] {
             count_choices({4, 1 << 26, 128, 8}, nullptr, nullptr, nullptr);
         }},
        {"hopper experts at d = 96",
         forward(ExpertImpl::hopper, expert_shape(96, 64, Activation::gelu_erf))},
        {"portable experts at f = 100",
         forward(ExpertImpl::portable, expert_shape(64, 100, Activation::gelu_erf))},
        {"hopper SwiGLU backward at f = 96",
         backward(ExpertImpl::hopper, expert_shape(256, 96, Activation::swiglu))},
        {"combine at k = 33",
         [] {
             combine_forward({1, 8, 64, 33}, nullptr, nullptr, nullptr, nullptr, nullptr);
         }},
        {"rows of 12 elements", spread({8, 1, 12})},
        {"fan-out of 33", spread({8, 33, 64})},
        {"sort by 1025 keys",
         [] {
             key_sort({8, max_sort_keys + 1}, nullptr, nullptr, nullptr, nullptr, nullptr);
         }},
        {"AdamW step 0",
         [] {
             adamw_step(AdamWImpl::fused, {.step = 0}, {}, static_cast<const float*>(nullptr), 1.0f,
                        nullptr);
         }},
        {"hopper head products at d_h = 96",
         [] {
             HeadGemms(HeadImpl::hopper, nullptr, {128, 192, 2, 96});
         }},
        {"norm of 12 columns",
         [] {
             rms_norm_forward({8, 12}, {}, nullptr);
         }},
        {"attention heads of 20",
         [] {
             (void)make_attention(AttentionImpl::cublaslt, nullptr, {1, 16, 2, 20});
         }},
        {"block whose parts differ",
         [] {
             TransformerBlock(nullptr, {},
                              {.attention = {1, 16, 1, 64}, .layer = {2, 16, 64, 8, 64, 2}},
                              nullptr);
         }},
    };
}

CheckResult check_refusals() {
    CheckResult result{.passed = true, .error = 0, .detail = ""};
    const std::vector<Refusal> all = refusals();
    for (const Refusal& one : all) {
        bool refused = false;
        try {
            one.call();
        } catch (const std::invalid_argument& error) {
            refused = std::string(error.what()).size() > 10;
        } catch (const std::exception&) {
        }
        if (refused) continue;
        result.passed = false;
        result.detail += text_of(" [%s]", one.what);
    }
    if (result.passed) result.detail = text_of("%zu refused with a message", all.size());
    return result;
}

template <typename T>
bool all_zero(const DeviceBuffer<T>& buffer) {
    for (const T value : buffer.to_host())
        if (!(float(value) == 0.0f)) return false;
    return true;
}

/// No sub-token, so no row: the weight gradients must be written, as zeros.
bool hp_layer_without_tokens(ExpertImpl experts) {
    const HpLayerShape shape{2, 0, 64, 16, 64, 3};
    const HpLayerImpl impl{RouterImpl::fused, experts};
    const HpLayerMemory memory = hp_layer_memory(impl, shape);
    const DeviceBuffer<unsigned char> saved(memory.saved + 1),
        workspace(std::max(memory.forward_workspace, memory.backward_workspace) + 1);
    const std::size_t weights = std::size_t(2) * 16 * 64 * 64;
    const auto w1 = random_normal<bf16>(weights, 1.0f, 1),
               w2 = random_normal<bf16>(weights, 1.0f, 2);
    const auto router = random_normal<float>(std::size_t(2) * 16 * 64, 1.0f, 3);
    DeviceBuffer<float> dw1(weights), dw2(weights), drouter(router.size());
    for (DeviceBuffer<float>* one : {&dw1, &dw2, &drouter}) one->poison();
    const HpLayerParameters parameters{{w1.get(), w2.get()}, router.get(), nullptr};
    hp_layer_forward(impl, shape, parameters, nullptr, nullptr, saved.get(), workspace.get(),
                     nullptr);
    hp_layer_backward(impl, shape, parameters, nullptr, nullptr,
                      {nullptr, dw1.get(), dw2.get(), drouter.get()}, saved.get(), workspace.get(),
                      nullptr);
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    return all_zero(dw1) && all_zero(dw2) && all_zero(drouter);
}

/// A rank that receives nothing; its buffers have room for some rows.
bool ep_experts_without_rows() {
    constexpr int kExperts = 4, kWidth = 128, kHidden = 64, kRoom = 32;
    DeviceBuffer<int> offsets(kExperts + 1);
    offsets.zero();
    const auto x = random_normal<bf16>(std::size_t(kRoom) * kWidth, 1.0f, 4);
    const std::size_t weights = std::size_t(kExperts) * kWidth * kHidden;
    const auto w1 = random_normal<bf16>(weights, 1.0f, 5),
               w2 = random_normal<bf16>(weights, 1.0f, 6);
    DeviceBuffer<bf16> pre(std::size_t(kRoom) * kHidden), act(pre.size()), dpre(pre.size()),
        y(x.size()), dx(x.size()), untouched(x.size());
    DeviceBuffer<float> dw1(weights), dw2(weights);
    for (DeviceBuffer<bf16>* one : {&pre, &act, &dpre, &y, &dx, &untouched}) one->poison();
    dw1.poison();
    dw2.poison();
    const EpExperts experts{.num_experts = kExperts,
                            .model_dim = kWidth,
                            .expert_dim = kHidden,
                            .capacity_rows = kRoom,
                            .offsets = offsets.get(),
                            .w1 = w1.get(),
                            .w2 = w2.get()};
    ep_experts_forward(GroupedImpl::hopper, experts, {x.get(), pre.get(), act.get(), y.get()},
                       nullptr);
    ep_experts_backward(
        GroupedImpl::hopper, experts,
        {x.get(), pre.get(), act.get(), x.get(), dpre.get(), dx.get(), dw1.get(), dw2.get()},
        nullptr);
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    return all_zero(dw1) && all_zero(dw2) && bitwise_equal(y.get(), untouched.get(), y.bytes()) &&
           bitwise_equal(dx.get(), untouched.get(), dx.bytes());
}

bool maps_without_items() {
    DeviceBuffer<std::int32_t> offsets(9);
    offsets.poison();
    key_sort({0, 8}, nullptr, nullptr, offsets.get(), nullptr, nullptr);
    spread_rows(PermuteImpl::vectorised, {0, 2, 64}, {}, static_cast<const bf16*>(nullptr), nullptr,
                nullptr);
    collect_rows(PermuteImpl::vectorised, {0, 2, 64}, {}, nullptr, static_cast<bf16*>(nullptr),
                 nullptr);
    dedup_keys({0, 2, 4, 8}, nullptr, nullptr, nullptr);
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    return all_zero(offsets);
}

CheckResult check_no_tokens() {
    std::string wrong;
    const auto require = [&](bool ok, const char* what) {
        if (!ok) wrong += std::string(" ") + what;
    };
    require(hp_layer_without_tokens(ExpertImpl::hopper), "hp_layer/hopper");
    require(hp_layer_without_tokens(ExpertImpl::portable), "hp_layer/portable");
    require(ep_experts_without_rows(), "ep_experts");
    require(maps_without_items(), "maps");
    return {
        .passed = wrong.empty(),
        .error = 0,
        .detail = wrong.empty() ? "zero weight gradients, nothing else written" : "wrong:" + wrong};
}

}  // namespace

void register_edges_cases(Registry& registry) {
    const auto add = [&](const char* op, CheckResult (*check)()) {
        registry.push_back({.suite = "moe",
                            .op = op,
                            .impl = "all",
                            .make =
                                [check](const Shape&) {
                                    Case made;
                                    made.check = [check](cudaStream_t) { return check(); };
                                    made.run = [](cudaStream_t) {};
                                    return std::optional(made);
                                },
                            .shapes = {{"edge", 1, 64, 8, 64, 1, 1}},
                            .timed = false});
    };
    add("refused_shapes", check_refusals);
    add("no_tokens", check_no_tokens);
}

}  // namespace headway::kernels::bench
