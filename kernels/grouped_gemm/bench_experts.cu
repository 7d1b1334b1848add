// Whole EP experts, forward and backward, against fp64 chains on sampled rows.
#include <utility>

#include "kernels/grouped_gemm/bench_grouped.cuh"

namespace headway::kernels::bench {
namespace {

struct ExpertProblem : Problem {
    ExpertProblem(const Shape& s, GroupedActivation act_of)
        : Problem(s, act_of == GroupedActivation::swiglu ? 2 : 1),
          activation(act_of),
          pre(rows() * f1),
          dpre(rows() * f1),
          y(rows() * d),
          dy(rows() * d),
          w2(random_normal<bf16>(std::size_t(num_groups) * d * f, 1.0f / sqrtf(float(f)), 4)),
          dw2(w2.size()) {
        pre.poison();
        dy.poison();
        fill_normal(dy.get(), std::size_t(num_rows) * d, 1.0f, 6);
    }
    [[nodiscard]] bool gated() const { return activation == GroupedActivation::swiglu; }
    [[nodiscard]] EpExperts experts() const {
        return {.num_experts = num_groups,
                .model_dim = d,
                .expert_dim = f,
                .capacity_rows = std::int64_t(rows()),
                .offsets = ragged.offsets.get(),
                .w1 = w1.get(),
                .w2 = w2.get(),
                .activation = activation,
                .cublas_handle = handle.get(),
                .host_offsets = &ragged.host};
    }
    [[nodiscard]] EpExpertsForward forward(bool save) const {
        return {.x = x.get(), .pre = save ? pre.get() : nullptr, .act = act.get(), .y = y.get()};
    }
    [[nodiscard]] EpExpertsBackward backward() const {
        return {.x = x.get(),
                .pre = pre.get(),
                .act = act.get(),
                .dy = dy.get(),
                .dpre = dpre.get(),
                .dx = dx.get(),
                .dw1 = dw1.get(),
                .dw2 = dw2.get()};
    }
    [[nodiscard]] double flops() const { return 2.0 * double(num_rows) * d * (double(f1) + f); }
    [[nodiscard]] double num_weights() const { return double(w1.size() + w2.size()); }

