#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>
#include <utility>

#include "models/validate/validate.hpp"

namespace headway::inline validation {
namespace {

struct Pair {
    const std::string& scenario;
    double gap = 0.0;      // predicted, not negative
    double against = 0.0;  // by how much the measured difference lies on the other side of it
    double differing = 0.0, longer = 0.0;
};

Pair pair_of(const AnchorResult& a, const AnchorResult& b) {
    const auto& [fast, slow] = a.predicted < b.predicted ? std::tie(a, b) : std::tie(b, a);
    const double gap = slow.predicted - fast.predicted;
    return {.scenario = a.configuration,
            .gap = gap,
            .against = gap - (slow.published - fast.published),
            .differing = differing_time(*a.plan, *b.plan),
            .longer = slow.predicted};
}

std::vector<Pair> pairs_of(const std::vector<AnchorResult>& results) {
    std::set<std::pair<std::string, std::string>> seen;
    std::vector<const AnchorResult*> first;
    for (const AnchorResult& r : results) {
        if (r.plan && r.other_software && seen.insert({r.configuration, r.plan->name}).second)
            first.push_back(&r);
    }
    std::vector<Pair> pairs;
    for (std::size_t i = 0; i < first.size(); ++i) {
        for (std::size_t j = 0; j < i; ++j) {
            if (first[i]->configuration != first[j]->configuration) continue;
            const Pair pair = pair_of(*first[j], *first[i]);
            if (pair.differing > 0.0) pairs.push_back(pair);
        }
    }
    return pairs;
}

std::map<std::string, int> counts_of(const std::vector<Pair>& pairs) {
    std::map<std::string, int> counts;
    for (const Pair& pair : pairs) ++counts[pair.scenario];
    return counts;
}

// The smallest value that pairs of nine tenths of the weight do not exceed; not negative.
double ninety(std::vector<std::pair<double, double>> value_and_weight) {
    std::sort(value_and_weight.begin(), value_and_weight.end());
    double all = 0.0, sum = 0.0;
    for (const auto& [value, weight] : value_and_weight) all += weight;
    for (const auto& [value, weight] : value_and_weight) {
        sum += weight;
        if (sum >= 0.9 * all) return std::max(0.0, value);
    }
    return 0.0;
}

// `left_out`: a scenario that is passed over.
DifferenceTerm term_of(const std::vector<Pair>& pairs, const std::string& left_out = "") {
    const std::map<std::string, int> counts = counts_of(pairs);
    std::vector<std::pair<double, double>> of_differing, of_step;
    for (const Pair& pair : pairs) {
        if (pair.scenario == left_out) continue;
        const double weight = 1.0 / counts.at(pair.scenario);
        of_differing.emplace_back(pair.against / pair.differing, weight);
        of_step.emplace_back(pair.against / pair.longer, weight);
    }
    return {ninety(std::move(of_differing)), ninety(std::move(of_step))};
}

}  // namespace

DifferenceTerm difference_term(const std::vector<AnchorResult>& results) {
    return term_of(pairs_of(results));
}

PairStatistics judge_pairs(const std::vector<AnchorResult>& results) {
    const std::vector<Pair> pairs = pairs_of(results);
    const DifferenceTerm all = term_of(pairs);
    PairStatistics s{.scenarios = static_cast<int>(counts_of(pairs).size()),
                     .pairs = static_cast<int>(pairs.size()),
                     .of_differing = all.of_differing,
                     .of_step = all.of_step};
    for (const Pair& pair : pairs) {
        const DifferenceTerm term = term_of(pairs, pair.scenario);
        if (pair.gap < software_noise(pair.differing, pair.longer, term)) continue;
        ++s.decided;
        s.wrong += pair.against > pair.gap ? 1 : 0;
    }
    return s;
}

}  // namespace headway::inline validation
