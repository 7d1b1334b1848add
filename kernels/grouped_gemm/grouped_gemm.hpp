// Grouped GEMM over experts: rows of one expert are contiguous, group g owns rows offsets[g] ..
// offsets[g+1]-1, and the offsets live on the device, so no call here waits for the host (except
// the cuBLAS baseline, which says so). bf16 in, fp32 accumulation.
//   forward  C[r,:]  = act(A[r,:] W[g]^T)      A [rows,k], W [groups,n,k], C [rows,n]
//   dgrad    dA[r,:] = dC[r,:] W[g]            optionally through act'(pre)
//   wgrad    dW[g]   = dC_g^T A_g              zeros for an empty group
// Head-major operands: with a head width w, a matrix [rows, columns] is stored as [columns /
// w][rows][w], so that the projections into and out of heads need no transpose (w a multiple of 64;
// Hopper kernel only). Every implementation is bitwise repeatable: one block computes one output
// tile in a fixed order.
#pragma once

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace headway::kernels {

enum class GroupedActivation {
    none,
    gelu_erf,   // x Phi(x)
    gelu_tanh,  // 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
    swiglu      // silu(gate) * up; W's rows alternate in blocks of 8: 8 gate rows, then 8 up rows
};

struct GroupedShape {
    int num_groups = 0;
    int n = 0;                       // rows of one W[g]; a multiple of 8 (16 for swiglu)
    int k = 0;                       // columns of one W[g]; a multiple of 8
    std::int64_t capacity_rows = 0;  // rows allocated in A and C; at least offsets[num_groups]
    // Device, num_groups + 1, non-decreasing, first one 0. Null (Hopper only): equal slices of all
    // rows, multiples of 64 (the last ones may be shorter or empty).
    const int* offsets = nullptr;
    int num_sms = 0;  // multiprocessors to use; 0: all (fewer leaves room for communication)
};

// Tile of the Hopper kernel: rows x columns of C per block.
enum class GroupedTile { automatic, t128x256, t256x128 };

/// C = act(A W^T). `pre` (may be null) also receives A W^T before the activation, [rows, n].
/// With swiglu C has n/2 columns.
struct GroupedForward {
    GroupedShape shape;
    const __nv_bfloat16* a = nullptr;
    const __nv_bfloat16* w = nullptr;
    __nv_bfloat16* c = nullptr;
    __nv_bfloat16* pre = nullptr;
    GroupedActivation activation = GroupedActivation::none;
    GroupedTile tile = GroupedTile::automatic;
    int a_head_width = 0, c_head_width = 0;  // 0: row-major
};

/// dA = (dC W) * act'(pre). `pre` [rows, k] only with an activation; with swiglu it is, and dA too,
/// [rows, 2 k]: the gradients of gate and up, which alternate as in the forward's `pre`.
struct GroupedDgrad {
    GroupedShape shape;
    const __nv_bfloat16* dc = nullptr;
    const __nv_bfloat16* w = nullptr;
    __nv_bfloat16* da = nullptr;
    const __nv_bfloat16* pre = nullptr;
    GroupedActivation activation = GroupedActivation::none;
    GroupedTile tile = GroupedTile::automatic;
    int dc_head_width = 0, da_head_width = 0;
};

/// dW[g] = dC_g^T A_g, into exactly one of dw_bf16 and dw_fp32; `accumulate`: added to dw_fp32.
struct GroupedWgrad {
    GroupedShape shape;
    const __nv_bfloat16* dc = nullptr;
    const __nv_bfloat16* a = nullptr;
    __nv_bfloat16* dw_bf16 = nullptr;
    float* dw_fp32 = nullptr;
    bool accumulate = false;
    GroupedTile tile = GroupedTile::automatic;
    int dc_head_width = 0, a_head_width = 0;
};

/// One thread per output element, fp32 accumulation in index order: the device-side oracle.
void grouped_forward_reference(const GroupedForward& call, cudaStream_t stream);
void grouped_dgrad_reference(const GroupedDgrad& call, cudaStream_t stream);
void grouped_wgrad_reference(const GroupedWgrad& call, cudaStream_t stream);

/// Persistent wgmma kernel (compute capability 9.0a). Throws std::runtime_error elsewhere.
void grouped_forward_hopper(const GroupedForward& call, cudaStream_t stream);
void grouped_dgrad_hopper(const GroupedDgrad& call, cudaStream_t stream);
void grouped_wgrad_hopper(const GroupedWgrad& call, cudaStream_t stream);

}  // namespace headway::kernels
