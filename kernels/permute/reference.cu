#include "kernels/permute/reference.hpp"

#include "kernels/check.hpp"

namespace headway::kernels {
namespace {

using bf16 = __nv_bfloat16;

__device__ double read(const bf16* x) {
    return static_cast<double>(__bfloat162float(*x));
}
__device__ double read(const float* x) {
    return static_cast<double>(*x);
}
__device__ void write(bf16* to, double x) {
    *to = __float2bfloat16(static_cast<float>(x));
}
__device__ void write(float* to, double x) {
    *to = static_cast<float>(x);
}

__device__ bool row_exists(const SpreadMap& m, std::int64_t row) {
    return m.num_rows_device == nullptr || row < *m.num_rows_device;
}

template <typename In>
__global__ void spread_kernel(SpreadShape s, SpreadMap m, const In* in, bf16* out) {
    const std::int64_t row = blockIdx.x;
    if (!row_exists(m, row)) return;
    for (int j = 0; j < s.fan_out; ++j) {
        const std::int64_t to = m.place[row * s.fan_out + j];
        const double w = m.weight == nullptr ? 1.0 : double(m.weight[row * s.fan_out + j]);
        for (int i = threadIdx.x; to >= 0 && i < s.width; i += blockDim.x)
            write(out + to * s.width + i, w * read(in + row * s.width + i));
    }
}

template <typename Out>
__global__ void collect_kernel(SpreadShape s, SpreadMap m, const bf16* in, Out* out) {
    const std::int64_t row = blockIdx.x;
    if (!row_exists(m, row)) return;
    for (int i = threadIdx.x; i < s.width; i += blockDim.x) {
        double sum = 0;
        for (int j = 0; j < s.fan_out; ++j) {
            const std::int64_t from = m.place[row * s.fan_out + j];
            const double w = m.weight == nullptr ? 1.0 : double(m.weight[row * s.fan_out + j]);
            if (from >= 0) sum += w * read(in + from * s.width + i);
        }
        write(out + row * s.width + i, sum);
    }
}

__global__ void dweight_kernel(SpreadShape s, SpreadMap m, const bf16* in, const bf16* dout,
                               float* dweight) {
    const std::int64_t pair = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
    if (pair >= s.num_rows * s.fan_out || !row_exists(m, pair / s.fan_out)) return;
    const std::int64_t from = m.place[pair];
    double sum = 0;
    for (int i = 0; from >= 0 && i < s.width; ++i)
        sum += read(in + from * s.width + i) * read(dout + pair / s.fan_out * s.width + i);
    dweight[pair] = static_cast<float>(sum);
}

template <typename Kernel, typename... Args>
void launch_rows(Kernel kernel, const SpreadShape& s, cudaStream_t stream, Args... args) {
    kernel<<<static_cast<unsigned>(s.num_rows), 256, 0, stream>>>(s, args...);
    check_launch();
}

}  // namespace

void spread_reference(const SpreadShape& s, const SpreadMap& map, const bf16* in, bf16* out,
                      cudaStream_t stream) {
    launch_rows(spread_kernel<bf16>, s, stream, map, in, out);
}

void spread_reference(const SpreadShape& s, const SpreadMap& map, const float* in, bf16* out,
                      cudaStream_t stream) {
    launch_rows(spread_kernel<float>, s, stream, map, in, out);
}

void collect_reference(const SpreadShape& s, const SpreadMap& map, const bf16* in, bf16* out,
                       cudaStream_t stream) {
    launch_rows(collect_kernel<bf16>, s, stream, map, in, out);
}

void collect_reference(const SpreadShape& s, const SpreadMap& map, const bf16* in, float* out,
                       cudaStream_t stream) {
    launch_rows(collect_kernel<float>, s, stream, map, in, out);
}

void collect_backward_reference(const SpreadShape& s, const SpreadMap& map, const bf16* in,
                                const bf16* dout, bf16* din, float* dweight, cudaStream_t stream) {
    launch_rows(spread_kernel<bf16>, s, stream, map, dout, din);
    const auto blocks = static_cast<unsigned>((s.num_rows * s.fan_out + 255) / 256);
    dweight_kernel<<<blocks, 256, 0, stream>>>(s, map, in, dout, dweight);
    check_launch();
}

}  // namespace headway::kernels
