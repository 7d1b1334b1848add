#include "models/trace/attribution.hpp"

#include <algorithm>
#include <cstddef>
#include <map>
#include <numeric>
#include <optional>
#include <utility>

#include "models/report/step_order.hpp"
#include "models/trace/collective_join.hpp"
#include "models/trace/name_rules.hpp"
#include "models/trace/weight_shapes.hpp"

namespace headway::inline trace {
namespace {

using Told = std::pair<Phase, How>;

// Where a phase stands in a layer: what the shape of a product leaves open, its place tells.
int place_in_layer(Phase phase) {
    constexpr std::array order = {Phase::embed,         Phase::attention_qkv, Phase::attention_core,
                                  Phase::attention_out, Phase::dense_mlp,     Phase::latent_down,
                                  Phase::head_project,  Phase::route,         Phase::shared_expert,
                                  Phase::expert,        Phase::latent_up,     Phase::head_merge,
                                  Phase::lm_head};
    return static_cast<int>(std::ranges::find(order, phase) - order.begin());
}

// What lies between two phases of a forward pass that were told otherwise.
std::optional<Phase> between(Phase before, Phase after) {
    const auto is_any = [](Phase p, auto... phases) { return ((p == phases) || ...); };
    if (before == after) return before;
    if (before == Phase::route || before == Phase::count_exchange) {
        if (is_any(after, Phase::count_exchange, Phase::dispatch, Phase::expert, Phase::permute))
            return Phase::permute;
    }
    if (before == Phase::permute && is_any(after, Phase::count_exchange, Phase::dispatch))
        return Phase::permute;
    if (before == Phase::dispatch && after == Phase::expert) return Phase::regroup;
    if (before == Phase::expert && after == Phase::combine) return Phase::ungroup;
    if (before == Phase::combine) return Phase::unpermute;
    // A layer without exchanges.
    if (before == Phase::expert && after == Phase::norm) return Phase::unpermute;
    // Rotations of queries and keys, layouts of heads, residual sums with the norm behind them.
    if (before == Phase::attention_qkv && after == Phase::attention_core) return before;
    if (before == Phase::attention_core && after == Phase::attention_out) return before;
    if (is_any(before, Phase::attention_out, Phase::embed, Phase::unpermute, Phase::dense_mlp) &&
        after == Phase::norm)
        return Phase::norm;
    if (before == Phase::norm && is_any(after, Phase::attention_qkv, Phase::route, Phase::lm_head))
        return Phase::norm;
    if (before == Phase::lm_head && after == Phase::loss) return Phase::loss;
    return std::nullopt;
}

class Attributor {
  public:
    Attributor(const TorchTrace& trace, const HostTree& host, const ModelSpec& model,
               const Plan& plan, const PlanPrediction& prediction)
        : trace_(trace),
          host_(host),
          shapes_(model, plan),
          collectives_(prediction, plan),
          prediction_(prediction),
          joined_(trace.gpu.size()),
          told_of_(trace.host.size()) {
        by_name();
        order_by_launch();
    }

    std::vector<Joined> run() {
        // A forward pass in order, then what differentiates it: that is of the forward's phase.
        auto begun = step_begins_.cbegin();
        for (const std::size_t i : order_) {
            if (begins_step(i, begun)) place_ = 0;
            if (joined_[i].pass != Pass::backward) join_forward(i);
        }
        fill_positions();
        for (const std::size_t i : order_) {
            if (joined_[i].pass != Pass::backward) remember(i);
        }
        Joined last;
        auto step = step_begins_.cbegin();
        for (const std::size_t i : order_) {
            if (begins_step(i, step)) last = {};
            if (joined_[i].pass != Pass::backward) continue;
            join_backward(i);
            if (!joined_[i].is_joined() && last.is_joined() && call_of(i) == nullptr)
                tell(i, {last.phase, How::position});
            if (joined_[i].is_joined() && !is_communication(joined_[i].phase)) last = joined_[i];
        }
        fill_end_of_steps();
        for (Joined& joined : joined_) joined.pass = predicted_pass(joined);
        return std::move(joined_);
    }

  private:
    const std::string& name_of(const HostSpan& span) const { return trace_.names[span.name]; }
    const HostSpan& span(std::int32_t i) const { return trace_.host[static_cast<std::size_t>(i)]; }
    std::int32_t span_of(std::size_t i) const {
        const auto* const origin = host_.origin(trace_.gpu[i]);
        return origin == nullptr ? -1 : origin->span;
    }
    const NcclCall* call_of(std::size_t i) const {
        const std::int32_t call = trace_.gpu[i].collective;
        return call < 0 ? nullptr : &trace_.collectives[static_cast<std::size_t>(call)];
    }
    void tell(std::size_t i, Told told) {
        joined_[i].phase = told.first;
        joined_[i].how = told.second;
    }

