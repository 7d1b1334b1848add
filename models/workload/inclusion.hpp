// How often a token reaches an expert, and a set of experts: the closed forms behind expected
// traffic and load.
//
// Equal popularity (exact): a token chooses k of E experts; a set of m of them is missed with
// probability C(E-m, k) / C(E, k), so g equal sets see D_g = g (1 - C(E-E/g, k) / C(E, k)) distinct
// destinations on average. With expert groups (t of G chosen first) the same within the chosen
// groups, summed over how many of the set's groups were chosen (hypergeometric).
//
// Skewed popularity: give expert e an exponential clock of rate w_e; a token takes the first k to
// ring (Plackett-Luce). Expert e has rung by time s with probability 1 - exp(-w_e s); s solves
// sum_e (1 - exp(-w_e s)) = k. A set R is missed when all k come from its complement C: prod_{j<k}
// W_C(j) / (W_C(j) + W_R), where W_C(j) is the weight of C that has not rung after j rings in C.
// Exact for equal weights; compared with sampling in the tests.
#pragma once

#include <vector>

#include "models/workload/routing.hpp"

namespace headway::inline workload {

// Probability that a token chooses expert e; sums to k. [E]
std::vector<double> inclusion_probabilities(const std::vector<double>& popularity,
                                            const RouterShape& shape);

// The clocks of one popularity at the moments when 0, 1, ..., k-1 of them have rung: computed once,
// used for every division of the experts into parts.
struct RingPoints {
    std::vector<double> popularity;
    bool is_uniform = true;                   // then the rest is empty
    std::vector<double> group, presence;      // chance that a group, and so an expert, is open
    std::vector<std::vector<double>> silent;  // [rings, E]
};
RingPoints ring_points(const std::vector<double>& popularity, const RouterShape& shape);

// Probability that a token chooses at least one expert of each of `num_parts` equal runs of
// consecutive experts. [parts]
std::vector<double> hit_probabilities(const RingPoints& points, const RouterShape& shape,
                                      int num_parts);
std::vector<double> hit_probabilities(const std::vector<double>& popularity,
                                      const RouterShape& shape, int num_parts);

// The same for equal popularity, where all parts are alike: one number.
double uniform_hit_probability(const RouterShape& shape, int num_parts);

// D_g: expected number of distinct parts that a token reaches under equal popularity.
double distinct_destinations(const RouterShape& shape, int num_parts);

}  // namespace headway::inline workload
