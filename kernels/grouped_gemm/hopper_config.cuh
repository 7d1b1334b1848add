// Compile-time shape of the Hopper grouped GEMM and its shared-memory plan: `kStages` slots of an A
// and a B tile (64 deep along the reduction), two 64 x 128-byte staging buffers per consumer
// warpgroup for the output, then the barriers.
#pragma once

#include <cuda.h>

#include "kernels/grouped_gemm/activation.cuh"

namespace headway::kernels {

enum class GroupedForm { forward, dgrad, wgrad };

inline constexpr int row_major_width = 1 << 30;

struct HopperParams {
    CUtensorMap a, b, c;
    CUtensorMap pre;  // written by forward when pre_out is set, read by dgrad with an activation
    const int* offsets;
    void* c_ptr;
    __nv_bfloat16* pre_out;  // forward: may be null
    int num_groups;
    int out_m;        // wgrad: rows of dW
    int out_n;        // columns of the product
    int reduction;    // forward, dgrad: length of the reduction
    int rows;         // allocated in A and C
    int slice_rows;   // of a group when there are no offsets
    bool accumulate;  // wgrad: adds to C
    int a_width, b_width,
        c_width;  // columns of one head-major plane; beyond any column when row-major
};

template <GroupedForm FormV, int TileM, int TileN, GroupedActivation ActV = GroupedActivation::none,
          bool Fp32OutV = false>
struct HopperConfig {
    static constexpr GroupedForm kForm = FormV;
    static constexpr int kTileM = TileM, kTileN = TileN;
    static constexpr GroupedActivation kAct = ActV;
    static constexpr bool kFp32Out = Fp32OutV;
    static constexpr int kTileK = 64;
    static constexpr int kSubtiles = TileM / 128;  // 64-row accumulators of one consumer warpgroup
    // dgrad with an activation: columns of `pre` for one of the product, and the slots that a
    // warpgroup's pieces of it take.
    static constexpr int kPreColumns = ActV == GroupedActivation::swiglu ? 2 : 1;
    static constexpr int kPrePieces = kPreColumns * TileN / 64;  // across
    static constexpr int kSlopeSlots = kPreColumns;
    static constexpr int kSlotPieces = kSubtiles * kPrePieces / kSlopeSlots;
    static constexpr bool kAMnMajor = FormV == GroupedForm::wgrad;
    static constexpr bool kBMnMajor = FormV != GroupedForm::forward;

    static constexpr int kABytes = TileM * kTileK * 2, kBBytes = TileN * kTileK * 2;
    static constexpr int kStageBytes = kABytes + kBBytes;
    static constexpr int kStagingBytes = 64 * 128;
    static constexpr int kNumStaging = 4;
    static constexpr int kBudget = 227 * 1024 - 1024 - 256 - kNumStaging * kStagingBytes;
    static constexpr int kStages = kBudget / kStageBytes;
    static constexpr int kStagingOffset = kStages * kStageBytes;
    static constexpr int kBarrierOffset = kStagingOffset + kNumStaging * kStagingBytes;
    static constexpr int kSharedBytes = kBarrierOffset + 16 * kStages + 1024;  // + alignment
    static constexpr int kThreads = 384;  // producer warpgroup, two consumer warpgroups
    static_assert(kStages >= 3 && kStages <= 16);
};

}  // namespace headway::kernels