    // Names are few, kernels many.
    void by_name() {
        for (const std::string& name : trace_.names) {
            annotations_.push_back(phase_of_annotation(name));
            operators_.push_back(phase_of_operator(name));
            kernels_.push_back(phase_of_kernel(name));
        }
        for (const HostSpan& span : trace_.host) {
            if (span.is_annotation && is_step_annotation(name_of(span)))
                step_begins_.push_back(span.begin);
        }
        std::ranges::sort(step_begins_);
    }

    void order_by_launch() {
        order_.resize(trace_.gpu.size());
        std::iota(order_.begin(), order_.end(), std::size_t{0});
        launched_.resize(trace_.gpu.size());
        for (std::size_t i = 0; i < trace_.gpu.size(); ++i) {
            const GpuWork& work = trace_.gpu[i];
            const auto* const origin = host_.origin(work);
            launched_[i] = origin == nullptr ? work.begin : origin->launched;
            if (origin != nullptr && host_.in_backward(origin->span))
                joined_[i].pass = Pass::backward;
            if (origin != nullptr && in_optimizer(origin->span)) joined_[i].pass = Pass::update;
        }
        // Kernels of one launch, a graph's, in the order of the GPU.
        std::ranges::stable_sort(order_, [&](std::size_t a, std::size_t b) {
            return launched_[a] != launched_[b] ? launched_[a] < launched_[b]
                                                : trace_.gpu[a].begin < trace_.gpu[b].begin;
        });
    }

    // Whether a launch is the first behind the begin of a step, which `step` moves over.
    bool begins_step(std::size_t i, std::vector<Nanoseconds>::const_iterator& step) const {
        const auto before = step;
        while (step != step_begins_.end() && *step <= launched_[i]) ++step;
        return step != before;
    }

    bool in_optimizer(std::int32_t i) const {
        return host_.innermost(i, [&](std::int32_t k) {
            return is_optimizer_annotation(name_of(span(k)));
        }) >= 0;
    }

    std::optional<Phase> annotated(std::int32_t i) const {
        const std::int32_t own = host_.innermost(i, [&](std::int32_t k) {
            return span(k).is_annotation && annotations_[span(k).name].has_value();
        });
        return own < 0 ? std::nullopt : annotations_[span(own).name];
    }

    // By the operands of the product around a launch.
    std::optional<Phase> by_shape(std::int32_t i, bool is_forward) const {
        const std::int32_t product =
            host_.innermost(i, [&](std::int32_t k) { return span(k).shapes >= 0; });
        if (product < 0) return std::nullopt;
        if (name_of(span(product)).find("grouped") != std::string::npos) return Phase::expert;
        const auto& sizes = trace_.shapes[static_cast<std::size_t>(span(product).shapes)];
        std::vector<Phase> fitting = is_forward ? shapes_.of_forward(sizes) : shapes_.of_any(sizes);
        if (fitting.empty() || (!is_forward && fitting.size() > 1)) return std::nullopt;
        // The first that the layer has not passed yet, or the first of the next one.
        std::ranges::sort(fitting, {}, place_in_layer);
        for (const Phase phase : fitting) {
            if (place_in_layer(phase) >= place_) return phase;
        }
        return fitting.front();
    }

    std::optional<Phase> by_names(std::size_t i, std::int32_t around) const {
        if (const auto phase = kernels_[trace_.gpu[i].name]) return phase;
        const std::int32_t own = host_.innermost(around, [&](std::int32_t k) {
            return !span(k).is_annotation && operators_[span(k).name].has_value();
        });
        return own < 0 ? std::nullopt : operators_[span(own).name];
    }

    void join_forward(std::size_t i) {
        const std::int32_t around = span_of(i);
        if (const auto own = annotated(around)) {
            tell(i, {*own, How::annotation});
        } else if (joined_[i].pass == Pass::update) {
            tell(i, {Phase::optimizer, How::name});
        } else if (call_of(i) != nullptr) {
            join_call(i);
        } else if (const auto fitting = by_shape(around, true)) {
            tell(i, {*fitting, How::shape});
        } else if (const auto named = by_names(i, around)) {
            tell(i, {*named, How::name});
        }
        if (joined_[i].phase == Phase::optimizer && joined_[i].is_joined())
            joined_[i].pass = Pass::update;
        if (joined_[i].is_joined() && joined_[i].pass == Pass::forward) {
            if (call_of(i) != nullptr) collectives_.note(joined_[i].phase, Pass::forward);
            go_to(joined_[i].phase);
        }
    }

    // A norm ends what stood before it: attention, or the layer.
    void go_to(Phase phase) {
        const int place = place_in_layer(phase), feed_forward = place_in_layer(Phase::dense_mlp);
        if (phase == Phase::norm && before_ != Phase::norm)
            place_ = place_ > 0 && place_ < feed_forward ? feed_forward : 0;
        if (place <= place_in_layer(Phase::lm_head)) place_ = place;
        before_ = phase;
    }

