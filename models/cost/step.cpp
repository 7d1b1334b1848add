#include "models/cost/step.hpp"

#include <algorithm>
#include <cmath>
#include <variant>

namespace headway::inline cost {
namespace {

Price price_phase(const PhaseWork& phase, PriceBook& book, double weight, double fraction) {
    if (const auto* compute = std::get_if<ComputeWork>(&phase.work)) {
        // A phase recomputed in backward is a forward kernel: it is priced as such where it was
        // built that way.
        return book.compute(*compute, phase.pass, weight, fraction);
    }
    if (const auto* exchange = std::get_if<ExchangeWork>(&phase.work))
        return book.exchange(*exchange, weight, fraction);
    if (const auto* counts = std::get_if<CountExchangeWork>(&phase.work))
        return book.count_exchange(*counts, weight);
    return book.reduce(std::get<ReduceWork>(phase.work), weight);
}

PhaseTime timed(const PhaseWork& phase, const Price& price) {
    return {&phase, price.time, Seconds{}, price.sigma, price.bottleneck};
}

// c chunks: the in exchange of chunk i+1 and the out exchange of chunk i-1 share the network while
// chunk i computes.
//   T = D + max(X (1 + (c-1) s), (c-1)(D + C)) + C,  D, X, C of one chunk and X summed c times, s
//   the overlap slowdown.
void price_pipeline(const std::vector<PhaseWork>& phases, const std::array<int, 2>& range,
                    int chunks, double slowdown, double weight, PriceBook& book,
                    std::vector<PhaseTime>& out) {
    const double c = chunks, fraction = 1.0 / c;
    const std::size_t first = out.size();
    Seconds exchange, compute;
    for (int i = range[0]; i < range[1]; ++i) {
        const PhaseWork& phase = phases[static_cast<std::size_t>(i)];
        PhaseTime t = timed(phase, price_phase(phase, book, weight * c, fraction));
        const bool is_compute = std::holds_alternative<ComputeWork>(phase.work);
        t.time *= is_compute ? 1.0 + (c - 1.0) * slowdown : c;
        t.sigma *= c;
        (is_compute ? compute : exchange) += t.time;
        out.push_back(t);
    }
    const Seconds ends = exchange / c;  // the first in and the last out
    const Seconds exposed = ends + max(Seconds{}, (c - 1.0) / c * exchange - compute);
    const double share = exchange > Seconds{} ? exposed / exchange : 1.0;
    for (std::size_t i = first; i < out.size(); ++i) {
        if (std::holds_alternative<ComputeWork>(out[i].work->work)) continue;
        out[i].hidden = (1.0 - share) * out[i].time;
        out[i].time *= share;
    }
}

std::vector<PhaseTime> price_pass(const std::vector<PhaseWork>& phases,
                                  const std::array<int, 2>& pipeline, const Workload& workload,
                                  double slowdown, double weight, PriceBook& book) {
    std::vector<PhaseTime> times;
    times.reserve(phases.size());
    const bool chunked = workload.overlap_chunks > 1 && pipeline[1] > pipeline[0];
    for (int i = 0; i < static_cast<int>(phases.size()); ++i) {
        if (chunked && i == pipeline[0]) {
            price_pipeline(phases, pipeline, workload.overlap_chunks, slowdown, weight, book,
                           times);
            i = pipeline[1] - 1;
            continue;
        }
        const PhaseWork& phase = phases[static_cast<std::size_t>(i)];
        times.push_back(timed(phase, price_phase(phase, book, weight, 1.0)));
    }
    return times;
}

void accumulate(StepTime& step, const std::vector<PhaseTime>& times, int count) {
    for (const PhaseTime& t : times) {
        PhaseTotal& total = step.phases[static_cast<std::size_t>(t.work->phase)]
                                       [static_cast<std::size_t>(t.work->pass)];
        total.count += count;
        total.time += count * t.time;
        total.hidden += count * t.hidden;
        total.sigma += count * t.sigma;
        total.bytes += count * phase_bytes(*t.work);
        total.flops += count * phase_flops(*t.work);
        if (t.time + t.hidden >= total.slowest) {
            total.slowest = t.time + t.hidden;
            total.bottleneck = t.bottleneck;
        }
        step.total += count * t.time;
    }
}

Seconds sum(const std::vector<PhaseTime>& times) {
    Seconds total;
    for (const PhaseTime& t : times) total += t.time;
    return total;
}

Seconds moe_part(const std::vector<PhaseTime>& times) {
    Seconds total;
    for (const PhaseTime& t : times) total += is_moe_part(t.work->phase) ? t.time : Seconds{};
    return total;
}

// Reductions hide behind the last micro-batch's backward pass but for their last bucket; compute
// under them slows down.
void hide_reductions(StepTime& step, Seconds window, double slowdown) {
    for (PhaseTime& t : step.update) {
        const auto* reduce = std::get_if<ReduceWork>(&t.work->work);
        if (reduce == nullptr || !reduce->overlaps_backward) continue;
        const Seconds last_bucket = t.time / reduce->num_buckets;
        const Seconds hidden = min(t.time - last_bucket, window);
        window -= hidden;
        t.hidden = hidden;
        t.time = t.time - hidden + (slowdown - 1.0) * hidden;
    }
}

}  // namespace

Bytes phase_bytes(const PhaseWork& phase) {
    Bytes total;
    if (const auto* compute = std::get_if<ComputeWork>(&phase.work)) {
        for (int i = 0; i < compute->num_kernels; ++i)
            total += compute->kernels[static_cast<std::size_t>(i)].bytes;
    } else if (const auto* exchange = std::get_if<ExchangeWork>(&phase.work)) {
        for (Bytes b : exchange->busiest) total += b;
        for (Bytes b : exchange->forward_busiest) total += b;
    } else if (const auto* reduce = std::get_if<ReduceWork>(&phase.work)) {
        const double n = reduce->group_size,
                     passes = reduce->collective == Collective::all_reduce ? 2.0 : 1.0;
        total = passes * (n - 1.0) / n * reduce->bytes;
    }
    return total;
}

Flops phase_flops(const PhaseWork& phase) {
    Flops total;
    if (const auto* compute = std::get_if<ComputeWork>(&phase.work)) {
        for (int i = 0; i < compute->num_kernels; ++i)
            total += compute->kernels[static_cast<std::size_t>(i)].flops;
    }
    return total;
}

StepTime price_step(const Workload& workload, const Profile& profile, PriceBook& book) {
    StepTime step;
    const int micro = workload.num_micro_batches;
    const double slowdown = profile.overheads.overlap_slowdown;
    const std::array<int, 2> none{0, 0};
    step.before = price_pass(workload.before, none, workload, slowdown, micro, book);
    step.after = price_pass(workload.after, none, workload, slowdown, micro, book);
    accumulate(step, step.before, micro);
    accumulate(step, step.after, micro);
    Seconds backward;
    double noise_variance = 0.0;
    int moe_layers = 0;
    for (const LayerWork& layer : workload.layers) {
        const double weight = static_cast<double>(micro) * layer.count;
        LayerTime t{.forward = price_pass(layer.forward, layer.forward_pipeline, workload, slowdown,
                                          weight, book),
                    .backward = price_pass(layer.backward, layer.backward_pipeline, workload,
                                           slowdown, weight, book)};
        t.forward_total = sum(t.forward);
        t.backward_total = sum(t.backward);
        backward += layer.count * t.backward_total;
        accumulate(step, t.forward, micro * layer.count);
        accumulate(step, t.backward, micro * layer.count);
        if (layer.is_moe) {
            const Seconds forward_moe = moe_part(t.forward), backward_moe = moe_part(t.backward);
            step.moe_forward += layer.count * forward_moe;
            step.moe_backward += layer.count * backward_moe;
            moe_layers += layer.count;
            // The busiest rank's load varies from layer to layer; independent draws add up in
            // quadrature.
            const double swing = layer.noise * (forward_moe + backward_moe).in(second);
            noise_variance += weight * swing * swing;
        }
        step.layers.push_back(std::move(t));
    }
    book.add_independent_sigma(std::sqrt(noise_variance));
    if (moe_layers > 0) {
        step.moe_forward = step.moe_forward / moe_layers;
        step.moe_backward = step.moe_backward / moe_layers;
    }
    step.update = price_pass(workload.update, none, workload, slowdown, 1.0, book);
    hide_reductions(step, backward, slowdown);
    accumulate(step, step.update, 1);
    return step;
}

}  // namespace headway::inline cost
