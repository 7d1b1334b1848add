// cuDNN's fused attention through the graph API of its header-only frontend: one graph forward, one
// backward (the deterministic algorithm), both planned in the constructor.
#include <cudnn_frontend.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <unordered_map>

#include "kernels/attention/implementations.hpp"

namespace headway::kernels {
namespace {

namespace fe = cudnn_frontend;
using Tensor = std::shared_ptr<fe::graph::Tensor_attributes>;

enum Id : std::int64_t { kQ = 1, kK, kV, kO, kLogSum, kDo, kDq, kDk, kDv };

void check(cudnnStatus_t status, const char* what) {
    if (status != CUDNN_STATUS_SUCCESS)
        throw std::runtime_error(std::string("cuDNN: ") + what + ": " +
                                 cudnnGetErrorString(status));
}
void check(fe::error_t error, const char* what) {
    if (error.is_bad())
        throw std::runtime_error(std::string("cuDNN: ") + what + ": " + error.get_message());
}

class CudnnHandle {
  public:
    CudnnHandle() { check(cudnnCreate(&handle_), "cudnnCreate"); }
    CudnnHandle(const CudnnHandle&) = delete;
    CudnnHandle& operator=(const CudnnHandle&) = delete;
    ~CudnnHandle() { cudnnDestroy(handle_); }
    [[nodiscard]] cudnnHandle_t get() const { return handle_; }

  private:
    cudnnHandle_t handle_ = nullptr;
};

class CudnnAttention : public Attention {
  public:
    explicit CudnnAttention(const AttentionShape& shape) : shape_(shape) {
        plan_forward();
        plan_backward();
    }
    [[nodiscard]] std::size_t workspace_bytes() const override {
        return std::size_t(std::max(forward_bytes_, backward_bytes_));
    }
    void forward(const AttentionForward& call, void* workspace,
                 cudaStream_t stream) const override {
        std::unordered_map<std::int64_t, void*> data = inputs(call.qkv);
        data[kO] = call.o;
        data[kLogSum] = call.log_sum;
        run(forward_, data, workspace, stream);
    }
    void backward(const AttentionBackward& call, void* workspace,
                  cudaStream_t stream) const override {
        std::unordered_map<std::int64_t, void*> data = inputs(call.qkv);
        data[kO] = const_cast<__nv_bfloat16*>(call.o);
        data[kDo] = const_cast<__nv_bfloat16*>(call.d_o);
        data[kLogSum] = const_cast<float*>(call.log_sum);
        data[kDq] = call.dqkv;
        data[kDk] = call.dqkv + shape_.width();
        data[kDv] = call.dqkv + shape_.width() + shape_.kv_width();
        run(backward_, data, workspace, stream);
    }

  private:
    /// Heads of a tensor, and the width of the rows in which it lies.
    struct Lies {
        int heads, row;
    };
    [[nodiscard]] Lies queries() const { return {shape_.num_heads, shape_.qkv_width()}; }
    [[nodiscard]] Lies keys() const { return {shape_.kv_heads(), shape_.qkv_width()}; }
    [[nodiscard]] Lies outputs() const { return {shape_.num_heads, shape_.width()}; }
    [[nodiscard]] std::vector<std::int64_t> extent(int heads, int last) const {
        return {shape_.num_sequences, heads, shape_.sequence_length, last};
    }
    [[nodiscard]] std::vector<std::int64_t> strides(std::int64_t row) const {
        return {row * shape_.sequence_length, shape_.head_dim, row, 1};
    }
    [[nodiscard]] std::vector<std::int64_t> log_sum_strides() const {
        const std::int64_t length = shape_.sequence_length;
        return {length * shape_.num_heads, length, 1, 1};
    }
    [[nodiscard]] static std::shared_ptr<fe::graph::Graph> empty_graph() {
        auto graph = std::make_shared<fe::graph::Graph>();
        graph->set_io_data_type(fe::DataType_t::BFLOAT16)
            .set_intermediate_data_type(fe::DataType_t::FLOAT)
            .set_compute_data_type(fe::DataType_t::FLOAT);
        return graph;
    }
    Tensor input(fe::graph::Graph& graph, const char* name, Id id, const Lies& lies) const {
        return graph.tensor(fe::graph::Tensor_attributes()
                                .set_name(name)
                                .set_uid(id)
                                .set_dim(extent(lies.heads, shape_.head_dim))
                                .set_stride(strides(lies.row)));
    }
    void output(const Tensor& tensor, Id id, const Lies& lies) const {
        tensor->set_output(true)
            .set_uid(id)
            .set_dim(extent(lies.heads, shape_.head_dim))
            .set_stride(strides(lies.row));
    }
    [[nodiscard]] float scale() const { return 1.0f / std::sqrt(float(shape_.head_dim)); }

