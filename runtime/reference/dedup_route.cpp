#include "runtime/reference/dedup_route.hpp"

namespace headway::runtime {

template <class S>
std::vector<Choice<S>> first_choices(const DedupRoute& route, const Routed<S>& routed) {
    std::vector<Choice<S>> choices(routed.expert.size());
    for (std::size_t slot = 0; slot < choices.size(); ++slot) {
        choices[slot].row = static_cast<std::int64_t>(slot) / routed.top_k;
        const std::int32_t expert = routed.expert[slot];
        if (expert < 0) continue;
        const int home = expert / route.experts_per_rank;
        if (route.is_near(home)) {
            choices[slot].peer = home;
            choices[slot].expert = expert % route.experts_per_rank;
        } else {
            choices[slot].peer = home / route.ranks_per_node * route.ranks_per_node +
                                 route.rank % route.ranks_per_node;
            choices[slot].expert = expert % (route.experts_per_rank * route.ranks_per_node);
        }
        choices[slot].gate = routed.gate[slot];
    }
    return choices;
}

template <class S>
std::vector<Choice<S>> second_choices(const DedupRoute& route, const DedupStage<S>& first) {
    std::vector<Choice<S>> choices = first.arrived;
    std::size_t entry = 0;
    for (int source = 0; source < route.num_ranks; ++source) {
        const std::int64_t count = first.received_entries[static_cast<std::size_t>(source)];
        for (std::int64_t i = 0; i < count; ++i, ++entry) {
            if (route.is_near(source)) continue;
            Choice<S>& choice = choices[entry];
            choice.peer = route.first_of_node() + choice.expert / route.experts_per_rank;
            choice.expert %= route.experts_per_rank;
        }
    }
    return choices;
}

template std::vector<Choice<float>> first_choices<float>(const DedupRoute&, const Routed<float>&);
template std::vector<Choice<double>> first_choices<double>(const DedupRoute&,
                                                           const Routed<double>&);
template std::vector<Choice<float>> second_choices<float>(const DedupRoute&,
                                                          const DedupStage<float>&);
template std::vector<Choice<double>> second_choices<double>(const DedupRoute&,
                                                            const DedupStage<double>&);

}  // namespace headway::runtime
