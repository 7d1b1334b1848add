// Memory of the busiest rank: what recompute can save, what the optimizer's types weigh, what the
// reserve takes, and that more work never needs less.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "models/cost/memory.hpp"
#include "models/cost/predict.hpp"
#include "models/workload/parameters.hpp"
#include "tests/cost/toy.hpp"

namespace headway {
namespace {

PlanMemory memory_of(const Scenario& s, const Plan& plan) {
    return predict_memory(s, plan, plan_loads(s, plan, {}));
}

double item(const PlanMemory& memory, const std::string& name) {
    const auto it = std::find_if(memory.items.begin(), memory.items.end(),
                                 [&](const MemoryItem& i) { return i.name == name; });
    return it == memory.items.end() ? 0.0 : it->bytes.in(byte);
}

double allocated(const Scenario& s, Plan plan, RecomputeLevel recompute) {
    plan.recompute = recompute;
    return memory_of(s, plan).allocated.in(byte);
}

// T = 4096 tokens, k = 4, f = 512, GELU, even routing over n = 8 ranks: R = T k rows on a rank. Two
// layers keep 2 R f b pre-activations and as many hidden rows; `activation` drops the hidden rows
// of both and has those of one again, `moe` drops both kinds and has both of one again.
TEST(Memory, RecomputeHasTheRowsOfTheLayerInWork) {
    const Scenario s = toy::scenario();
    const Plan plan = s.plans[0];
    const double rows = 4096.0 * 4.0 * 512.0 * 2.0;  // R f b
    const double none = allocated(s, plan, RecomputeLevel::none);
    EXPECT_NEAR(none - allocated(s, plan, RecomputeLevel::activation), rows, 1.0);
    EXPECT_NEAR(none - allocated(s, plan, RecomputeLevel::moe), 2.0 * rows, 1.0);
}

// A model of one layer has nothing to save: it is the layer in work.
TEST(Memory, OneLayerCannotSaveItsOwnRows) {
    Scenario s = toy::scenario();
    s.model.num_layers = 1;
    for (const Plan& plan : {s.plans[0], toy::hp(8, s.model, 8)}) {
        const double none = allocated(s, plan, RecomputeLevel::none);
        for (const RecomputeLevel r :
             {RecomputeLevel::activation, RecomputeLevel::moe, RecomputeLevel::full})
            EXPECT_NEAR(allocated(s, plan, r), none, 1.0) << plan.name;
    }
}

// HP's fused experts work in two images of their hidden rows, f = 512 each, in tiles of t = 128
// rows, of which each of the G = H_r E experts may leave one part filled; and in partial sums of
// the R = T H k rows' weight gradients in parts of 1024 (2 R / G of them or fewer), beside the
// gradients of the rows, w = d_h. Sub-tokens' gradients: 3 T H w in exchanges of two ranks with
// four heads each, 2 of eight with one; alone they are one block, exchanged by nobody.
TEST(Memory, FusedExpertsWorkInImagesOfTheirHiddenRows) {
    const double tokens = 4096, heads = 8, k = 4, f = 512, w = 128, b = 2, t = 128, experts = 64;
    const double rows = tokens * heads * k, block = tokens * heads * w * b;
    for (const int ranks : {1, 2, 8}) {
        const Scenario s = toy::scenario(1, ranks);
        const PlanMemory memory = memory_of(s, toy::hp(8, s.model, ranks));
        const double groups = experts * heads / ranks;
        const double images = 2.0 * (rows / t + groups) * t * f * b;
        const double parts = rows / std::max(1024.0, 2.0 * rows / groups) + 1.0;
        const double partials = std::floor(parts) * 2.0 * f * w * 4.0;
        EXPECT_NEAR(item(memory, "workspace"),
                    images + partials + rows * w * b + (ranks == 1 ? block : 0.0), 1.0)
            << ranks;
        EXPECT_NEAR(item(memory, "communication buffers"),
                    ranks == 1 ? 0.0 : (ranks == 2 ? 3.0 : 2.0) * block, 1.0);
    }
}

// What cuDNN 9 asked for on an H200: four sequences of 4096 tokens, 16 heads of 128 on as many of k
// and v, and on one.
TEST(Memory, HeadwaysAttentionWorksInTheScoresOfASequence) {
    Scenario s = toy::scenario();
    s.batch = {.sequence_length = 4096, .sequences_per_rank = 4};
    s.model.hidden = 2048;
    Plan plan = s.plans[0];
    for (const auto& [kv_heads, bytes] : {std::pair{16, 2148532480.0}, {1, 2282750208.0}}) {
        s.model.attention = {.num_heads = 16, .num_kv_heads = kv_heads, .head_width = 128};
        plan.implementation = Implementation::fused;
        const double other = item(memory_of(s, plan), "workspace");
        plan.implementation = Implementation::headway;
        EXPECT_NEAR(item(memory_of(s, plan), "workspace") - other, bytes, 256.0);
    }
}

// Per parameter: gradients and reductions of g bytes; master p, moments m1 and m2.
TEST(Memory, TypesOfTheOptimizerWeighWhatTheyAre) {
    const Scenario s = toy::scenario();
    Plan plan = s.plans[0];
    const ParameterCount count = count_parameters(s.model, plan);
    const double own = count.experts / 8.0 + count.replicated();
    EXPECT_NEAR(item(memory_of(s, plan), "gradients (fp32)"), 4.0 * own, 1.0);
    EXPECT_NEAR(item(memory_of(s, plan), "optimizer states"), 12.0 * own, 1.0);
    plan.main_grads_dtype = Dtype::bf16;
    plan.exp_avg_dtype = Dtype::bf16;
    plan.exp_avg_sq_dtype = Dtype::fp8;
    EXPECT_NEAR(item(memory_of(s, plan), "gradients (bf16)"), 2.0 * own, 1.0);
    EXPECT_NEAR(item(memory_of(s, plan), "optimizer states"), (4.0 + 2.0 + 1.0) * own, 1.0);
    plan.store_param_remainders = true;
    EXPECT_NEAR(item(memory_of(s, plan), "optimizer states"), (2.0 + 2.0 + 1.0) * own, 1.0);
    plan.optimizer = Optimizer::adamw_8bit;
    EXPECT_NEAR(item(memory_of(s, plan), "optimizer states"), (2.0 + 1.0 + 1.0) * own, 1.0);
}

// Allocated A and gaps phi of what the allocator holds: it holds A / (1 - phi).
TEST(Memory, ReserveIsContextCommunicatorsAndGaps) {
    Scenario s = toy::scenario(2, 8);
    s.cluster.reserve = {.context = 2.0 * GiB, .communicator = 0.5 * GiB, .fragmentation = 0.2};
    const PlanMemory m = memory_of(s, toy::ep(Dedup::rank, 8));
    EXPECT_NEAR(item(m, "reserve: context"), 2.0 * 1073741824.0, 1.0);
    // All ranks, the group of 8, its two replicas.
    EXPECT_NEAR(item(m, "reserve: communicators"), 3.0 * 0.5 * 1073741824.0, 1.0);
    const double allocated_bytes = m.allocated.in(byte);
    EXPECT_NEAR(item(m, "reserve: fragmentation"), allocated_bytes / 0.8 - allocated_bytes, 1.0);
    EXPECT_NEAR((m.allocated + m.reserve()).in(byte), m.peak.in(byte), 1.0);
}

TEST(Memory, MoreWorkNeverNeedsLessAndMoreRecomputeNeverMore) {
    for (const int heads : {0, 8}) {
        for (const int layers : {1, 2, 5}) {
            for (const int dense : {0, 1, layers}) {
                Scenario s = toy::scenario();
                s.model.num_layers = layers;
                s.model.num_dense_layers = dense;
                s.model.dense_width = 8192;
                s.model.moe.num_shared_experts = 1;
                s.model.moe.shared_expert_width = 256;
                const auto plan_of = [&](const Scenario& of) {
                    return heads > 0 ? toy::hp(heads, of.model, 8) : toy::ep(Dedup::rank, 8);
                };
                // A layer recomputed in full is there as a whole, which modules, one after another,
                // are not: each level is compared with none.
                const double none = allocated(s, plan_of(s), RecomputeLevel::none);
                for (const RecomputeLevel r :
                     {RecomputeLevel::activation, RecomputeLevel::moe, RecomputeLevel::full}) {
                    const double now = allocated(s, plan_of(s), r);
                    EXPECT_LE(now, none + 1.0) << layers << ' ' << dense << ' ' << heads;
                    Scenario more = s;
                    more.batch.sequences_per_rank = 2;
                    EXPECT_GE(allocated(more, plan_of(more), r), now);
                    more = s;
                    ++more.model.num_layers;
                    EXPECT_GE(allocated(more, plan_of(more), r), now);
                    more = s;
                    more.model.moe.num_experts *= 2;
                    EXPECT_GE(allocated(more, plan_of(more), r), now);
                }
            }
        }
    }
}

}  // namespace
}  // namespace headway
