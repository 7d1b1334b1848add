// Checks and timings of attention. Small shapes against fp64 on the host; at full size the two
// implementations against each other. Useful FLOPs count the causal half alone and no
// recomputation: forward 2 L T H d_a, backward twice that.
#include <cmath>
#include <memory>
#include <utility>

#include "kernels/attention/attention.hpp"
#include "kernels/bench/device.hpp"
#include "kernels/bench/registry.hpp"
#include "kernels/block/block.hpp"

namespace headway::kernels::bench {
namespace {

class BlasLt {
  public:
    BlasLt() {
        if (cublasLtCreate(&handle_) != CUBLAS_STATUS_SUCCESS)
            throw CudaError("cublasLtCreate failed");
    }
    BlasLt(const BlasLt&) = delete;
    BlasLt& operator=(const BlasLt&) = delete;
    ~BlasLt() { cublasLtDestroy(handle_); }
    [[nodiscard]] cublasLtHandle_t get() const { return handle_; }

  private:
    cublasLtHandle_t handle_ = nullptr;
};

struct Problem {
    AttentionShape shape;
    BlasLt blas;
    std::unique_ptr<Attention> attention;
    DeviceBuffer<bf16> qkv, d_o, o, dqkv;
    DeviceBuffer<float> log_sum;
    DeviceBuffer<unsigned char> workspace;

    Problem(AttentionImpl impl, const AttentionShape& s)
        : shape(s),
          attention(make_attention(impl, blas.get(), s)),
          qkv(random_normal<bf16>(qkv_elements(), 1.0f, 81)),
          d_o(random_normal<bf16>(elements(), 1.0f, 82)),
          o(elements()),
          dqkv(qkv_elements()),
          log_sum(std::size_t(s.num_tokens()) * std::size_t(s.num_heads)),
          workspace(attention->workspace_bytes() + 1) {
        o.poison();
        dqkv.poison();
        log_sum.poison();
        workspace.poison();
    }
    [[nodiscard]] std::size_t elements() const {
        return std::size_t(shape.num_tokens()) * std::size_t(shape.width());
    }
    [[nodiscard]] std::size_t qkv_elements() const {
        return std::size_t(shape.num_tokens()) * std::size_t(shape.qkv_width());
    }
    void run(bool backward, cudaStream_t stream) const {
        if (backward)
            attention->backward({qkv.get(), o.get(), d_o.get(), log_sum.get(), dqkv.get()},
                                workspace.get(), stream);
        else
            attention->forward({qkv.get(), o.get(), log_sum.get()}, workspace.get(), stream);
    }
};

std::vector<double> wide(const DeviceBuffer<bf16>& buffer) {
    std::vector<double> out;
    out.reserve(buffer.size());
    for (const bf16 value : buffer.to_host()) out.push_back(double(__bfloat162float(value)));
    return out;
}

double error_to(const DeviceBuffer<bf16>& got, const std::vector<double>& expected) {
    DeviceBuffer<double> on_device(expected.size());
    on_device.from_host(expected);
    return relative_l2(got.get(), on_device.get(), expected.size());
}

struct Errors {
    double o = 0, dqkv = 0;
};

Errors errors_to_host(AttentionImpl impl, const AttentionShape& shape) {
    const Problem p(impl, shape);
    p.run(false, nullptr);
    p.run(true, nullptr);
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    const HostAttentionResult expected =
        attention_reference({.shape = shape, .qkv = wide(p.qkv), .d_o = wide(p.d_o)});
    return {error_to(p.o, expected.o), error_to(p.dqkv, expected.dqkv)};
}

CheckResult check(const Problem& p, AttentionImpl impl) {
    // Lengths that fill no tile and one that does, two sequences, both head widths, grouped queries
    // of three and of all heads; one token, which cuDNN's training graphs do not take.
    std::vector<AttentionShape> shapes = {{2, 131, 2, p.shape.head_dim},
                                          {1, 17, 1, 64},
                                          {1, 64, 3, 128},
                                          {2, 131, 6, p.shape.head_dim, 2},
                                          {1, 64, 8, 128, 1}};
    if (impl == AttentionImpl::cublaslt) shapes.push_back({1, 1, 1, 64});
    Errors worst;
    for (const AttentionShape& small : shapes) {
        const Errors e = errors_to_host(impl, small);
        if (!(e.o <= worst.o)) worst.o = e.o;  // NaN stays
        if (!(e.dqkv <= worst.dqkv)) worst.dqkv = e.dqkv;
    }
    p.run(false, nullptr);
    p.run(true, nullptr);
    DeviceBuffer<bf16> o(p.o.size()), dqkv(p.dqkv.size());
    DeviceBuffer<float> log_sum(p.log_sum.size());
    p.attention->forward({p.qkv.get(), o.get(), log_sum.get()}, p.workspace.get(), nullptr);
    p.attention->backward({p.qkv.get(), o.get(), p.d_o.get(), log_sum.get(), dqkv.get()},
                          p.workspace.get(), nullptr);
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    const bool same = bitwise_equal(o.get(), p.o.get(), o.bytes()) &&
                      bitwise_equal(dqkv.get(), p.dqkv.get(), dqkv.bytes());
    CheckResult result{.passed = same && worst.o < 4e-3 && worst.dqkv < 1e-2,
                       .error = worst.o,
                       .detail = text_of("o to fp64, small; dqkv %.1e%s", worst.dqkv,
                                         same ? "" : " NOT REPEATABLE")};
    if (impl == AttentionImpl::cudnn) {
        const Problem judge(AttentionImpl::cublaslt, p.shape);
        judge.run(false, nullptr);
        judge.run(true, nullptr);
        const double forward = relative_l2(p.o.get(), judge.o.get(), o.size());
        const double backward = relative_l2(p.dqkv.get(), judge.dqkv.get(), dqkv.size());
        result.passed = result.passed && forward < 6e-3 && backward < 1.4e-2;
        result.detail += text_of("; %.1e, %.1e to cublaslt", forward, backward);
    }
    return result;
}

std::optional<Case> make(const Shape& s, AttentionImpl impl, bool backward) {
    if (!attention_available(impl)) return std::nullopt;
    const AttentionShape shape =
        block_attention(std::int64_t{s.num_tokens}, s.num_heads * s.head_dim);
    const auto problem = std::make_shared<Problem>(impl, shape);
    Case made;
    made.check = [problem, impl](cudaStream_t) { return check(*problem, impl); };
    made.run = [problem, backward](cudaStream_t stream) { problem->run(backward, stream); };
    const double elements = double(problem->elements());
    const double sums = 4.0 * double(problem->log_sum.size());
    made.cost = {2.0 * shape.sequence_length * elements, 8.0 * elements + sums};
    if (backward) made.cost = {2 * made.cost.flops, 16.0 * elements + sums};
    made.workspace_bytes = problem->workspace.bytes();
    return made;
}

}  // namespace

void register_attention_cases(Registry& registry) {
    constexpr std::pair<AttentionImpl, const char*> impls[] = {
        {AttentionImpl::cudnn, "cudnn"}, {AttentionImpl::cublaslt, "cublaslt"}};
    for (const bool backward : {false, true})
        for (const auto& [impl, name] : impls)
            registry.push_back({.suite = "dense",
                                .op = backward ? "attention_backward" : "attention_forward",
                                .impl = name,
                                .make = [which = impl, backward](const Shape& s) {
                                    return make(s, which, backward);
                                }});
}

}  // namespace headway::kernels::bench
