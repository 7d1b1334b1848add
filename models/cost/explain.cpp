#include "models/cost/explain.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <variant>

#include "models/cost/explain_pipeline.hpp"
#include "models/cost/phase_terms.hpp"
#include "models/cost/price.hpp"
#include "models/cost/step.hpp"
#include "models/vocab/error.hpp"
#include "models/vocab/links.hpp"
#include "models/vocab/quantile.hpp"
#include "models/workload/layout.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline cost {
namespace {

std::string time_text(Seconds t) {
    if (t >= ms) return fmt::format("{:.3f} ms", t.in(ms));
    return fmt::format("{:.2f} us", t.in(us));
}

std::string bytes_text(Bytes b) {
    if (b >= GiB) return fmt::format("{:.3f} GiB", b.in(GiB));
    if (b >= MiB) return fmt::format("{:.2f} MiB", b.in(MiB));
    return fmt::format("{:.0f} B", b.in(byte));
}

class Writer {
  public:
    template <class... Args>
    void line(std::string label, fmt::format_string<Args...> format, Args&&... args) {
        explanation_.lines.emplace_back(std::move(label),
                                        fmt::format(format, std::forward<Args>(args)...));
    }
    Explanation take() { return std::move(explanation_); }

  private:
    Explanation explanation_;
};

void explain_kernel(Writer& out, const KernelWork& work, Pass pass, const Profile& profile,
                    const Cluster& cluster, const PriceBook& book, const RowSpread* spread) {
    if (book.is_joined(work)) {
        out.line("gelu", "in an epilogue of the products");
        return;
    }
    const KernelRate rate = book.rate_of(work, pass, 1.0, spread);
    const RateCurve& curve = *rate.curve;
    const Seconds time = book.kernel_time(work, pass, 1.0, spread),
                  launches = work.launches * profile.overheads.launch;
    const std::string remark = fmt::format(
        "{}{}{}", rate.outside ? ", OUTSIDE the measured grid" : "",
        rate.scale < 1.0 ? fmt::format(", times {:.3g}: a slower device", rate.scale) : "",
        rate.capped ? ", CAPPED at the device's peak" : "");
    out.line(std::string(name(book.kernel_of(work))), "{} in {} launch{}", time_text(time),
             work.launches, work.launches == 1 ? "" : "es");
    if (is_byte_rate(work.kernel)) {
        out.line("  work", "{} through memory", bytes_text(work.bytes));
        out.line("  curve point", "size {:.4g} B -> {:.0f} GB/s (grid {:.3g}..{:.3g} B){}",
                 work.size, rate.value / 1e9, curve.size.front(), curve.size.back(), remark);
    } else {
        const std::string weights =
            work.weight_bytes > Bytes{}
                ? fmt::format(", {} of it by the weights' gradient", bytes_text(work.weight_bytes))
                : "";
        out.line("  work", "{:.4g} GFLOP, {} through memory{}", work.flops.in(GFLOP),
                 bytes_text(work.bytes), weights);
        out.line("  curve point",
                 "size {:.4g}, width {:.4g} -> {:.1f} TFLOP/s (sizes {:.3g}..{:.3g}, widths "
                 "{:.3g}..{:.3g}){}",
                 work.size, work.width, rate.value / 1e12, curve.size.front(), curve.size.back(),
                 curve.width.front(), curve.width.back(), remark);
    }
    const Seconds even = book.kernel_time(work, pass);
    if (time > even) {
        out.line("  uneven experts",
                 "{:.3g} to {:.3g} times the mean expert's rows: {:.1f} % more time than even ones",
                 spread->parts[0].size,
                 spread->parts[static_cast<std::size_t>(spread->num_parts - 1)].size,
                 100.0 * (time / even - 1.0));
    }
    if (pass == Pass::backward && !rate.own_backward)
        out.line("  note", "no backward curve in the profile: the forward rate is used");
    const Seconds bound =
        max(work.flops / book.peak(work), work.bytes / cluster.device.memory_bandwidth);
    out.line("  lower bound", "{} (device peak), achieved {:.0f} %", time_text(bound),
             100.0 * (bound / time));
    if (work.stretch != 1.0)
        out.line("  kernel", "{:g} times as long as the curve's", work.stretch);
    out.line("  launch overhead", "{}", time_text(launches));
    out.line("  residual", "{:.0f} %; {}", 100.0 * curve.residual, curve.source);
}

const PhaseCurve* phase_curve(const Profile& profile, const std::optional<PhaseShape>& shape,
                              Pass pass) {
    if (!shape) return nullptr;
    return find_curve(profile, *shape, pass);
}

// The measured curve of a whole phase: t = sum of seconds x term, at this phase's shape.
void explain_phase_curve(Writer& out, const PhaseCurve& curve, const PhaseShape& shape) {
    const std::string widths =
        curve.width == 0 ? "any width" : fmt::format("width {}", curve.width);
    out.line("phase curve", "{} {} ({}) measured as a whole, {}, k {}..{}, on {} multiprocessors",
             kLayerKindNames[static_cast<std::size_t>(curve.layer)], name(curve.phase),
             name(curve.pass), widths, curve.min_top_k, curve.max_top_k, curve.num_multiprocessors);
    for (std::size_t i = 0; i < curve.terms.size(); ++i) {
        if (curve.seconds[i] <= 0.0) continue;
        const double value =
            term_value(curve.terms[i], curve.pass, shape, curve.num_multiprocessors);
        out.line(fmt::format("  {}", kTermNames[static_cast<std::size_t>(curve.terms[i])]),
                 "{:.6g} x {:.4g} ns = {}", value, 1e9 * curve.seconds[i],
                 time_text(value * curve.seconds[i] * second));
    }
    if (const std::optional<Asked> asked = outside(curve, shape)) {
        out.line("  range", "{} {:.6g}: OUTSIDE the measured {:.6g}..{:.6g}", asked->what,
                 asked->value, asked->measured.least, asked->measured.most);
    }
    out.line("  residual", "{:.1f} %: 90 % of held-out layers are within {:.1f} %",
             100.0 * curve.residual, 100.0 * kNinetyPercent * curve.residual);
    out.line("  source", "{}", curve.source);
}

void explain_added(Writer& out, Seconds added) {
    if (added > Seconds{})
        out.line("    added", "{}: latencies of the links on its paths (link_overrides)",
                 time_text(added));
}

void explain_stage(Writer& out, const PathBytes& mean, const PathBytes& busiest,
                   const PathBytes& on_curve, const PathBytes& links, const ExchangeWork& work,
                   const Cluster& cluster, const PriceBook& book) {
    for (std::size_t c = 0; c < mean.size(); ++c) {
        if (busiest[c] <= Bytes{}) continue;
        out.line(fmt::format("  over {}", kPathClassNames[c]),
                 "{} off-rank by the mean rank, {} by the busiest (x{:.3f})", bytes_text(mean[c]),
                 bytes_text(busiest[c]), mean[c] > Bytes{} ? busiest[c] / mean[c] : 1.0);
    }
    const std::vector<PathTime> times = book.path_times(on_curve, mean, links, work.group_size,
                                                        Collective::all_to_all, work.stride);
    const auto slowest = std::max_element(
        times.begin(), times.end(),
        [](const PathTime& a, const PathTime& b) { return a.time + a.added < b.time + b.added; });
    for (auto t = times.begin(); t != times.end(); ++t) {
        const Bandwidth link = link_bandwidth(cluster, t->path);
        out.line(fmt::format("  {} curve", name(t->path)), "{} bytes looked up -> {}{}{}",
                 fmt::format("{:.4g}", t->bytes), time_text(t->time),
                 t->extrapolated ? ", OUTSIDE the measured sizes" : "",
                 t == slowest ? "  <- decides" : "");
        const bool pairwise = t->path == PathClass::nvlink && cluster.has_pairwise_links();
        out.line(
            "    link", "{:.1f} GB/s per rank and direction{}: lower bound {}, achieved {:.0f} %",
            link.in(GB / second),
            pairwise ? fmt::format(", a link of {:.1f} GB/s to each other GPU",
                                   full_bandwidth(cluster, LinkKind::nvlink_pair).in(GB / second))
                     : "",
            time_text(t->bound), 100.0 * (t->bound / t->time));
        if (std::abs(t->link_ratio - 1.0) > 1e-9) {
            const double least = least_link_factor(cluster, t->path);
            out.line(
                "    scaled",
                "measured on a link {:.3g} times as fast as {}: the time above "
                "the floor is scaled by it",
                t->link_ratio,
                least == 1.0 ? "this cluster's" : "the slowest of this cluster's (link_overrides)");
        }
        out.line("    measured", "{} ranks, {:.3g}..{:.3g} B; floor {}; residual {:.0f} %; {}",
                 t->curve->num_ranks, t->curve->bytes.front(), t->curve->bytes.back(),
                 time_text(t->floor), 100.0 * t->curve->residual, t->curve->source);
        explain_added(out, t->added);
    }
}

// The time, and whom the others wait for where ranks differ in speed.
void explain_compute_time(Writer& out, const Scenario& scenario, const Plan& plan,
                          const PhaseWork& phase, int layer, PriceBook& book) {
    const ComputeSpeeds speeds = compute_speeds(scenario.cluster);
    PhaseWork mean = phase;
    if (speeds.differ() && layer >= 0 && scenario.model.is_moe_layer(layer)) {
        const LayerWork work =
            build_moe_layer(scenario, plan, mean_load(expected_load(scenario, plan, layer)), layer);
        for (const auto* phases : {&work.forward, &work.backward})
            for (const PhaseWork& p : *phases)
                if (p.phase == phase.phase && p.pass == phase.pass && p.again == phase.again)
                    mean = p;
    }
    const Seconds last = price_compute({phase, mean}, speeds, book, 1.0, 1.0).time;
    out.line("time", "{}", time_text(last));
    if (!speeds.differ()) return;
    out.line("rank_overrides",
             "the slowest rank computes at {:.3g} times the speed, the median one at {:.3g}: the "
             "others wait for the last of them; at full speed {}",
             speeds.slowest, speeds.median,
             time_text(book.compute_time(std::get<ComputeWork>(phase.work), phase.kernel_pass())));
}

struct Found {
    const PhaseWork* work = nullptr;
    int layer = -1, count = 1;
};

Found find_phase(const Workload& workload, Phase phase, Pass pass) {
    const auto in = [&](const std::vector<PhaseWork>& phases) -> const PhaseWork* {
        const PhaseWork* again = nullptr;  // only where there is no other
        for (const PhaseWork& p : phases) {
            if (p.phase != phase || p.pass != pass) continue;
            if (!p.again) return &p;
            again = &p;
        }
        return again;
    };
    for (const LayerWork& layer : workload.layers) {
        if (const PhaseWork* p = in(pass == Pass::forward ? layer.forward : layer.backward))
            return {p, layer.first_layer, layer.count};
    }
    for (const auto* phases : {&workload.before, &workload.after, &workload.update}) {
        if (const PhaseWork* p = in(*phases)) return {p};
    }
    if (!workload.pipeline) return {};
    // The stage or rank with the most of it decides.
    Found most;
    const PipelineWork& pipeline = *workload.pipeline;
    for (const auto* of_all : {&pipeline.reductions, &pipeline.late_reductions, &pipeline.updates})
        for (const auto& phases : *of_all) {
            const PhaseWork* p = in(phases);
            if (p == nullptr) continue;
            if (most.work == nullptr || phase_bytes(*p) > phase_bytes(*most.work)) most.work = p;
        }
    return most;
}

std::string phases_of(const Workload& workload) {
    std::string text;
    for (int pass = 0; pass < 3; ++pass) {
        for (int phase = 0; phase < kNumPhases; ++phase) {
            if (find_phase(workload, static_cast<Phase>(phase), static_cast<Pass>(pass)).work ==
                nullptr)
                continue;
            text += fmt::format("{}{} ({})", text.empty() ? "" : ", ",
                                kPhaseNames[static_cast<std::size_t>(phase)],
                                kPassNames[static_cast<std::size_t>(pass)]);
        }
    }
    if (workload.pipeline) text += ", pipeline_bubble, pipeline_p2p";
    return text;
}

// How many there are, and how long the shortest and the longest take.
std::string buckets_of(const ReduceWork& reduce, PriceBook& book) {
    std::vector<Seconds> times;
    for (const double share : reduce.buckets) {
        if (share <= 0.0) continue;
        ReduceWork bucket = reduce;
        bucket.bytes = share * reduce.bytes;
        times.push_back(book.reduce(bucket, 1.0).time);
    }
    if (times.empty()) return "one bucket";
    const auto [least, most] = std::ranges::minmax_element(times);
    std::string text = fmt::format("{} buckets of {}", times.size(), time_text(*least));
    if (*most > 1.0001 * *least) text += fmt::format(" to {}", time_text(*most));
    return text;
}

std::string overlap_of(const PhaseWork& phase, const ReduceWork& reduce, PriceBook& book) {
    if (phase.beside == Beside::pass)
        return "beside the pass that it is for, or the one before it: what lasts longer shows";
    if (phase.beside == Beside::next_phase)
        return fmt::format(
            "in {} hops, each beside one of {} parts of the phase behind it: what lasts longer "
            "shows",
            reduce.group_size - 1, reduce.group_size);
    if (phase.beside == Beside::previous_phase)
        return fmt::format(
            "in {} hops, each behind one of {} parts of the phase before it and beside the next",
            reduce.group_size - 1, reduce.group_size);
    if (reduce.hidden_by == HiddenBy::nothing) return "none";
    if (reduce.hidden_by == HiddenBy::first_forward)
        return fmt::format(
            "in {} from the begin of the step on: a layer's first forward waits for "
            "its own; what lasts longer than the forward before it shows",
            buckets_of(reduce, book));
    return fmt::format(
        "in {} beside the last micro-batch's backward: a layer's leaves when its "
        "backward is done, the table's at the end; what lasts longer than the backward shows",
        buckets_of(reduce, book));
}

void explain_host(Writer& out, const Plan& plan, const PhaseWork& phase, const Overheads& o) {
    const auto count = [](double n, std::string_view what, Seconds time) {
        return fmt::format("{:g} {}{} of {}", n, what, n == 1.0 ? "" : "s", time_text(time));
    };
    const std::string_view wait = phase.host_waits ? ", then a wait for the device" : "";
    if (phase.launches > 0.0)
        out.line("host", "{}{}", count(phase.launches, "operation", o.host_launch), wait);
    if (plan.implementation == Implementation::headway && plan.cuda_graph_scope != 0)
        return out.line("host",
                        "in the graph of the step, which the host launches once, in {}; from one "
                        "kernel to the next the device still takes {}, in every phase's time",
                        time_text(o.host_calls[HostCall::kernel]), time_text(o.launch));
    std::vector<std::string> calls;
    for (std::size_t i = 0; i < kNumHostCalls; ++i)
        if (phase.calls.values[i] > 0.0)
            calls.push_back(fmt::format("{:g} x {} at {}", phase.calls.values[i], kHostCallNames[i],
                                        time_text(o.host_calls.values[i])));
    if (!calls.empty()) out.line("host", "{}{}", fmt::join(calls, ", "), wait);
}

void explain_host_work(Writer& out, const HostWork& work, const Cluster& cluster,
                       const Profile& profile, PriceBook& book) {
    const bool computes = work.part == HostPart::optimizer;
    out.line("time", "{} before overlap: {} at {:.1f} GB/s", time_text(book.host(work, 1.0).time),
             bytes_text(work.bytes), book.host_rate(work.part).in(GB / second));
    const HostRates& rates = *profile.host;
    if (computes)
        out.line("rate",
                 "the AdamW of one rank moves {:.1f} GB/s; its part of the node's memory "
                 "bandwidth is {:.1f} GB/s: the lesser",
                 rates.adam.in(GB / second),
                 (cluster.host->memory_bandwidth / cluster.gpus_per_node).in(GB / second));
    else
        out.line("rate",
                 "{:.0f} % of {:.1f} GB/s, a GPU's part of the path while all of its node "
                 "copy this way",
                 100.0 * rates.copy, host_bandwidth(cluster).in(GB / second));
    out.line("pieces", "{}", work.pieces);
    out.line("residual", "{:.0f} %; {}",
             100.0 * (computes ? rates.adam_residual : rates.copy_residual), rates.source);
}

// What a phase's time is made of, by its kind of work.
class WorkExplainer {
  public:
    WorkExplainer(const Scenario& scenario, const Plan& plan, const Profile& profile,
                  const Found& found, Phase phase, Pass pass, Writer& out)
        : scenario_(scenario),
          plan_(plan),
          profile_(profile),
          found_(found),
          phase_(phase),
          pass_(pass),
          book_(profile, scenario.cluster, scenario.model.dtype),
          out_(out) {}

