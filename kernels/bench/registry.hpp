// What an operation's bench.cu gives the harness: shapes, and for each implementation a factory of
// cases. A case owns its device memory, can check itself against a higher-precision reference, and
// can be run.
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace headway::kernels::bench {

/// One layer on one rank. EP operations read it with num_heads = 1; a dense GEMM reads what it
/// needs.
struct Shape {
    std::string name;
    int num_heads = 1;
    int head_dim = 128;     // d_h under HP, the token width under EP
    int num_experts = 128;  // E per head under HP, local experts under EP
    int expert_dim = 256;   // f
    int num_tokens = 4096;  // T_b of the whole group
    int top_k = 4;

    [[nodiscard]] long num_subtokens() const { return long(num_heads) * num_tokens; }
    [[nodiscard]] long num_rows() const { return num_subtokens() * top_k; }
    [[nodiscard]] int num_groups() const { return num_heads * num_experts; }
};

/// What the operation must do whatever the implementation: useful FLOPs and the fewest bytes of
/// device memory (each input read once, each output written once). The roofline time is the larger
/// of the two quotients.
struct Cost {
    double flops = 0;
    double bytes = 0;
};

struct CheckResult {
    bool passed = false;
    double error = 0;    // relative L2 unless `detail` says otherwise
    std::string detail;  // one line
};

struct Case {
    std::function<CheckResult(cudaStream_t)> check;  // poisons outputs, runs once, compares
    std::function<void(cudaStream_t)> run;           // must not synchronise
    Cost cost;
    std::size_t workspace_bytes = 0;
    bool capturable = true;  // timed as a graph replay; false: plain stream launches
};

struct Operation {
    std::string suite;  // moe | router | experts | ep | dense | block
    std::string op;     // e.g. router_forward
    std::string impl;   // e.g. fused, library, reference
    std::function<std::optional<Case>(const Shape&)> make;  // nullopt: shape not supported
    std::vector<Shape> shapes = {};                         // empty: the HP shapes A-D
    bool timed = true;                                      // false: a reference, check only
};

using Registry = std::vector<Operation>;

/// printf into a string: nvcc cannot compile fmt's checked format strings.
[[gnu::format(printf, 1, 2)]] std::string text_of(const char* format, ...);

/// Every operation of every folder (generated).
Registry all_operations();

/// The four shapes of the published comparison (docs/results/kernels.md), and small ones for
/// sanitizers.
std::vector<Shape> hp_shapes();
std::vector<Shape> small_shapes();

/// "A" among `known`, or "H=2,d=64,E=32,f=128,T=1000,k=3" (missing keys keep their defaults).
/// Throws std::invalid_argument with the accepted forms.
Shape parse_shape(const std::string& text, const std::vector<Shape>& known);

}  // namespace headway::kernels::bench
