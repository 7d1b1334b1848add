// References of the expert layer: naive CUDA (fp32), and a CPU one in fp64 for small shapes.
#pragma once

#include <vector>

#include "kernels/experts/experts.hpp"

namespace headway::kernels::reference {

void forward(const ExpertShape& shape, const RowGrouping& rows, const ExpertWeights& weights,
             const __nv_bfloat16* x, __nv_bfloat16* y, cudaStream_t stream);
std::size_t backward_workspace_bytes(const ExpertShape& shape);
void backward(const ExpertShape& shape, const RowGrouping& rows, const ExpertWeights& weights,
              const __nv_bfloat16* x, const __nv_bfloat16* dy_token,
              const ExpertGradients& gradients, void* workspace, cudaStream_t stream);

// Host data of one layer; bf16 inputs are given as the doubles they stand for.
struct HostLayer {
    ExpertShape shape;
    std::vector<int> row_token;
    std::vector<double> row_gate;
    std::vector<int> expert_offset;
    std::vector<double> x, dy_token, w1, w2;
};
struct HostResult {
    std::vector<double> y, dx_row, dgate, dw1, dw2;
};
HostResult run_on_host(const HostLayer& layer);

}  // namespace headway::kernels::reference