    void operator()(const ComputeWork& compute) {
        explain_compute_time(out_, scenario_, plan_, *found_.work, found_.layer, book_);
        const PhaseCurve* curve = phase_curve(profile_, compute.shape, pass_);
        if (curve != nullptr) explain_phase_curve(out_, *curve, *compute.shape);
        if (curve != nullptr && compute.added_to > Bytes{})
            out_.line("accumulation",
                      "{}: {} of gradients that later micro-batches read to add to "
                      "them, in the mean of the micro-batches, at the rate of a copy",
                      time_text(book_.added_time(compute)), bytes_text(compute.added_to));
        for (int i = 0; curve == nullptr && i < compute.num_kernels; ++i) {
            explain_kernel(out_, compute.kernels[static_cast<std::size_t>(i)], pass_, profile_,
                           scenario_.cluster, book_, PriceBook::spread_of(compute));
        }
    }

    void operator()(const ExchangeWork& exchange) {
        const Price price = book_.exchange(exchange, 1.0);
        out_.line("time", "{}, decided by {}", time_text(price.time), name(price.bottleneck));
        out_.line("group", "{} ranks, {} messages out of each rank",
                  exchange.group_size / exchange.stride, exchange.group_size / exchange.stride - 1);
        const bool routed = phase_ == Phase::dispatch || phase_ == Phase::combine;
        if (exchange.records) {
            out_.line("copies", "records of copies that share a rank: their choices, 4 B each");
        } else if (routed) {
            const ExpertLayout layout = expert_layout(scenario_, plan_);
            const GroupLoad load = expected_load(scenario_, plan_, found_.layer);
            out_.line("copies", "dedup {}: {:.4f} copies a token of {:.0f} B, {:.0f} tokens a rank",
                      kDedupNames[static_cast<std::size_t>(layout.dedup)],
                      load.copies_sent / layout.tokens_per_rank,
                      layout.width * bytes_per_element(scenario_.model.dtype),
                      layout.tokens_per_rank);
        } else {
            out_.line("copies", "equal split, known before routing: independent of k and of skew");
        }
        if (const Seconds planes = book_.planes_time(exchange, 1.0); planes > Seconds{})
            out_.line("planes", "{}: {} moved between the order by head and that by rank",
                      time_text(planes), bytes_text(exchange.planes.bytes));
        out_.line(exchange.forwarded ? "first stage" : "exchange", "{}",
                  exchange.forwarded ? "one copy per remote node" : "all pairs at once");
        explain_stage(out_, exchange.mean, exchange.busiest, exchange.on_curve, exchange.links,
                      exchange, scenario_.cluster, book_);
        if (exchange.forwarded) {
            out_.line(
                "second stage",
                "forwarding inside the node, overlapped with the first: the slower stage plus "
                "one latency counts");
            explain_stage(out_, exchange.forward_mean, exchange.forward_busiest,
                          exchange.forward_on_curve, exchange.forward_links, exchange,
                          scenario_.cluster, book_);
        }
    }

