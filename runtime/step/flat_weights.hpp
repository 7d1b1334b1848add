// Between the flat array of parameters and the matrices of the reference layers, which hold some of
// them transposed.
#pragma once

#include "runtime/reference/attention_half.hpp"
#include "runtime/reference/ep_layer.hpp"
#include "runtime/reference/hp_layer.hpp"
#include "runtime/step/parameters.hpp"

namespace headway::runtime {

template <class S>
struct BlockWeights {
    HalfWeights<S> half;
    EpWeights<S> ep;  // one of the three is used
    HpWeights<S> hp;
    ExpertWeights<S> dense;
};

template <class S>
Matrix<S> read_matrix(const WeightTensor& tensor, const S* flat);

// `flat`: all parameters of the rank, as they are read.
template <class S>
BlockWeights<S> read_block(const StepSetup& setup, const StepParameters& parameters, int layer,
                           const S* flat);
template <class S>
BlockWeights<S> zero_gradients(const BlockWeights<S>& weights);
// Adds to the same places of `flat`.
template <class S>
void add_block(const StepSetup& setup, const StepParameters& parameters, int layer,
               BlockWeights<S>& gradients, S* flat);

}  // namespace headway::runtime
