// Seeded weights: every tensor is drawn from (seed, what it is, head, expert) alone, so that any
// number of ranks holds the same model. Normal, with variance 1 / fan-in; also gradients of zeros.
#pragma once

#include <cstdint>

#include "runtime/reference/ep_layer.hpp"
#include "runtime/reference/hp_layer.hpp"

namespace headway::runtime {

struct ModelDims {
    int hidden = 0;        // d
    int expert_width = 0;  // f
    int latent_width = 0;  // l, 0: none
    int shared_width = 0;  // of all shared experts together, 0: none
    bool aux_free_bias = false;
};

template <class S>
EpWeights<S> make_ep_weights(const ModelDims& dims, const EpShape& shape, int num_ranks, int rank,
                             std::uint64_t seed);
template <class S>
HpWeights<S> make_hp_weights(const ModelDims& dims, const HpShape& shape, int rank,
                             std::uint64_t seed);

// Tokens of one source rank. [tokens, d]
template <class S>
Matrix<S> make_tokens(std::int64_t num_tokens, int hidden, int source_rank, std::uint64_t seed);

template <class S>
EpWeights<S> zeros_like(const EpWeights<S>& weights);
template <class S>
HpWeights<S> zeros_like(const HpWeights<S>& weights);

}  // namespace headway::runtime