    GroupedActivation activation;
    DeviceBuffer<bf16> pre, dpre, y, dy, w2;
    DeviceBuffer<float> dw2;
};

// Sampled rows of `a` (already those where `gathered`) by W [groups, n, k], or by its transpose.
template <typename In>
DeviceBuffer<double> product(const Samples& s, const In* a, bool gathered,
                             const DeviceBuffer<bf16>& w, int n, int k, bool transposed,
                             GroupedActivation activation = GroupedActivation::none,
                             const double* slope_at = nullptr) {
    const int length = transposed ? n : k, columns = transposed ? k : n;
    DeviceBuffer<double> out(std::size_t(s.count) * columns);
    oracle_rows<<<s.count, 256>>>(a, gathered, s.rows.get(), s.groups.get(), w.get(),
                                  std::int64_t{n} * k, transposed ? 1 : k, transposed ? k : 1,
                                  length, columns, activation, slope_at, out.get());
    check_launch();
    return out;
}

double forward_error(const ExpertProblem& p) {
    const Samples s = sample_rows(p.ragged.host);
    DeviceBuffer<double> act = product(s, p.x.get(), false, p.w1, p.f1, p.d, false,
                                       p.gated() ? GroupedActivation::none : p.activation);
    if (p.gated()) {
        const DeviceBuffer<double> pre = std::move(act);
        act = DeviceBuffer<double>(std::size_t(s.count) * p.f);
        oracle_gate<<<s.count, 256>>>(pre.get(), p.f, act.get());
        check_launch();
    }
    return sampled_error(p.y, s, p.d, product(s, act.get(), true, p.w2, p.d, p.f, false));
}

double dx_error(const ExpertProblem& p) {
    const Samples s = sample_rows(p.ragged.host);
    const DeviceBuffer<double> pre = product(s, p.x.get(), false, p.w1, p.f1, p.d, false);
    DeviceBuffer<double> dpre = product(s, p.dy.get(), false, p.w2, p.d, p.f, true, p.activation,
                                        p.gated() ? nullptr : pre.get());
    if (p.gated()) {
        const DeviceBuffer<double> dact = std::move(dpre);
        dpre = DeviceBuffer<double>(pre.size());
        oracle_gate_slope<<<s.count, 256>>>(pre.get(), dact.get(), p.f, dpre.get());
        check_launch();
    }
    return sampled_error(p.dx, s, p.d, product(s, dpre.get(), true, p.w1, p.f1, p.d, true));
}

// dW from the implementation's own bf16 dpre and act: their errors show in dx and y.
double dw_error(const ExpertProblem& p) {
    double worst = 0;
    const auto check = [&](const DeviceBuffer<bf16>& dc, const DeviceBuffer<bf16>& a, int n, int k,
                           const DeviceBuffer<float>& dw) {
        const Samples s = sample_lines(p.num_groups, n);
        DeviceBuffer<double> expected(std::size_t(s.count) * k);
        oracle_lines<<<s.count, 256>>>(dc.get(), a.get(), p.ragged.offsets.get(), s.rows.get(),
                                       s.groups.get(), n, k, expected.get());
        check_launch();
        const double error = sampled_error(dw, s, k, expected);
        if (!(error <= worst)) worst = error;  // NaN sticks
    };
    check(p.dy, p.act, p.d, p.f, p.dw2);
    if (worst == worst) check(p.dpre, p.x, p.f1, p.d, p.dw1);
    return worst;
}

Case forward_case(const Shape& shape, GroupedImpl impl, GroupedActivation activation,
                  bool save = true) {
    auto p = std::make_shared<ExpertProblem>(shape, activation);
    auto run = [p, impl, save](cudaStream_t stream) {
        ep_experts_forward(impl, p->experts(), p->forward(save), stream);
    };
    auto check = [p, run](cudaStream_t stream) -> CheckResult {
        p->y.poison(stream);
        run(stream);
        const double error = forward_error(*p);
        const bool same = repeatable(p->y, run, stream);
        return {error <= 4e-3 && same, error, same ? "y vs fp64" : "y NOT bitwise repeatable"};
    };
    const double rows = double(p->num_rows), saved = save ? 2.0 : 0.0;
    return {.check = check,
            .run = run,
            .cost = {p->flops(),
                     4 * rows * p->d + saved * rows * (p->f1 + p->f) + 2 * p->num_weights()},
            .workspace_bytes = p->act.bytes(),
            .capturable = !grouped_products(impl).needs_host};
}

Case backward_case(const Shape& shape, GroupedImpl impl, GroupedActivation activation) {
    auto p = std::make_shared<ExpertProblem>(shape, activation);
    ep_experts_forward(p->gated() ? GroupedImpl::hopper : GroupedImpl::cublas, p->experts(),
                       p->forward(true), nullptr);
    auto run = [p, impl](cudaStream_t stream) {
        ep_experts_backward(impl, p->experts(), p->backward(), stream);
    };
    auto check = [p, run](cudaStream_t stream) -> CheckResult {
        p->dx.poison(stream);
        p->dpre.poison(stream);
        p->dw1.poison(stream);
        p->dw2.poison(stream);
        run(stream);
        const double dx = dx_error(*p), dw = dw_error(*p);
        const bool same = repeatable(p->dw1, run, stream) && repeatable(p->dw2, run, stream) &&
                          repeatable(p->dx, run, stream);
        return {dx <= 1e-2 && dw <= 1e-3 && same, dx,
                "dx vs fp64; dW from bf16 factors " + std::to_string(dw) +
                    (same ? "" : "; NOT bitwise repeatable")};
    };
    const double rows = double(p->num_rows);
    return {.check = check,
            .run = run,
            .cost = {2 * p->flops(), 2 * rows * (3 * p->d + p->f1 + p->f) + 6 * p->num_weights()},
            .workspace_bytes = p->dpre.bytes(),
            .capturable = !grouped_products(impl).needs_host};
}

}  // namespace

void register_ep_experts_cases(Registry& registry) {
    const auto add = [&](const char* op, const GroupedProducts& p, auto make) {
        registry.push_back({.suite = "ep",
                            .op = op,
                            .impl = p.name,
                            .make = [p, make](const Shape& s) -> std::optional<Case> {
                                if (!supported(s, p)) return std::nullopt;
                                return make(s);
                            },
                            .shapes = ep_shapes(),
                            .timed = !p.is_reference});
    };
    for (const GroupedProducts& p : kGroupedProducts) {
        constexpr GroupedActivation gelu = GroupedActivation::gelu_erf;
        const GroupedImpl impl = p.impl;
        if (p.without_pre)
            add("ep_experts_inference", p,
                [=](const Shape& s) { return forward_case(s, impl, gelu, false); });
        add("ep_experts_forward", p, [=](const Shape& s) { return forward_case(s, impl, gelu); });
        add("ep_experts_backward", p, [=](const Shape& s) { return backward_case(s, impl, gelu); });
        if (!p.gates) continue;
        constexpr GroupedActivation gated = GroupedActivation::swiglu;
        add("ep_experts_forward_swiglu", p,
            [=](const Shape& s) { return forward_case(s, impl, gated); });
        add("ep_experts_backward_swiglu", p,
            [=](const Shape& s) { return backward_case(s, impl, gated); });
    }
    // Small problems are skewed: an expert without rows, one with more than half of them.
    const std::vector<Shape> edges = {{"few", 1, 128, 64, 192, 40, 1},
                                      {"odd", 1, 136, 5, 200, 777, 1},
                                      {"one", 1, 64, 1, 64, 1, 1},
                                      {"hot", 1, 256, 16, 128, 1900, 2}};
    for (const auto& [activation, suffix] : {std::pair(GroupedActivation::gelu_erf, "_edge"),
                                             std::pair(GroupedActivation::swiglu, "_swiglu_edge")})
        for (const bool backward : {false, true})
            registry.push_back(
                {.suite = "ep",
                 .op =
                     std::string(backward ? "ep_experts_backward" : "ep_experts_forward") + suffix,
                 .impl = "hopper",
                 .make = [=, act = activation](const Shape& s) -> std::optional<Case> {
                     return backward ? backward_case(s, GroupedImpl::hopper, act)
                                     : forward_case(s, GroupedImpl::hopper, act);
                 },
                 .shapes = edges,
                 .timed = false});
}

}  // namespace headway::kernels::bench
