#include "models/trace/collective_join.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>

#include "models/report/step_order.hpp"
#include "models/trace/name_rules.hpp"
#include "models/vocab/mesh.hpp"

namespace headway::inline trace {
namespace {

// Messages whose sizes differ by less are alike: a rank's copies vary with the routing.
constexpr double kAlike = 1.5;

double element_bytes(std::string_view dtype) {
    if (dtype == "Long" || dtype == "Double") return 8.0;
    if (dtype == "Int" || dtype == "Float") return 4.0;
    if (dtype == "BFloat16" || dtype == "Half" || dtype == "Short") return 2.0;
    return 1.0;
}

bool gathers_tokens(const Plan& plan) {
    const auto* ep = std::get_if<ExpertParallel>(&plan.layer);
    return ep != nullptr && ep->dispatcher == TokenDispatcher::allgather;
}

bool is_dispatch(Phase phase) {
    return phase == Phase::dispatch || phase == Phase::combine;
}

// Counts of rows travel as whole numbers, rows do not.
bool is_counts(const NcclCall& call) {
    return call.dtype == "Long" || call.dtype == "Int";
}

bool has(std::string_view text, std::string_view part) {
    return text.find(part) != text.npos;
}

int group_size_of(Phase phase, const Mesh& mesh) {
    switch (phase) {
        case Phase::tp_all_gather:
        case Phase::tp_reduce_scatter:
        case Phase::tp_all_reduce:
            return mesh.tp;
        case Phase::etp_all_gather:
        case Phase::etp_reduce_scatter:
            return mesh.etp;
        case Phase::count_exchange:
            return mesh.etp * mesh.ep;
        case Phase::cp_exchange:
            return mesh.cp;
        case Phase::pipeline_p2p:
            return mesh.pp;
        case Phase::grad_all_reduce:
            return mesh.dp * mesh.cp;
        case Phase::expert_grad_all_reduce:
            return mesh.edp;
        default:
            return mesh.ep;
    }
}

// Megatron-LM names its process groups (core/parallel_state.py).
bool contradicts_group(Phase phase, std::string_view group) {
    if (!has(group, "_PARALLEL_GROUP")) return false;
    const bool data = has(group, "DATA_PARALLEL"), expert = has(group, "EXPERT");
    switch (phase) {
        case Phase::tp_all_gather:
        case Phase::tp_reduce_scatter:
        case Phase::tp_all_reduce:
            return expert || !has(group, "TENSOR");
        case Phase::etp_all_gather:
        case Phase::etp_reduce_scatter:
            return data || !expert || !has(group, "TENSOR");
        case Phase::cp_exchange:
            return data || !has(group, "CONTEXT");
        case Phase::pipeline_p2p:
            return !has(group, "PIPELINE");
        case Phase::grad_all_reduce:
            return !data || expert;
        case Phase::expert_grad_all_reduce:
            return !data || !expert;
        case Phase::param_all_gather:
            return !data;
        default:
            return data || !expert;
    }
}

}  // namespace

CallKind kind_of(const NcclCall& call, std::string_view kernel) {
    const std::string text = plain_name(call.name.empty() ? kernel : std::string_view(call.name));
    if (has(text, "alltoall")) return CallKind::all_to_all;
    if (has(text, "allreduce")) return CallKind::all_reduce;
    if (has(text, "reducescatter")) return CallKind::reduce_scatter;
    if (has(text, "allgather")) return CallKind::all_gather;
    if (has(text, "send") || has(text, "recv")) return CallKind::point_to_point;
    return CallKind::other;
}

Bytes sent_bytes(const NcclCall& call, CallKind kind) {
    const double element = element_bytes(call.dtype), n = std::max(call.group_size, 1),
                 in = static_cast<double>(call.in), out = static_cast<double>(call.out);
    switch (kind) {
        // A rank's own part is not known by its place; it is the mean of its parts.
        case CallKind::all_to_all:
            return (n - 1.0) / n * in * element * byte;
        case CallKind::all_reduce:
            return 2.0 * (n - 1.0) / n * in * element * byte;
        case CallKind::all_gather:
            return (n - 1.0) / n * out * element * byte;
        case CallKind::reduce_scatter:
            return (n - 1.0) / n * in * element * byte;
        default:
            return in * element * byte;
    }
}

CollectiveJoin::CollectiveJoin(const PlanPrediction& prediction, const Plan& plan)
    : cp_comm_type_(plan.parallel.cp_comm_type), gathers_tokens_(gathers_tokens(plan)) {
    const Mesh mesh = mesh_of(prediction.num_ranks, plan);
    for (const PhaseKey& key : step_order({prediction})) {
        const PhaseCost& cost = *find_phase(prediction, key);
        if (!is_communication(cost.phase) || cost.count == 0) continue;
        const bool gathers = gathers_tokens_ && is_dispatch(cost.phase);
        expected_.push_back({cost.phase, cost.pass,
                             gathers ? mesh.etp * mesh.ep : group_size_of(cost.phase, mesh),
                             cost.bytes / static_cast<double>(cost.count)});
    }
}

bool CollectiveJoin::may_be(const Expected& expected, const NcclCall& call, CallKind kind,
                            Pass pass) const {
    const Phase phase = expected.phase;
    const bool is_late = phase >= Phase::grad_all_reduce;
    // What reduces gradients leaves in backward and is predicted at the end of the step.
    if (expected.pass != pass && !is_late) return false;
    const bool two_levels = phase == Phase::cp_exchange && cp_comm_type_ == CpCommType::a2a_p2p;
    if (phase != Phase::param_all_gather && !two_levels && call.group_size > 0 &&
        call.group_size != expected.group_size)
        return false;
    if (contradicts_group(phase, call.group)) return false;
    if (is_counts(call) != (phase == Phase::count_exchange)) return false;
    switch (phase) {
        case Phase::count_exchange:
            return kind == CallKind::all_to_all || kind == CallKind::all_gather;
        case Phase::tp_all_gather:
        case Phase::etp_all_gather:
        case Phase::param_all_gather:
            return kind == CallKind::all_gather;
        case Phase::tp_reduce_scatter:
        case Phase::etp_reduce_scatter:
            return kind == CallKind::reduce_scatter;
        case Phase::tp_all_reduce:
            return kind == CallKind::all_reduce;
        case Phase::grad_all_reduce:
        case Phase::expert_grad_all_reduce:
            return kind == CallKind::all_reduce || kind == CallKind::reduce_scatter;
        case Phase::pipeline_p2p:
            return kind == CallKind::point_to_point;
        case Phase::cp_exchange:
            if (two_levels) return kind == CallKind::point_to_point || kind == CallKind::all_to_all;
            if (cp_comm_type_ == CpCommType::p2p) return kind == CallKind::point_to_point;
            if (cp_comm_type_ == CpCommType::a2a) return kind == CallKind::all_to_all;
            return kind == CallKind::all_gather || kind == CallKind::reduce_scatter;
        default:
            if (gathers_tokens_ && is_dispatch(phase))
                return kind == CallKind::all_gather || kind == CallKind::reduce_scatter;
            return kind == CallKind::all_to_all;
    }
}

void CollectiveJoin::note(Phase phase, Pass pass) {
    if (phase != Phase::count_exchange) last_[static_cast<std::size_t>(pass)] = phase;
}

std::optional<Phase> CollectiveJoin::join(const NcclCall& call, CallKind kind, Pass pass) {
    const Bytes sent = sent_bytes(call, kind);
    const auto distance = [&](const Expected& e) {
        if (sent <= Bytes{} || e.message <= Bytes{}) return 0.0;
        return std::abs(std::log(sent / e.message));
    };
    std::vector<const Expected*> fitting;
    double nearest = 0.0;
    for (const Expected& e : expected_) {
        if (!may_be(e, call, kind, pass)) continue;
        nearest = fitting.empty() ? distance(e) : std::min(nearest, distance(e));
        fitting.push_back(&e);
    }
    std::erase_if(fitting,
                  [&](const Expected* e) { return distance(*e) > nearest + std::log(kAlike); });
    if (fitting.empty()) return std::nullopt;
    // Backward meets the exchanges of a layer the other way round.
    if (pass == Pass::backward) std::ranges::reverse(fitting);
    const auto& last = last_[static_cast<std::size_t>(pass)];
    const auto found =
        std::ranges::find_if(fitting, [&](const Expected* e) { return last && e->phase == *last; });
    const std::size_t turn =
        found == fitting.end()
            ? 0
            : (static_cast<std::size_t>(found - fitting.begin()) + 1) % fitting.size();
    const Phase phase = fitting[turn]->phase;
    note(phase, pass);
    return phase;
}

}  // namespace headway::inline trace