    std::int64_t build(fe::graph::Graph& graph, const char* what) const {
        check(graph.build(handle_.get(), {fe::HeurMode_t::A}), what);
        std::int64_t bytes = 0;
        check(graph.get_workspace_size(bytes), what);
        return bytes;
    }
    void plan_forward() {
        forward_ = empty_graph();
        fe::graph::Graph& graph = *forward_;
        const Tensor q = input(graph, "Q", kQ, queries()), k = input(graph, "K", kK, keys()),
                     v = input(graph, "V", kV, keys());
        auto options = fe::graph::SDPA_attributes().set_name("attention");
        options.set_generate_stats(true).set_attn_scale(scale()).set_causal_mask(true);
        auto [o, log_sum] = graph.sdpa(q, k, v, options);
        output(o, kO, outputs());
        log_sum->set_output(true)
            .set_uid(kLogSum)
            .set_data_type(fe::DataType_t::FLOAT)
            .set_dim(extent(shape_.num_heads, 1))
            .set_stride(log_sum_strides());
        forward_bytes_ = build(graph, "attention forward");
    }
    void plan_backward() {
        backward_ = empty_graph();
        fe::graph::Graph& graph = *backward_;
        const Tensor q = input(graph, "Q", kQ, queries()), k = input(graph, "K", kK, keys()),
                     v = input(graph, "V", kV, keys()), o = input(graph, "O", kO, outputs()),
                     d_o = input(graph, "dO", kDo, outputs());
        const Tensor log_sum = graph.tensor(fe::graph::Tensor_attributes()
                                                .set_name("log_sum")
                                                .set_uid(kLogSum)
                                                .set_data_type(fe::DataType_t::FLOAT)
                                                .set_dim(extent(shape_.num_heads, 1))
                                                .set_stride(log_sum_strides()));
        auto options = fe::graph::SDPA_backward_attributes().set_name("attention_backward");
        options.set_attn_scale(scale()).set_causal_mask(true).set_deterministic_algorithm(true);
        auto [dq, dk, dv] = graph.sdpa_backward(q, k, v, o, d_o, log_sum, options);
        output(dq, kDq, queries());
        output(dk, kDk, keys());
        output(dv, kDv, keys());
        backward_bytes_ = build(graph, "attention backward");
    }
    [[nodiscard]] std::unordered_map<std::int64_t, void*> inputs(const __nv_bfloat16* qkv) const {
        auto* base = const_cast<__nv_bfloat16*>(qkv);
        return {{kQ, base},
                {kK, base + shape_.width()},
                {kV, base + shape_.width() + shape_.kv_width()}};
    }
    void run(const std::shared_ptr<fe::graph::Graph>& graph,
             std::unordered_map<std::int64_t, void*>& data, void* workspace,
             cudaStream_t stream) const {
        check(cudnnSetStream(handle_.get(), stream), "cudnnSetStream");
        check(graph->execute(handle_.get(), data, workspace), "execute");
    }

    AttentionShape shape_;
    CudnnHandle handle_;
    std::shared_ptr<fe::graph::Graph> forward_, backward_;
    std::int64_t forward_bytes_ = 0, backward_bytes_ = 0;
};

}  // namespace

bool cudnn_available() {
    cudnnHandle_t handle = nullptr;
    if (cudnnCreate(&handle) != CUDNN_STATUS_SUCCESS) return false;
    cudnnDestroy(handle);
    return true;
}

std::unique_ptr<Attention> make_cudnn_attention(const AttentionShape& shape) {
    return std::make_unique<CudnnAttention>(shape);
}

}  // namespace headway::kernels
