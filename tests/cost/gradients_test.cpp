// What gradients of weights move in every micro-batch (docs/reference/model.md, section 4), and
// when it shows. Symbols: P parameters of a product, b bytes of an element, g of a gradient, r FLOP
// rate, B memory bandwidth.
#include <gtest/gtest.h>

#include <algorithm>
#include <variant>

#include "models/cost/price.hpp"
#include "models/workload/workload.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

constexpr double kTokens = 4096, kWidth = 1024;

struct Backward {
    double product = 0, weights = 0;  // bytes of all of it, and of the weights' gradient
    double apart = 0;                 // of a kernel that adds
};

Backward backward_of(const Scenario& s, Phase phase) {
    const LayerWork layer = build_workload(s, s.plans[0]).layers.at(0);
    const auto found = std::ranges::find(layer.backward, phase, &PhaseWork::phase);
    const auto& compute = std::get<ComputeWork>(found->work);
    Backward result;
    for (int i = 0; i < compute.num_kernels; ++i) {
        const KernelWork& kernel = compute.kernels[static_cast<std::size_t>(i)];
        if (kernel.flops > Flops{}) {
            result.product += kernel.bytes.in(byte);
            result.weights += kernel.weight_bytes.in(byte);
        } else if (kernel.weight_bytes > Bytes{}) {
            EXPECT_EQ(kernel.bytes, kernel.weight_bytes);
            result.apart += kernel.bytes.in(byte);
        }
    }
    return result;
}

// attention_out: T x d from T x d with P = d^2: both gradients move (2 T d + P) b, of which the
// weights' one writes P b. Accumulated it reads and writes P g instead, fp32 or bf16; scattered in
// every micro-batch it writes P g. Apart it writes P b, which the other kernel reads.
TEST(Gradients, AreReadAndWrittenByTheirProductOrApart) {
    Scenario s = toy::scenario();
    Plan& plan = s.plans[0];
    const double p = kWidth * kWidth, rows = 2.0 * kTokens * kWidth * 2.0;
    const auto expect = [&](double of_gradient, double apart) {
        const Backward found = backward_of(s, Phase::attention_out);
        EXPECT_EQ(found.weights, rows + of_gradient * p);
        EXPECT_EQ(found.product - found.weights, rows + 2.0 * p);
        EXPECT_EQ(found.apart, apart * p);
    };
    expect(8.0, 0.0);
    plan.main_grads_dtype = Dtype::bf16;
    expect(4.0, 0.0);
    plan.gradient_accumulation_fusion = false;
    expect(2.0, 2.0 + 4.0);
    plan.main_grads_dtype = Dtype::fp32;
    expect(2.0, 2.0 + 8.0);
    plan.parallel.data_parallel_sharding_strategy = DataParallelSharding::optim_grads;
    expect(2.0, 2.0 + 4.0);
    plan.gradient_accumulation_fusion = true;
    expect(4.0, 0.0);
}

// Experts: E / N of 2 d f parameters.
TEST(Gradients, OfExpertsAreOfTheRanksOwn) {
    const Scenario s = toy::scenario();
    const double p = 64.0 / 8 * 2 * kWidth * 512;
    Scenario in_16_bits = s;
    in_16_bits.plans[0].main_grads_dtype = Dtype::bf16;
    EXPECT_EQ(
        backward_of(s, Phase::expert).weights - backward_of(in_16_bits, Phase::expert).weights,
        4.0 * p);
}

// Each half takes the longer of its FLOPs and its bytes: gradients that take longer to move than to
// compute show, although the other half is far from it. Half of the time is weight gradients when
// neither shows.
TEST(Gradients, ShowWhereTheyAreMemoryBound) {
    const Profile profile = toy::profile();
    Cluster cluster = toy::cluster(1, 1);
    const double half = 1e12, inputs = 1e9, weights = 8e9;
    KernelWork work{.kernel = Kernel::dense_gemm,
                    .flops = 2.0 * half * flop,
                    .bytes = (inputs + weights) * byte,
                    .weight_bytes = weights * byte,
                    .parameters = 1e9,
                    .size = 1e12};
    ComputeWork compute;
    compute.add(work);
    const PhaseWork phase{Phase::attention_out, Pass::backward, compute};
    for (const double bandwidth : {1e18, 1e12, 0.5e12, 0.05e12}) {
        cluster.device.memory_bandwidth = bandwidth * byte / second;
        cluster.device.peak_matmul = toy::kFlopRate * flop / second;
        PriceBook book(profile, cluster, Dtype::bf16);
        const double arithmetic = half / toy::kFlopRate,
                     of_weights = std::max(arithmetic, weights / bandwidth),
                     all = std::max(arithmetic, inputs / bandwidth) + of_weights;
        EXPECT_NEAR(book.kernel_time(work, Pass::backward).in(second), all, 1e-12 * all);
        EXPECT_NEAR(book.weight_gradient_share(phase), of_weights / all, 1e-12);
    }
}

// A curve of a whole phase is of a layer that runs once and writes its gradients: of M
// micro-batches all but the first read P g bytes besides, at the rate of a copy. Scattered
// gradients are written.
TEST(Gradients, LaterMicroBatchesReadWhatACurveOfThePhaseDoesNotHold) {
    Scenario s = toy::scenario();
    Profile profile = toy::profile();
    profile.phases = {{.layer = LayerKind::ep,
                       .phase = Phase::expert,
                       .pass = Pass::backward,
                       .terms = {Term::fixed},
                       .seconds = {1e-3}}};
    const double p = 64.0 / 8 * 2 * kWidth * 512;
    const auto time = [&](int micro_batches) {
        s.batch.num_micro_batches = micro_batches;
        const LayerWork layer = build_workload(s, s.plans[0]).layers.at(0);
        const auto found = std::ranges::find(layer.backward, Phase::expert, &PhaseWork::phase);
        return PriceBook(profile, s.cluster, s.model.dtype)
            .compute_time(std::get<ComputeWork>(found->work), Pass::backward)
            .in(second);
    };
    EXPECT_NEAR(time(1), 1e-3, 1e-12);
    EXPECT_NEAR(time(4), 1e-3 + 0.75 * 4.0 * p / toy::kByteRate, 1e-12);
    s.plans[0].main_grads_dtype = Dtype::bf16;
    EXPECT_NEAR(time(2), 1e-3 + 0.5 * 2.0 * p / toy::kByteRate, 1e-12);
    s.plans[0].parallel.data_parallel_sharding_strategy = DataParallelSharding::optim_grads;
    EXPECT_NEAR(time(2), 1e-3, 1e-12);
}

}  // namespace
}  // namespace headway
