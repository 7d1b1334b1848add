// Row movers: a group of 8, 16 or 32 lanes owns one row and moves 16 bytes per lane and step; loads
// of a step are all issued before the first store or sum.
#include <stdexcept>
#include <type_traits>

#include "kernels/check.hpp"
#include "kernels/permute/permute.hpp"
#include "kernels/permute/reference.hpp"
#include "kernels/ptx/bf16x8.cuh"

namespace headway::kernels {
namespace {

using bf16 = __nv_bfloat16;
constexpr int kThreads = 256;

// Eight elements at vector index i, as they will be stored when no weight applies.
__device__ __forceinline__ uint4 load8(const bf16* row, int i) {
    return __ldg(reinterpret_cast<const uint4*>(row) + i);
}
__device__ __forceinline__ uint4 load8(const float* row, int i) {
    const float4 low = __ldg(reinterpret_cast<const float4*>(row) + 2 * i);
    const float4 high = __ldg(reinterpret_cast<const float4*>(row) + 2 * i + 1);
    return pack({{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}});
}

__device__ __forceinline__ void store8(bf16* row, int i, const Eight& value) {
    reinterpret_cast<uint4*>(row)[i] = pack(value);
}
__device__ __forceinline__ void store8(float* row, int i, const Eight& value) {
    const float* v = value.v;
    reinterpret_cast<float4*>(row)[2 * i] = make_float4(v[0], v[1], v[2], v[3]);
    reinterpret_cast<float4*>(row)[2 * i + 1] = make_float4(v[4], v[5], v[6], v[7]);
}

__device__ __forceinline__ bool owns_row(const SpreadShape& s, const SpreadMap& m,
                                         std::int64_t row) {
    return row < s.num_rows && (m.num_rows_device == nullptr || row < *m.num_rows_device);
}

template <typename In, int Lanes>
__global__ void __launch_bounds__(kThreads)
    spread_kernel(SpreadShape s, SpreadMap m, const In* __restrict__ in, bf16* __restrict__ out) {
    constexpr int kBatch = 4;
    const std::int64_t row = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / Lanes;
    if (!owns_row(s, m, row)) return;
    const int vectors = s.width / 8;
    const In* from = in + row * s.width;
    const std::int32_t* place = m.place + row * s.fan_out;
    const float* weight = m.weight == nullptr ? nullptr : m.weight + row * s.fan_out;
    for (int first = threadIdx.x % Lanes; first < vectors; first += kBatch * Lanes) {
        uint4 value[kBatch];
#pragma unroll
        for (int b = 0; b < kBatch; ++b)
            if (first + b * Lanes < vectors) value[b] = load8(from, first + b * Lanes);
        for (int j = 0; j < s.fan_out; ++j) {
            const int to = __ldg(place + j);
            if (to < 0) continue;
            auto* line = reinterpret_cast<uint4*>(out + std::int64_t{to} * s.width);
            const float w = weight == nullptr ? 1.0f : __ldg(weight + j);
#pragma unroll
            for (int b = 0; b < kBatch; ++b)
                if (first + b * Lanes < vectors)
                    line[first + b * Lanes] =
                        weight == nullptr ? value[b] : pack(unpack(value[b]), w);
        }
    }
}

template <typename Out, int Lanes, int MaxFan>
__global__ void __launch_bounds__(kThreads)
    collect_kernel(SpreadShape s, SpreadMap m, const bf16* __restrict__ in, Out* __restrict__ out) {
    constexpr int kBatch = MaxFan >= 4 ? 1 : 4 / MaxFan;
    const std::int64_t row = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / Lanes;
    if (!owns_row(s, m, row)) return;
    const int vectors = s.width / 8;
    int place[MaxFan];
    float weight[MaxFan];
#pragma unroll
    for (int j = 0; j < MaxFan; ++j) {
        place[j] = j < s.fan_out ? __ldg(m.place + row * s.fan_out + j) : -1;
        weight[j] =
            place[j] >= 0 && m.weight != nullptr ? __ldg(m.weight + row * s.fan_out + j) : 1.0f;
    }
    for (int first = threadIdx.x % Lanes; first < vectors; first += kBatch * Lanes) {
        uint4 value[kBatch][MaxFan];
#pragma unroll
        for (int b = 0; b < kBatch; ++b)
#pragma unroll
            for (int j = 0; j < MaxFan; ++j)
                if (place[j] >= 0 && first + b * Lanes < vectors)
                    value[b][j] = load8(in + std::int64_t{place[j]} * s.width, first + b * Lanes);
#pragma unroll
        for (int b = 0; b < kBatch; ++b) {
            if (first + b * Lanes >= vectors) break;
            Eight sum{};
#pragma unroll
            for (int j = 0; j < MaxFan; ++j) {
                if (place[j] < 0) continue;
                const Eight x = unpack(value[b][j]);
#pragma unroll
                for (int e = 0; e < 8; ++e) sum.v[e] = fmaf(weight[j], x.v[e], sum.v[e]);
            }
            store8(out + row * s.width, first + b * Lanes, sum);
        }
    }
}

template <int Lanes, int MaxFan>
__global__ void __launch_bounds__(kThreads)
    collect_backward_kernel(SpreadShape s, SpreadMap m, const bf16* __restrict__ in,
                            const bf16* __restrict__ dout, bf16* __restrict__ din,
                            float* __restrict__ dweight) {
    const std::int64_t row = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / Lanes;
    constexpr int kGroup = MaxFan <= 8 ? MaxFan : 4;  // loads in flight
    const bool active = owns_row(s, m, row);          // all lanes stay for the reductions
    const int vectors = active ? s.width / 8 : 0;
    int place[MaxFan];
    float weight[MaxFan], dot[MaxFan];
#pragma unroll
    for (int j = 0; j < MaxFan; ++j) {
        place[j] = active && j < s.fan_out ? __ldg(m.place + row * s.fan_out + j) : -1;
        weight[j] =
            place[j] >= 0 && m.weight != nullptr ? __ldg(m.weight + row * s.fan_out + j) : 1.0f;
        dot[j] = 0.0f;
    }
    for (int i = threadIdx.x % Lanes; i < vectors; i += Lanes) {
        const Eight gradient = unpack(load8(dout + row * s.width, i));
#pragma unroll
        for (int j0 = 0; j0 < MaxFan; j0 += kGroup) {
            uint4 value[kGroup];
#pragma unroll
            for (int j = 0; j < kGroup; ++j)
                if (place[j0 + j] >= 0)
                    value[j] = load8(in + std::int64_t{place[j0 + j]} * s.width, i);
#pragma unroll
            for (int j = 0; j < kGroup; ++j) {
                if (place[j0 + j] < 0) continue;
                const Eight x = unpack(value[j]);
#pragma unroll
                for (int e = 0; e < 8; ++e) dot[j0 + j] = fmaf(gradient.v[e], x.v[e], dot[j0 + j]);
                reinterpret_cast<uint4*>(din + std::int64_t{place[j0 + j]} * s.width)[i] =
                    pack(gradient, weight[j0 + j]);
            }
        }
    }
#pragma unroll
    for (int j = 0; j < MaxFan; ++j) {
#pragma unroll
        for (int step = Lanes / 2; step > 0; step /= 2)
            dot[j] += __shfl_xor_sync(~0u, dot[j], step, Lanes);
        if (active && j < s.fan_out && threadIdx.x % Lanes == 0)
            dweight[row * s.fan_out + j] = dot[j];
    }
}

void check_shape(const SpreadShape& s) {
    if (s.num_rows < 0 || s.width <= 0 || s.width % 8 != 0 || s.fan_out < 1 || s.fan_out > 32)
        throw std::invalid_argument("row mover: width must be a multiple of 8, fan-out 1 to 32");
}

unsigned blocks_for(const SpreadShape& s, int lanes) {
    return static_cast<unsigned>((s.num_rows * lanes + kThreads - 1) / kThreads);
}

// Calls f with the lanes per row and the compile-time bound on the fan-out.
template <typename F>
void with_lanes(const SpreadShape& s, F f) {
    if (s.width <= 64) return f(std::integral_constant<int, 8>{});
    if (s.width <= 128) return f(std::integral_constant<int, 16>{});
    f(std::integral_constant<int, 32>{});
}

template <typename F>
void with_fan(const SpreadShape& s, F f) {
    if (s.fan_out == 1) return f(std::integral_constant<int, 1>{});
    if (s.fan_out == 2) return f(std::integral_constant<int, 2>{});
    if (s.fan_out <= 4) return f(std::integral_constant<int, 4>{});
    if (s.fan_out <= 8) return f(std::integral_constant<int, 8>{});
    if (s.fan_out <= 16) return f(std::integral_constant<int, 16>{});
    f(std::integral_constant<int, 32>{});
}

template <typename In>
void spread(PermuteImpl impl, const SpreadShape& s, const SpreadMap& map, const In* in, bf16* out,
            cudaStream_t stream) {
    check_shape(s);
    if (s.num_rows == 0) return;
    if (impl == PermuteImpl::reference) return spread_reference(s, map, in, out, stream);
    with_lanes(s, [&](auto lanes) {
        spread_kernel<In, lanes><<<blocks_for(s, lanes), kThreads, 0, stream>>>(s, map, in, out);
    });
    check_launch();
}

template <typename Out>
void collect(PermuteImpl impl, const SpreadShape& s, const SpreadMap& map, const bf16* in, Out* out,
             cudaStream_t stream) {
    check_shape(s);
    if (s.num_rows == 0) return;
    if (impl == PermuteImpl::reference) return collect_reference(s, map, in, out, stream);
    with_lanes(s, [&](auto lanes) {
        with_fan(s, [&](auto fan) {
            collect_kernel<Out, lanes, fan>
                <<<blocks_for(s, lanes), kThreads, 0, stream>>>(s, map, in, out);
        });
    });
    check_launch();
}

}  // namespace

void spread_rows(PermuteImpl impl, const SpreadShape& s, const SpreadMap& map, const bf16* in,
                 bf16* out, cudaStream_t stream) {
    spread(impl, s, map, in, out, stream);
}

void spread_rows(PermuteImpl impl, const SpreadShape& s, const SpreadMap& map, const float* in,
                 bf16* out, cudaStream_t stream) {
    spread(impl, s, map, in, out, stream);
}

void collect_rows(PermuteImpl impl, const SpreadShape& s, const SpreadMap& map, const bf16* in,
                  bf16* out, cudaStream_t stream) {
    collect(impl, s, map, in, out, stream);
}

void collect_rows(PermuteImpl impl, const SpreadShape& s, const SpreadMap& map, const bf16* in,
                  float* out, cudaStream_t stream) {
    collect(impl, s, map, in, out, stream);
}

void collect_rows_backward(PermuteImpl impl, const SpreadShape& s, const SpreadMap& map,
                           const bf16* in, const bf16* dout, bf16* din, float* dweight,
                           cudaStream_t stream) {
    check_shape(s);
    if (s.num_rows == 0) return;
    if (impl == PermuteImpl::reference)
        return collect_backward_reference(s, map, in, dout, din, dweight, stream);
    with_lanes(s, [&](auto lanes) {
        with_fan(s, [&](auto fan) {
            collect_backward_kernel<lanes, fan>
                <<<blocks_for(s, lanes), kThreads, 0, stream>>>(s, map, in, dout, din, dweight);
        });
    });
    check_launch();
}

}  // namespace headway::kernels
