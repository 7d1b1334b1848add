// Checks and timings of the head projections (all six products) against fp64 on sampled rows or
// lines.
#include "kernels/dense/head_gemm.hpp"
#include "kernels/grouped_gemm/bench_grouped.cuh"

namespace headway::kernels::bench {
namespace {

class LtHandle {
  public:
    LtHandle() {
        if (cublasLtCreate(&handle_) != CUBLAS_STATUS_SUCCESS)
            throw CudaError("cublasLtCreate failed");
    }
    LtHandle(const LtHandle&) = delete;
    LtHandle& operator=(const LtHandle&) = delete;
    ~LtHandle() { cublasLtDestroy(handle_); }
    [[nodiscard]] cublasLtHandle_t get() const { return handle_; }

  private:
    cublasLtHandle_t handle_ = nullptr;
};

enum class Product { project, project_dgrad, project_wgrad, merge, merge_dgrad, merge_wgrad };

bool is_wgrad(Product p) {
    return p == Product::project_wgrad || p == Product::merge_wgrad;
}
bool into_heads(Product p) {
    return p == Product::project || p == Product::merge_dgrad;
}

struct HeadProblem {
    HeadProblem(const Shape& s, HeadImpl impl, int model_dim)
        : shape{s.num_tokens, model_dim, s.num_heads, s.head_dim},
          gemms(impl, lt.get(), shape),
          rows(random_normal<bf16>(std::size_t(s.num_tokens) * model_dim, 1.0f, 61)),
          heads(random_normal<bf16>(std::size_t(s.num_tokens) * shape.columns(), 1.0f, 62)),
          w(random_normal<bf16>(std::size_t(model_dim) * shape.columns(), 0.03f, 63)),
          dw(w.size()),
          workspace(gemms.workspace_bytes() + 1) {}

    void run(Product product, cudaStream_t stream) const {
        void* space = workspace.get();
        switch (product) {
            case Product::project:
                return gemms.project(rows.get(), w.get(), heads.get(), space, stream);
            case Product::project_dgrad:
                return gemms.project_dgrad(heads.get(), w.get(), rows.get(), space, stream);
            case Product::project_wgrad:
                return gemms.project_wgrad(heads.get(), rows.get(), dw.get(), space, stream);
            case Product::merge:
                return gemms.merge(heads.get(), w.get(), rows.get(), space, stream);
            case Product::merge_dgrad:
                return gemms.merge_dgrad(rows.get(), w.get(), heads.get(), space, stream);
            case Product::merge_wgrad:
                return gemms.merge_wgrad(rows.get(), heads.get(), dw.get(), space, stream);
        }
    }
    // The head-major matrix as [T, H d_h].
    [[nodiscard]] DeviceBuffer<bf16> heads_as_rows() const {
        DeviceBuffer<bf16> out(heads.size());
        const std::size_t line = shape.head_dim * sizeof(bf16);
        for (int h = 0; h < shape.num_heads; ++h)
            HEADWAY_CUDA_CHECK(
                cudaMemcpy2D(out.get() + h * shape.head_dim, line * shape.num_heads,
                             heads.get() + std::size_t(h) * shape.num_tokens * shape.head_dim, line,
                             line, shape.num_tokens, cudaMemcpyDeviceToDevice));
        return out;
    }