    void join_call(std::size_t i) {
        const NcclCall& call = *call_of(i);
        const CallKind kind = kind_of(call, trace_.names[trace_.gpu[i].name]);
        if (const auto phase = collectives_.join(call, kind, joined_[i].pass))
            tell(i, {*phase, How::collective});
    }

    // Between neighbours of one step that were told, as the host launched them.
    void fill_positions() {
        std::optional<std::size_t> before;
        std::vector<std::size_t> open;
        auto step = step_begins_.cbegin();
        for (const std::size_t i : order_) {
            if (begins_step(i, step)) {
                open.clear();
                before.reset();
            }
            if (joined_[i].pass != Pass::forward) {
                open.clear();
                before.reset();
            } else if (joined_[i].is_joined()) {
                const auto phase = before ? between(joined_[*before].phase, joined_[i].phase)
                                          : std::optional<Phase>();
                for (const std::size_t k : open) {
                    if (phase) tell(k, {*phase, How::position});
                }
                open.clear();
                before = i;
            } else if (call_of(i) == nullptr) {
                open.push_back(i);
            }
        }
    }

    // What the backward of an operator is of: the first that it launched.
    void remember(std::size_t i) {
        for (std::int32_t k = span_of(i); k >= 0; k = host_.parent(k)) {
            auto& told = told_of_[static_cast<std::size_t>(k)];
            if (!told && joined_[i].is_joined()) told = Told(joined_[i].phase, joined_[i].how);
        }
    }

    std::optional<Told> of_differentiated(std::int32_t around) const {
        const std::int32_t forward = host_.differentiated(around);
        if (forward < 0) return std::nullopt;
        if (const auto phase = annotated(forward)) return Told(*phase, How::annotation);
        return told_of_[static_cast<std::size_t>(forward)];
    }

    void join_backward(std::size_t i) {
        const std::int32_t around = span_of(i);
        const NcclCall* const call = call_of(i);
        const auto own = annotated(around);
        const auto forward = of_differentiated(around);
        if (own) {
            tell(i, {*own, How::annotation});
        } else if (forward && (call == nullptr || is_communication(forward->first))) {
            tell(i, *forward);
        } else if (call != nullptr) {
            return join_call(i);
        } else if (const auto fitting = by_shape(around, false)) {
            tell(i, {*fitting, How::shape});
        } else if (const auto named = by_names(i, around)) {
            tell(i, {*named, How::name});
        }
        if (call != nullptr && joined_[i].is_joined())
            collectives_.note(joined_[i].phase, Pass::backward);
    }

    // Norms of gradients and the like: behind the last of a backward pass, before the next forward.
    void fill_end_of_steps() {
        bool is_behind = false;
        std::vector<std::size_t> open;
        for (const std::size_t i : order_) {
            const Joined& joined = joined_[i];
            if (joined.pass == Pass::backward) {
                open.clear();
                is_behind = true;
            } else if (joined.is_joined() && joined.pass == Pass::update) {
                for (const std::size_t k : open) {
                    tell(k, {Phase::optimizer, How::position});
                    joined_[k].pass = Pass::update;
                }
                open.clear();
            } else if (joined.is_joined() && !is_communication(joined.phase)) {
                open.clear();
                is_behind = false;
            } else if (!joined.is_joined() && is_behind && call_of(i) == nullptr) {
                open.push_back(i);
            }
        }
    }

    // A reduction leaves in backward and is predicted in the update: where there is one, it is it.
    Pass predicted_pass(const Joined& joined) const {
        if (!joined.is_joined() || find_phase(prediction_, {joined.pass, joined.phase}) != nullptr)
            return joined.pass;
        std::optional<Pass> only;
        for (const PhaseCost& cost : prediction_.phases) {
            if (cost.phase != joined.phase) continue;
            if (only) return joined.pass;
            only = cost.pass;
        }
        return only.value_or(joined.pass);
    }

    const TorchTrace& trace_;
    const HostTree& host_;
    WeightShapes shapes_;
    CollectiveJoin collectives_;
    const PlanPrediction& prediction_;
    std::vector<Joined> joined_;
    std::vector<Nanoseconds> launched_, step_begins_;
    std::vector<std::size_t> order_;                                       // by launch
    std::vector<std::optional<Phase>> annotations_, operators_, kernels_;  // by name
    std::vector<std::optional<Told>> told_of_;                             // by span of the host
    int place_ = 0;  // in the layer at hand, and the phase at hand
    Phase before_ = Phase::embed;
};

}  // namespace

std::vector<Joined> attribute(const TorchTrace& trace, const HostTree& host, const ModelSpec& model,
                              const Plan& plan, const PlanPrediction& prediction) {
    return Attributor(trace, host, model, plan, prediction).run();
}

}  // namespace headway::inline trace
