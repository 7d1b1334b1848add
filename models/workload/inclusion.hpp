// How often a token reaches an expert, and a set of experts: the closed forms behind expected
// traffic and load. docs/reference/model.md section 2 derives them.
//
// Equal popularity (exact): a token chooses k of E experts; a set of m of them is missed with
// probability C(E-m, k) / C(E, k), so g equal sets see D_g = g (1 - C(E-E/g, k) / C(E, k)) distinct
// destinations on average. With expert groups the same within the chosen groups, summed over how
// many of the set's groups were chosen (hypergeometric), or, where scores choose them, by the
// number of groups met so far.
//
// Skewed popularity: give expert e an exponential clock of rate w_e; a token takes the first k to
// ring (Plackett-Luce). A set A is reached when its first clock rings at a time s at which fewer
// than k of its complement have rung: the integral of W_A exp(-W_A s) P(N_C(s) < k) ds, N_C a sum
// of independent Bernoulli variables. The integral is a trapezoidal sum over log s (error below
// 1e-5 of a probability).
#pragma once

#include <vector>

#include "models/workload/routing.hpp"

namespace headway::inline workload {

// Probability that a token chooses expert e; sums to k. [E]
std::vector<double> inclusion_probabilities(const std::vector<double>& popularity,
                                            const RouterShape& shape);

// Probability that a token chooses at least one expert of each of `parts` equal runs of consecutive
// experts, for several partitions at once. [partitions][parts]; parts = E: inclusion probabilities.
// Without popularity all experts are equally popular.
std::vector<std::vector<double>> hit_probabilities(const std::vector<double>& popularity,
                                                   const RouterShape& shape,
                                                   const std::vector<int>& partitions);
std::vector<double> hit_probabilities(const std::vector<double>& popularity,
                                      const RouterShape& shape, int num_parts);

// The same for equal popularity, where all parts are alike: one number.
double uniform_hit_probability(const RouterShape& shape, int num_parts);

// D_g: expected number of distinct parts that a token reaches under equal popularity.
double distinct_destinations(const RouterShape& shape, int num_parts);

// Popularity under which expert e is chosen with probability `share[e]` (at most 1; they sum to k):
// the inverse of inclusion_probabilities, found by iteration. What a recorded trace means.
std::vector<double> popularity_of_shares(const std::vector<double>& share,
                                         const RouterShape& shape);

}  // namespace headway::inline workload