    HeadShape shape;
    LtHandle lt;
    HeadGemms gemms;
    DeviceBuffer<bf16> rows, heads, w;
    DeviceBuffer<float> dw;
    DeviceBuffer<char> workspace;
};

// Error of a product with token rows out: W element (column j, reduction i) at j * w_row + i *
// w_column.
double rows_error(const HeadProblem& p, Product product) {
    const int d = p.shape.model_dim, all = p.shape.columns();
    const bool heads_out = into_heads(product);
    const int columns = heads_out ? all : d, length = heads_out ? d : all;
    const bool transposed = product == Product::project_dgrad || product == Product::merge_dgrad;
    const Samples s = sample_rows({0, p.shape.num_tokens});
    DeviceBuffer<double> expected(std::size_t(s.count) * columns);
    const DeviceBuffer<bf16> as_rows = p.heads_as_rows();  // the input, or the tested output
    const bf16* in = heads_out ? p.rows.get() : as_rows.get();
    oracle_rows<<<s.count, 256>>>(in, false, s.rows.get(), s.groups.get(), p.w.get(), 0,
                                  transposed ? 1 : length, transposed ? columns : 1, length,
                                  columns, GroupedActivation::none, nullptr, expected.get());
    check_launch();
    return sampled_error(heads_out ? as_rows : p.rows, s, columns, expected);
}

double lines_error(const HeadProblem& p, Product product) {
    const int d = p.shape.model_dim, all = p.shape.columns();
    const bool project = product == Product::project_wgrad;
    const int n = project ? all : d, k = project ? d : all;
    const DeviceBuffer<bf16> as_rows = p.heads_as_rows();
    const Samples s = sample_lines(1, n);
    DeviceBuffer<int> offsets(2);
    offsets.from_host({0, p.shape.num_tokens});
    DeviceBuffer<double> expected(std::size_t(s.count) * k);
    oracle_lines<<<s.count, 256>>>(project ? as_rows.get() : p.rows.get(),
                                   project ? p.rows.get() : as_rows.get(), offsets.get(),
                                   s.rows.get(), s.groups.get(), n, k, expected.get());
    check_launch();
    return sampled_error(p.dw, s, k, expected);
}

Case head_case(const Shape& shape, HeadImpl impl, Product product) {
    auto p = std::make_shared<HeadProblem>(shape, impl, shape.expert_dim);
    auto run = [p, product](cudaStream_t stream) { p->run(product, stream); };
    auto check = [p, product, run](cudaStream_t stream) -> CheckResult {
        const auto poison = [&](auto& out) {
            out.poison(stream);
            run(stream);
            HEADWAY_CUDA_CHECK(cudaStreamSynchronize(stream));
            return repeatable(out, run, stream);
        };
        const bool same = is_wgrad(product)     ? poison(p->dw)
                          : into_heads(product) ? poison(p->heads)
                                                : poison(p->rows);
        const double error = is_wgrad(product) ? lines_error(*p, product) : rows_error(*p, product);
        const double limit = is_wgrad(product) ? 1e-3 : 4e-3;
        return {error <= limit && same, error, same ? "rel L2 vs fp64" : "NOT bitwise repeatable"};
    };
    const double t = p->shape.num_tokens, d = p->shape.model_dim, all = p->shape.columns();
    const double weight_bytes = (is_wgrad(product) ? 4.0 : 2.0) * d * all;
    return {.check = check,
            .run = run,
            .cost = {2 * t * d * all, 2 * t * (d + all) + weight_bytes},
            .workspace_bytes = p->gemms.workspace_bytes()};
}

}  // namespace

// Shapes: H heads of d_h, T tokens; the model width stands in expert_dim.
void register_dense_cases(Registry& registry) {
    const std::vector<Shape> shapes = {{"G1", 8, 128, 1, 1024, 32768, 1},
                                       {"G2", 16, 128, 1, 2048, 16384, 1},
                                       {"G3", 32, 64, 1, 2048, 16384, 1}};
    struct Named {
        const char* op;
        Product product;
    };
    constexpr Named kProducts[] = {{"head_project", Product::project},
                                   {"head_project_dgrad", Product::project_dgrad},
                                   {"head_project_wgrad", Product::project_wgrad},
                                   {"head_merge", Product::merge},
                                   {"head_merge_dgrad", Product::merge_dgrad},
                                   {"head_merge_wgrad", Product::merge_wgrad}};
    for (const Named& named : kProducts)
        for (const HeadImpl impl : {HeadImpl::library, HeadImpl::hopper})
            registry.push_back({.suite = "dense",
                                .op = named.op,
                                .impl = impl == HeadImpl::library ? "cublaslt" : "hopper",
                                .make = [impl, named](const Shape& s) -> std::optional<Case> {
                                    return head_case(s, impl, named.product);
                                },
                                .shapes = shapes});
}

}  // namespace headway::kernels::bench
