#include "models/sweep/break_even.hpp"

#include <algorithm>
#include <cmath>
#include <functional>

#include "models/cost/predict.hpp"
#include "models/scenario/check_scenario.hpp"
#include "models/scenario/derived_axis.hpp"
#include "models/scenario/resolve.hpp"
#include "models/vocab/jobs.hpp"

namespace headway::inline sweep {
namespace {

// How an axis is laid out: coarse values first, then halfway points until two are close enough.
struct Layout {
    std::string key;
    double now = 0.0;
    std::vector<double> coarse;
    std::function<double(double, double)> halfway;
    std::function<bool(double, double)> is_close;
    std::function<void(Scenario&, double)> set;
};

Layout layout_of_top_k(const Scenario& open) {
    Layout l{.key = "model.moe.top_k", .now = static_cast<double>(open.model.moe.top_k)};
    constexpr int kMost = 128;
    const int most = std::min(open.model.moe.num_experts, kMost);
    for (int k = 1; k < most; k *= 2) l.coarse.push_back(k);
    l.coarse.push_back(most);
    l.halfway = [](double a, double b) { return std::floor((a + b) / 2); };
    l.is_close = [](double a, double b) { return b - a <= 1.0; };
    l.set = [](Scenario& s, double k) {
        s.model.moe.top_k = static_cast<int>(k);
        for (Plan& plan : s.plans) {
            auto* hp = std::get_if<HeadParallel>(&plan.layer);
            if (hp && hp->top_k > 0) hp->top_k = static_cast<int>(k);
        }
    };
    return l;
}

Bandwidth& link_of(Cluster& cluster) {
    if (cluster.fabric && cluster.island_size() < cluster.num_ranks()) return cluster.fabric->nic;
    if (cluster.nvlink) return cluster.nvlink->bandwidth;
    return cluster.pcie ? cluster.pcie->bandwidth : cluster.device.memory_bandwidth;
}

std::string name_of_link(const Cluster& cluster) {
    if (cluster.fabric && cluster.island_size() < cluster.num_ranks()) return "cluster.fabric.nic";
    if (cluster.nvlink) return "cluster.nvlink.bandwidth";
    return cluster.pcie ? "cluster.pcie.bandwidth" : "cluster.device.memory_bandwidth";
}

Layout layout_of_link(const Scenario& open) {
    Cluster cluster = open.cluster;
    resolve(cluster);
    Layout l{.key = name_of_link(cluster), .now = link_of(cluster).in(byte / second)};
    for (int i = -5; i <= 5; ++i) l.coarse.push_back(l.now * std::exp2(i));
    l.halfway = [](double a, double b) { return std::sqrt(a * b); };
    l.is_close = [](double a, double b) { return b <= 1.01 * a; };
    l.set = [](Scenario& s, double bandwidth) {
        resolve(s.cluster);
        link_of(s.cluster) = bandwidth * byte / second;
    };
    return l;
}

Layout layout_of_skew(const Scenario& open) {
    Layout l{.key = "routing.skew",
             .now = open.routing.skew == Skew::zipf ? open.routing.parameter : 0.0};
    for (int i = 0; i <= 8; ++i) l.coarse.push_back(0.25 * i);
    l.halfway = [](double a, double b) { return (a + b) / 2; };
    l.is_close = [](double a, double b) { return b - a <= 0.01; };
    l.set = [](Scenario& s, double exponent) {
        apply(DerivedAxis::skew, ScalarValue(exponent), s);
    };
    return l;
}

Layout layout_of(const Scenario& open, BreakEvenAxis axis) {
    switch (axis) {
        case BreakEvenAxis::top_k:
            return layout_of_top_k(open);
        case BreakEvenAxis::link:
            return layout_of_link(open);
        default:
            return layout_of_skew(open);
    }
}

// On one rank a group exchanges nothing: neither family's point.
bool takes_part(const Plan& plan) {
    return plan.group_size > 1 && kind_of(plan) != PlanKind::data_parallel;
}

void enter(const Plan& plan, Seconds step, Duel& duel) {
    Seconds& best = kind_of(plan) == PlanKind::expert_parallel ? duel.ep : duel.hp;
    if (!(best > Seconds{}) || step < best) best = step;
}

Duel duel_of(const Scenario& open, const Layout& layout, double value,
             const std::vector<Candidate>& chosen, int threads) {
    Duel duel{.value = value};
    std::vector<Seconds> steps(chosen.size());
    for_each_job(chosen.size(), threads, [&](std::size_t i) {
        Scenario scenario = open;
        scenario.plans = {chosen[i].plan};
        scenario.baseline = chosen[i].plan.name;
        scenario.batch = chosen[i].batch;
        layout.set(scenario, value);
        resolve(scenario);
        if (!check_scenario(scenario, ProfileCheck::none).empty()) return;
        const PlanPrediction prediction =
            predict_plan(scenario, scenario.plans[0], *scenario.profile, {.timeline = false});
        if (prediction.feasible) steps[i] = prediction.step;
    });
    for (std::size_t i = 0; i < chosen.size(); ++i)
        if (steps[i] > Seconds{}) enter(chosen[i].plan, steps[i], duel);
    return duel;
}

Duel duel_at(const Scenario& open, const Layout& layout, double value, const SearchOptions& options,
             const std::vector<Candidate>& chosen) {
    if (!chosen.empty()) return duel_of(open, layout, value, chosen, options.threads);
    Duel duel{.value = value};
    Scenario scenario = open;
    layout.set(scenario, value);
    resolve(scenario);
    if (!check_scenario(scenario, ProfileCheck::none).empty()) return duel;
    for (const Candidate& c : search_plans(scenario, options).best)
        if (takes_part(c.plan)) enter(c.plan, c.prediction.step, duel);
    return duel;
}

bool is_decided(const Duel& duel) {
    return duel.ep > Seconds{} || duel.hp > Seconds{};
}

}  // namespace

std::vector<Candidate> duellists(const std::vector<Candidate>& candidates, std::size_t most) {
    std::vector<Candidate> result;
    std::size_t ep = 0, hp = 0;
    for (const Candidate& c : candidates) {
        if (!takes_part(c.plan)) continue;
        if ((kind_of(c.plan) == PlanKind::expert_parallel ? ep : hp)++ < most) result.push_back(c);
    }
    return result;
}

BreakEven break_even(const Scenario& open, BreakEvenAxis axis, const SearchOptions& options,
                     const std::vector<Candidate>& chosen) {
    const Layout layout = layout_of(open, axis);
    BreakEven result{.key = layout.key, .now = layout.now, .duels = {}, .crossings = {}};
    for (const double value : layout.coarse) {
        const Duel duel = duel_at(open, layout, value, options, chosen);
        if (is_decided(duel)) result.duels.push_back(duel);
    }
    for (std::size_t i = 1; i < result.duels.size(); ++i) {
        Duel low = result.duels[i - 1], high = result.duels[i];
        if (low.hp_wins() == high.hp_wins()) continue;
        while (!layout.is_close(low.value, high.value)) {
            const Duel middle =
                duel_at(open, layout, layout.halfway(low.value, high.value), options, chosen);
            (middle.hp_wins() == low.hp_wins() ? low : high) = middle;
        }
        result.crossings.push_back({high.value, high.hp_wins()});
    }
    return result;
}

}  // namespace headway::inline sweep
