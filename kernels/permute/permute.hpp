// Moving rows for EP, on maps built on the device: nothing here waits for the host, everything can
// be captured in a graph, sums run in a fixed order (the same bits on every run).
//   spread    out[place[t,j]] = weight[t,j] in[t]                 each input row read once
//   collect   out[t] = sum_j weight[t,j] in[place[t,j]]           j ascending, fp32
// place < 0 drops the copy. Spread is the permute (T k rows in expert order), the send side of
// rank-dedup dispatch (one copy per distinct destination rank), its expansion at the receiver, and
// the regrouping from source-rank-major to expert-major rows (fan-out 1); collect is the unpermute
// and the backward of spread.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace headway::kernels {

struct SpreadShape {
    std::int64_t num_rows = 0;  // T
    int fan_out = 1;            // copies of each row, at most 32
    int width = 0;              // elements of a row, a multiple of 8
};

enum class PermuteImpl { reference, vectorised };

/// `weight` may be null (1). `num_rows_device` (may be null) overrides num_rows downwards on the
/// device.
struct SpreadMap {
    const std::int32_t* place = nullptr;  // [T, fan_out]
    const float* weight = nullptr;        // [T, fan_out]
    const std::int32_t* num_rows_device = nullptr;
};

void spread_rows(PermuteImpl impl, const SpreadShape& shape, const SpreadMap& map,
                 const __nv_bfloat16* in, __nv_bfloat16* out, cudaStream_t stream);
/// With the cast fused: fp32 rows in, bf16 rows out.
void spread_rows(PermuteImpl impl, const SpreadShape& shape, const SpreadMap& map, const float* in,
                 __nv_bfloat16* out, cudaStream_t stream);

void collect_rows(PermuteImpl impl, const SpreadShape& shape, const SpreadMap& map,
                  const __nv_bfloat16* in, __nv_bfloat16* out, cudaStream_t stream);
void collect_rows(PermuteImpl impl, const SpreadShape& shape, const SpreadMap& map,
                  const __nv_bfloat16* in, float* out, cudaStream_t stream);

/// Backward of a weighted collect, one pass:
/// din[place[t,j]] = weight[t,j] dout[t], dweight[t,j] = <dout[t], in[place[t,j]]> (0 where
/// dropped).
void collect_rows_backward(PermuteImpl impl, const SpreadShape& shape, const SpreadMap& map,
                           const __nv_bfloat16* in, const __nv_bfloat16* dout, __nv_bfloat16* din,
                           float* dweight, cudaStream_t stream);

}  // namespace headway::kernels