    void operator()(const CountExchangeWork& counts) {
        out_.line("time", "{}", time_text(book_.count_exchange(counts, 1.0).time));
        if (const PhaseCurve* curve = phase_curve(profile_, counts.shape, pass_)) {
            explain_phase_curve(out_, *curve, *counts.shape);
        } else {
            out_.line("count exchange", "{}{}", time_text(profile_.overheads.count_exchange),
                      counts.hidden ? " (hidden behind the permute)" : "");
            out_.line("host sync",
                      "{}: the host must know the splits before it can launch the dispatch",
                      time_text(profile_.overheads.host_sync));
            out_.line("source", "{}", profile_.overheads.source);
        }
    }

    void operator()(const HostWork& work) {
        explain_host_work(out_, work, scenario_.cluster, profile_, book_);
    }

    void operator()(const ReduceWork& reduce) {
        const Price price = book_.reduce(reduce, 1.0);
        out_.line("time", "{} before overlap, over {}", time_text(price.time),
                  name(price.bottleneck));
        out_.line("group", "{} ranks, {} apart; buffer {}", reduce.group_size, reduce.stride,
                  bytes_text(reduce.bytes));
        const RingTime ring = book_.ring_time(reduce);
        out_.line("ring", "{} lane{} of {}: lower bound {}, achieved {:.0f} %", ring.lanes.lanes,
                  ring.lanes.lanes == 1 ? "" : "s", bytes_text(ring.bytes_of_lane),
                  time_text(ring.bound), 100.0 * (ring.bound / price.time));
        explain_added(out_, ring.added);
        out_.line("overlap", "{}", overlap_of(*found_.work, reduce, book_));
        const Overlap beside = profile_.overheads.overlap();
        out_.line("beside it",
                  "compute loses {:.0f} % of its speed until a kernel has taken {:.3g} "
                  "times its own time; an exchange shares the links that both use",
                  100.0 * beside.loss, beside.slowdown);
    }

