// What the CPU reference gives one rank of a checked layer, in fp64, in the kernels' layouts; its
// weights and tokens are rounded to what the kernels take, so that both compute the same.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "runtime/cuda/check_case.hpp"
#include "runtime/reference/weights.hpp"

namespace headway::runtime {

using Doubles = std::vector<double>;

struct Inputs {
    Matrix<double> x, dy;
};
Inputs inputs_of(const LayerCase& c, int rank);
HpWeights<double> hp_weights(const LayerSetup& s, int rank);
EpWeights<double> ep_weights(const LayerSetup& s, int rank);

Doubles flat(const Matrix<double>& m);
Doubles flat_transposed(const Matrix<double>& m);
// The first weights of all experts as the kernels store them: hidden units outermost, the gate's
// before the others.
Doubles first_weights(const std::vector<ExpertWeights<double>>& experts);
Doubles second_weights(const std::vector<ExpertWeights<double>>& experts, bool transposed);
Doubles all_routers(const HpWeights<double>& w);
// By name, in the order of the layers' sizes().
std::vector<std::pair<std::string, Doubles>> hp_tensors(const HpWeights<double>& w);
std::vector<std::pair<std::string, Doubles>> ep_tensors(const EpWeights<double>& w);

struct Expected {
    Doubles y, dx;
    std::vector<std::pair<std::string, Doubles>> gradients;  // as the tensors
};
Expected reference(const LayerCase& c, const LayerSetup& s, int wanted_rank);

}  // namespace headway::runtime
