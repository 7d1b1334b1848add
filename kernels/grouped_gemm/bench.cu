// Checks and timings of the grouped GEMM: single products at several tiles, and whole EP experts.
#include "kernels/grouped_gemm/bench_grouped.cuh"

namespace headway::kernels::bench {
namespace {

CheckResult finish(double error, double limit, bool repeatable, bool tail_untouched) {
    std::string detail = "rel L2 vs fp64";
    if (!repeatable) detail += "; NOT bitwise repeatable";
    if (!tail_untouched) detail += "; wrote beyond the last row";
    return {error <= limit && repeatable && tail_untouched, error, detail};
}

// Rows num_rows.. of a poisoned output must still be poison.
bool tail_is_poison(const DeviceBuffer<bf16>& buffer, const Problem& p, int columns) {
    DeviceBuffer<bf16> poison(std::size_t(kTailRows) * columns);
    poison.poison();
    return bitwise_equal(buffer.get() + p.num_rows * columns, poison.get(), poison.bytes());
}

Case forward_case(const Shape& shape, const GroupedProducts& products, GroupedTile tile) {
    auto p = std::make_shared<Problem>(shape);
    auto run = [p, products, tile](cudaStream_t stream) {
        const GroupedForward call{.shape = p->shape(p->f, p->d),
                                  .a = p->x.get(),
                                  .w = p->w1.get(),
                                  .c = p->act.get(),
                                  .tile = tile};
        products.forward(call, p->context(stream));
    };
    auto check = [p, run](cudaStream_t stream) {
        p->act.poison(stream);
        run(stream);
        const Samples samples = sample_rows(p->ragged.host);
        DeviceBuffer<double> expected(std::size_t(samples.count) * p->f);
        oracle_rows<<<samples.count, 256>>>(p->x.get(), false, samples.rows.get(),
                                            samples.groups.get(), p->w1.get(),
                                            std::int64_t{p->f} * p->d, p->d, 1, p->d, p->f,
                                            GroupedActivation::none, nullptr, expected.get());
        check_launch();
        const double error = sampled_error(p->act, samples, p->f, expected);
        const bool tail = tail_is_poison(p->act, *p, p->f);
        return finish(error, 4e-3, repeatable(p->act, run, stream), tail);
    };
    const double rows = double(p->num_rows);
    return {.check = check,
            .run = run,
            .cost = {2 * rows * p->d * p->f, 2 * (rows * (p->d + p->f) + double(p->w1.size()))},
            .capturable = !products.needs_host};
}

// Fused activations of the forward, pre-activation stored too, against the naive kernel.
Case activation_case(const Shape& shape, GroupedActivation activation) {
    auto p = std::make_shared<Problem>(shape);
    auto pre = std::make_shared<DeviceBuffer<bf16>>(p->rows() * p->f);
    const bool gated = activation == GroupedActivation::swiglu;
    const auto call = [p, activation](bf16* c, bf16* pre_out) {
        return GroupedForward{.shape = p->shape(p->f, p->d),
                              .a = p->x.get(),
                              .w = p->w1.get(),
                              .c = c,
                              .pre = pre_out,
                              .activation = activation};
    };
    auto run = [p, pre, call](cudaStream_t stream) {
        grouped_forward_hopper(call(p->act.get(), pre->get()), stream);
    };
    auto check = [p, pre, call, run, gated](cudaStream_t stream) -> CheckResult {
        const std::size_t count = std::size_t(p->num_rows) * (gated ? p->f / 2 : p->f);
        DeviceBuffer<bf16> expected(p->act.size()), expected_pre(pre->size());
        grouped_forward_reference(call(expected.get(), expected_pre.get()), stream);
        p->act.poison(stream);
        pre->poison(stream);
        run(stream);
        HEADWAY_CUDA_CHECK(cudaStreamSynchronize(stream));
        const double error = relative_l2(p->act.get(), expected.get(), count);
        const double pre_error =
            relative_l2(pre->get(), expected_pre.get(), std::size_t(p->num_rows) * p->f);
        const bool ok = error <= 4e-3 && pre_error <= 4e-3 && repeatable(p->act, run, stream);
        return {ok, error, "vs naive fp32; pre " + std::to_string(pre_error)};
    };
    const double rows = double(p->num_rows), out = gated ? 1.5 : 2.0;
    return {
        .check = check,
        .run = run,
        .cost = {2 * rows * p->d * p->f, 2 * (rows * (p->d + out * p->f) + double(p->w1.size()))}};
}

Case dgrad_case(const Shape& shape, const GroupedProducts& products, GroupedTile tile) {
    auto p = std::make_shared<Problem>(shape);
    fill_normal(p->act.get(), p->act.size(), 1.0f, 21);
    auto run = [p, products, tile](cudaStream_t stream) {
        const GroupedDgrad call{.shape = p->shape(p->f, p->d),
                                .dc = p->act.get(),
                                .w = p->w1.get(),
                                .da = p->dx.get(),
                                .tile = tile};
        products.dgrad(call, p->context(stream));
    };
    auto check = [p, run](cudaStream_t stream) {
        p->dx.poison(stream);
        run(stream);
        const Samples samples = sample_rows(p->ragged.host);
        DeviceBuffer<double> expected(std::size_t(samples.count) * p->d);
        oracle_rows<<<samples.count, 256>>>(p->act.get(), false, samples.rows.get(),
                                            samples.groups.get(), p->w1.get(),
                                            std::int64_t{p->f} * p->d, 1, p->d, p->f, p->d,
                                            GroupedActivation::none, nullptr, expected.get());
        check_launch();
        const double error = sampled_error(p->dx, samples, p->d, expected);
        const bool tail = tail_is_poison(p->dx, *p, p->d);
        return finish(error, 4e-3, repeatable(p->dx, run, stream), tail);
    };
    const double rows = double(p->num_rows);
    return {.check = check,
            .run = run,
            .cost = {2 * rows * p->d * p->f, 2 * (rows * (p->d + p->f) + double(p->w1.size()))},
            .capturable = !products.needs_host};
}

Case wgrad_case(const Shape& shape, const GroupedProducts& products, GroupedTile tile, bool fp32) {
    auto p = std::make_shared<Problem>(shape);
    fill_normal(p->act.get(), std::size_t(p->num_rows) * p->f, 1.0f, 22);
    auto dw = std::make_shared<DeviceBuffer<bf16>>(fp32 ? 0 : p->w1.size());
    auto run = [p, dw, products, tile, fp32](cudaStream_t stream) {
        GroupedWgrad call{
            .shape = p->shape(p->f, p->d), .dc = p->act.get(), .a = p->x.get(), .tile = tile};
        if (fp32)
            call.dw_fp32 = p->dw1.get();
        else
            call.dw_bf16 = dw->get();
        products.wgrad(call, p->context(stream));
    };
    auto check = [p, dw, run, fp32](cudaStream_t stream) {
        p->dw1.poison(stream);
        dw->poison(stream);
        run(stream);
        const Samples samples = sample_lines(p->num_groups, p->f);
        DeviceBuffer<double> expected(std::size_t(samples.count) * p->d);
        oracle_lines<<<samples.count, 256>>>(p->act.get(), p->x.get(), p->ragged.offsets.get(),
                                             samples.rows.get(), samples.groups.get(), p->f, p->d,
                                             expected.get());
        check_launch();
        const double error = fp32 ? sampled_error(p->dw1, samples, p->d, expected)
                                  : sampled_error(*dw, samples, p->d, expected);
        const bool same = fp32 ? repeatable(p->dw1, run, stream) : repeatable(*dw, run, stream);
        return finish(error, fp32 ? 1e-3 : 4e-3, same, true);
    };
    const double rows = double(p->num_rows);
    return {.check = check,
            .run = run,
            .cost = {2 * rows * p->d * p->f,
                     2 * rows * (p->d + p->f) + (fp32 ? 4.0 : 2.0) * double(p->w1.size())},
            .capturable = !products.needs_host};
}

struct Variant {
    std::string name;
    GroupedProducts products;
    GroupedTile tile = GroupedTile::automatic;
};

// Every implementation; the Hopper kernel by both of its tiles.
std::vector<Variant> variants() {
    std::vector<Variant> all;
    for (const GroupedProducts& products : kGroupedProducts) {
        if (products.impl != GroupedImpl::hopper) {
            all.push_back({products.name, products});
            continue;
        }
        all.push_back({"hopper-128x256", products, GroupedTile::t128x256});
        all.push_back({"hopper-256x128", products, GroupedTile::t256x128});
    }
    return all;
}

}  // namespace

void register_grouped_gemm_cases(Registry& registry) {
    const auto add = [&](const char* op, const Variant& v, auto make) {
        registry.push_back({.suite = "ep",
                            .op = op,
                            .impl = v.name,
                            .make = [v, make](const Shape& s) -> std::optional<Case> {
                                if (!supported(s, v.products)) return std::nullopt;
                                return make(s);
                            },
                            .shapes = ep_shapes(),
                            .timed = !v.products.is_reference});
    };
    for (const Variant& v : variants()) {
        add("grouped_forward", v,
            [v](const Shape& s) { return forward_case(s, v.products, v.tile); });
        add("grouped_dgrad", v, [v](const Shape& s) { return dgrad_case(s, v.products, v.tile); });
        add("grouped_wgrad_fp32", v,
            [v](const Shape& s) { return wgrad_case(s, v.products, v.tile, true); });
        add("grouped_wgrad_bf16", v,
            [v](const Shape& s) { return wgrad_case(s, v.products, v.tile, false); });
    }
    const Variant automatic{"hopper", grouped_products(GroupedImpl::hopper)};
    add("grouped_gelu_erf", automatic,
        [](const Shape& s) { return activation_case(s, GroupedActivation::gelu_erf); });
    add("grouped_gelu_tanh", automatic,
        [](const Shape& s) { return activation_case(s, GroupedActivation::gelu_tanh); });
    add("grouped_swiglu", automatic,
        [](const Shape& s) { return activation_case(s, GroupedActivation::swiglu); });
    register_ep_experts_cases(registry);
}

}  // namespace headway::kernels::bench