  private:
    const Scenario& scenario_;
    const Plan& plan_;
    const Profile& profile_;
    const Found& found_;
    Phase phase_;
    Pass pass_;
    PriceBook book_;
    Writer& out_;
};

}  // namespace

Explanation explain(const Scenario& scenario, const Plan& plan, const Profile& profile, Phase phase,
                    Pass pass) {
    const Workload workload = build_workload(scenario, plan);
    if (workload.pipeline && (phase == Phase::pipeline_bubble || phase == Phase::pipeline_p2p))
        return explain_pipeline(scenario, plan, profile, workload);
    const Found found = find_phase(workload, phase, pass);
    if (found.work == nullptr) {
        throw InputError({.where = "--phase",
                          .found = fmt::format("plan {} has no phase {} in its {} pass", plan.name,
                                               name(phase), name(pass)),
                          .accepted = phases_of(workload)});
    }
    Writer out;
    out.line("phase", "{} ({}) of plan {}", name(phase), name(pass), plan.name);
    if (found.layer >= 0)
        out.line("layer", "{}, and {} more like it", found.layer, found.count - 1);
    explain_host(out, plan, *found.work, profile.overheads);
    std::visit(WorkExplainer(scenario, plan, profile, found, phase, pass, out), found.work->work);
    return out.take();
}

}  // namespace headway::inline cost
