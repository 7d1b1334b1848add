// Judges a routing against fp64: for every sub-token, are the chosen experts distinct, valid and
// the k best of the exact scores; are the gates the softmax of the exact logits of the chosen ones;
// are the counts the choices'.
#pragma once
#include "kernels/router/router.hpp"

namespace headway::kernels::bench {

struct RoutingVerdict {
    long num_subtokens = 0;
    long num_invalid = 0;         // out of range, repeated, or a gate that is not finite
    long num_different_sets = 0;  // sets that are not fp64's
    double worst_regret = 0;      // (k-th best score - score of a wrong choice) / sum_i |x_i R_i|
    double gate_error = 0;        // relative L2
    bool counts_match = true;
};

/// Synchronises. E <= 2048.
RoutingVerdict judge_routing(const RouterShape& shape, const RouterInput& input,
                             const RouterOutput& output);

}  // namespace headway::kernels::bench
