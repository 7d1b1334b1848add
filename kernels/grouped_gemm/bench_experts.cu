// Whole EP experts, forward and backward, against fp64 chains on sampled rows.
#include "kernels/grouped_gemm/bench_grouped.cuh"

namespace headway::kernels::bench {
namespace {

struct ExpertProblem : Problem {
    explicit ExpertProblem(const Shape& s)
        : Problem(s),
          pre(rows() * f),
          dpre(rows() * f),
          y(rows() * d),
          dy(rows() * d),
          w2(random_normal<bf16>(w1.size(), 1.0f / sqrtf(float(f)), 4)),
          dw2(w1.size()) {
        pre.poison();
        dy.poison();
        fill_normal(dy.get(), std::size_t(num_rows) * d, 1.0f, 6);
    }
    [[nodiscard]] EpExperts experts() const {
        return {.num_experts = num_groups,
                .model_dim = d,
                .expert_dim = f,
                .capacity_rows = std::int64_t(rows()),
                .offsets = ragged.offsets.get(),
                .w1 = w1.get(),
                .w2 = w2.get(),
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
    // Sampled rows through x W1^T, and through the activation when asked.
    void hidden(const Samples& s, GroupedActivation activation, DeviceBuffer<double>& out) const {
        oracle_rows<<<s.count, 256>>>(x.get(), false, s.rows.get(), s.groups.get(), w1.get(),
                                      std::int64_t{f} * d, d, 1, d, f, activation, nullptr,
                                      out.get());
        check_launch();
    }

    DeviceBuffer<bf16> pre, dpre, y, dy, w2;
    DeviceBuffer<float> dw2;
};

double forward_error(const ExpertProblem& p) {
    const Samples s = sample_rows(p.ragged.host);
    DeviceBuffer<double> act(std::size_t(s.count) * p.f), y(std::size_t(s.count) * p.d);
    p.hidden(s, GroupedActivation::gelu_erf, act);
    oracle_rows<<<s.count, 256>>>(act.get(), true, s.rows.get(), s.groups.get(), p.w2.get(),
                                  std::int64_t{p.f} * p.d, p.f, 1, p.f, p.d,
                                  GroupedActivation::none, nullptr, y.get());
    check_launch();
    return sampled_error(p.y, s, p.d, y);
}

double dx_error(const ExpertProblem& p) {
    const Samples s = sample_rows(p.ragged.host);
    DeviceBuffer<double> pre(std::size_t(s.count) * p.f), dpre(pre.size()),
        dx(std::size_t(s.count) * p.d);
    p.hidden(s, GroupedActivation::none, pre);
    oracle_rows<<<s.count, 256>>>(p.dy.get(), false, s.rows.get(), s.groups.get(), p.w2.get(),
                                  std::int64_t{p.f} * p.d, 1, p.f, p.d, p.f,
                                  GroupedActivation::gelu_erf, pre.get(), dpre.get());
    oracle_rows<<<s.count, 256>>>(dpre.get(), true, s.rows.get(), s.groups.get(), p.w1.get(),
                                  std::int64_t{p.f} * p.d, 1, p.d, p.f, p.d,
                                  GroupedActivation::none, nullptr, dx.get());
    check_launch();
    return sampled_error(p.dx, s, p.d, dx);
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
    if (worst == worst) check(p.dpre, p.x, p.f, p.d, p.dw1);
    return worst;
}

Case forward_case(const Shape& shape, GroupedImpl impl, bool save) {
    auto p = std::make_shared<ExpertProblem>(shape);
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
            .cost = {4 * rows * p->d * p->f,
                     4 * rows * p->d + saved * 2 * rows * p->f + 4 * double(p->w1.size())},
            .workspace_bytes = p->act.bytes(),
            .capturable = !grouped_products(impl).needs_host};
}

Case backward_case(const Shape& shape, GroupedImpl impl) {
    auto p = std::make_shared<ExpertProblem>(shape);
    ep_experts_forward(GroupedImpl::cublas, p->experts(), p->forward(true), nullptr);
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
            .cost = {8 * rows * p->d * p->f,
                     2 * rows * (3 * p->d + 2 * p->f) + 12 * double(p->w1.size())},
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
        const GroupedImpl impl = p.impl;
        if (p.without_pre)
            add("ep_experts_inference", p,
                [impl](const Shape& s) { return forward_case(s, impl, false); });
        add("ep_experts_forward", p,
            [impl](const Shape& s) { return forward_case(s, impl, true); });
        add("ep_experts_backward", p, [impl](const Shape& s) { return backward_case(s, impl); });
    }
    // Small problems are skewed: an expert without rows, one with more than half of them.
    const std::vector<Shape> edges = {{"few", 1, 128, 64, 192, 40, 1},
                                      {"odd", 1, 136, 5, 200, 777, 1},
                                      {"one", 1, 64, 1, 64, 1, 1},
                                      {"hot", 1, 256, 16, 128, 1900, 2}};
    for (const bool backward : {false, true})
        registry.push_back({.suite = "ep",
                            .op = backward ? "ep_experts_backward_edge" : "ep_experts_forward_edge",
                            .impl = "hopper",
                            .make = [backward](const Shape& s) -> std::optional<Case> {
                                return backward ? backward_case(s, GroupedImpl::hopper)
                                                : forward_case(s, GroupedImpl::hopper, true);
                            },
                            .shapes = edges,
                            .timed = false});
}

}  // namespace headway::kernels::bench
