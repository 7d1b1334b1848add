#include "models/trace/trace_check.hpp"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "models/trace/attribution.hpp"
#include "models/trace/collective_join.hpp"
#include "models/trace/host_tree.hpp"
#include "models/trace/weight_shapes.hpp"
#include "models/vocab/error.hpp"
#include "tests/trace/kineto.hpp"

namespace headway {
namespace {

// d 512, four heads of 64 for queries (256 wide) and two for keys, eight experts of 384, swiglu.
ModelSpec model() {
    ModelSpec m{.vocab_size = 1000, .hidden = 512, .num_layers = 1};
    m.attention = {.num_heads = 4, .num_kv_heads = 2, .head_width = 64};
    m.moe = {.num_experts = 8, .top_k = 2, .expert_width = 384};
    return m;
}

Plan plan() {
    return {.name = "ep", .layer = ExpertParallel{}, .group_size = 2};
}

PhaseCost cost(Phase phase, Pass pass, Seconds time, Bytes bytes = {}, Seconds hidden = {}) {
    return {.phase = phase,
            .pass = pass,
            .count = 1,
            .time = time,
            .hidden = hidden,
            .interval = {.low = 0.5 * time, .high = 2.5 * time},
            .bytes = bytes};
}

PlanPrediction prediction() {
    PlanPrediction p{.name = "ep", .layer_split = "expert_parallel", .num_ranks = 2};
    p.step = 100.0 * us;
    for (const Pass pass : {Pass::forward, Pass::backward}) {
        for (const Phase phase : {Phase::norm, Phase::attention_qkv, Phase::attention_core,
                                  Phase::attention_out, Phase::route, Phase::permute,
                                  Phase::regroup, Phase::expert, Phase::ungroup, Phase::unpermute})
            p.phases.push_back(cost(phase, pass, 10.0 * us));
        for (const Phase phase : {Phase::dispatch, Phase::combine})
            p.phases.push_back(cost(phase, pass, 20.0 * us, 1024.0 * byte));
    }
    p.phases.push_back(cost(Phase::count_exchange, Pass::forward, 5.0 * us));
    p.phases.push_back(cost(Phase::grad_all_reduce, Pass::update, 5.0 * us, 4096.0 * byte));
    p.phases.push_back(cost(Phase::optimizer, Pass::update, 5.0 * us));
    return p;
}

std::string told(const TorchTrace& trace, const std::vector<Joined>& joined, const char* kernel) {
    for (std::size_t i = 0; i < trace.gpu.size(); ++i) {
        if (trace.names[trace.gpu[i].name] != kernel) continue;
        if (!joined[i].is_joined()) return "nothing";
        return std::string(name(joined[i].phase)) + " " + std::string(name(joined[i].pass)) +
               " by " + std::string(kHowNames[static_cast<std::size_t>(joined[i].how)]);
    }
    return "no such kernel";
}

// A layer forward and backward without a single annotation. Launches a microsecond apart; every
// kernel is named after what it is.
TEST(Attribution, JoinsALayerWithoutAnnotations) {
    Kineto file;
    double t = 0.0;
    const auto launch = [&](const char* kernel, int tid = 1) {
        file.kernel(kernel, t + 0.2, 1000.0 + t, 1.0, 7, tid);
        t += 1.0;
    };
    const auto run = [&](const char* op, const char* kernel, const char* dims = "") {
        file.op(op, t, 0.9, 1, dims);
        launch(kernel);
    };
    const auto exchange = [&](const char* dtype, long elements) {
        file.call("all_to_allv", dtype, elements, 2, t + 0.2, 1000.0 + t, 1.0);
        t += 1.0;
    };
    run("aten::rms_norm", "norm 1");
    run("aten::mm", "q", "[[64, 512], [512, 256]]");
    run("aten::mm", "kv", "[[64, 512], [512, 128]]");
    launch("rotate");
    run("aten::scaled_dot_product_attention", "flash_fwd_kernel");
    run("aten::mm", "out", "[[64, 256], [256, 512]]");
    launch("add");
    run("aten::rms_norm", "norm 2");
    run("aten::mm", "router", "[[64, 512], [512, 8]]");
    run("aten::topk", "best");
    launch("sort");
    exchange("Long", 8);
    launch("gather");
    exchange("BFloat16", 1024);  // 1024 elements of 2 bytes, half of them sent
    launch("to expert order");
    const double grouped = t;
    run("aten::_grouped_mm", "up", "[[32, 512], [4, 512, 768], [4]]");
    launch("silu");
    run("aten::_grouped_mm", "down", "[[32, 384], [4, 384, 512], [4]]");
    launch("to rank order");
    exchange("BFloat16", 1024);
    launch("weigh and add");
    run("aten::rms_norm", "last norm");
    // Backward, on the engine's thread: what has no forward operator is told by names, else by
    // order.
    file.op("autograd::engine::evaluate_function: GroupedMmBackward0", t, 3.0, 2);
    file.op("GroupedMmBackward0", t + 0.1, 2.8, 2);
    file.link(grouped, 1, t + 0.1, 2);
    launch("up gradient", 2);
    launch("up weight gradient", 2);
    t += 1.0;
    file.op("autograd::engine::evaluate_function: ViewBackward0", t, 1.0, 2);
    launch("a copy", 2);
    file.op("autograd::engine::evaluate_function: MmBackward0", t, 1.0, 2);
    file.op("aten::mm", t + 0.1, 0.8, 2, "[[512, 64], [64, 8]]");  // the router's dW = x^T dy
    launch("router weight gradient", 2);
    launch("norm of gradients");
    file.annotation("Optimizer.step#AdamW.step", t, 1.0);
    launch("adam");

    const TorchTrace trace = file.read();
    const auto joined = attribute(trace, HostTree(trace), model(), plan(), prediction());
    const auto expect = [&](const char* kernel, const std::string& phase) {
        EXPECT_EQ(told(trace, joined, kernel), phase) << kernel;
    };
    expect("norm 1", "norm forward by name");
    expect("q", "attention_qkv forward by shape");
    expect("kv", "attention_qkv forward by shape");
    expect("rotate", "attention_qkv forward by position");
    expect("flash_fwd_kernel", "attention_core forward by name");
    expect("out", "attention_out forward by shape");
    expect("add", "norm forward by position");
    expect("router", "route forward by shape");
    expect("best", "route forward by name");
    expect("sort", "permute forward by position");
    expect("gather", "permute forward by position");
    expect("to expert order", "regroup forward by position");
    expect("up", "expert forward by shape");
    expect("silu", "expert forward by position");
    expect("to rank order", "ungroup forward by position");
    expect("weigh and add", "unpermute forward by position");
    expect("up gradient", "expert backward by shape");
    expect("up weight gradient", "expert backward by shape");
    expect("a copy", "expert backward by position");
    expect("router weight gradient", "route backward by shape");
    expect("norm of gradients", "optimizer update by position");
    expect("adam", "optimizer update by name");
    std::vector<Phase> calls;
    for (std::size_t i = 0; i < trace.gpu.size(); ++i) {
        if (trace.gpu[i].collective >= 0) calls.push_back(joined[i].phase);
    }
    EXPECT_EQ(calls, (std::vector{Phase::count_exchange, Phase::dispatch, Phase::combine}));
}

TEST(Attribution, PrefersAnnotationsAlsoInBackward) {
    Kineto file;
    file.annotation("headway.unpermute", 0.0, 5.0);
    file.op("aten::topk", 1.0, 3.0);
    file.kernel("forward", 2.0, 10.0, 1.0);
    file.op("autograd::engine::evaluate_function: TopkBackward0", 20.0, 5.0, 2);
    file.op("TopkBackward0", 21.0, 3.0, 2);
    file.kernel("backward", 22.0, 30.0, 1.0, 7, 2);
    file.link(1.0, 1, 21.0, 2);
    file.kernel("lost", 50.0, 60.0, 1.0);
    const TorchTrace trace = file.read();
    const auto joined = attribute(trace, HostTree(trace), model(), plan(), prediction());
    EXPECT_EQ(told(trace, joined, "forward"), "unpermute forward by annotation");
    EXPECT_EQ(told(trace, joined, "backward"), "unpermute backward by annotation");
    EXPECT_EQ(told(trace, joined, "lost"), "nothing");
}

// d = 512 and four query heads of 64 are 256 wide; four of 128 would be d wide, so that query and
// output weights are both [512, 512].
TEST(WeightShapes, LeaveOpenWhatAShapeCannotTell) {
    ModelSpec wide = model();
    wide.attention.head_width = 128;
    const WeightShapes shapes(wide, plan());
    EXPECT_EQ(shapes.of_forward({{64, 512}, {512, 512}}),
              (std::vector{Phase::attention_qkv, Phase::attention_out}));
    EXPECT_EQ(shapes.of_forward({{64, 512}, {512, 1000}}), std::vector{Phase::lm_head});
    EXPECT_TRUE(shapes.of_forward({{64, 1000}, {1000, 512}}).empty());  // its gradient
    EXPECT_EQ(shapes.of_any({{64, 1000}, {1000, 512}}), std::vector{Phase::lm_head});
    EXPECT_EQ(shapes.of_any({{1000, 64}, {64, 512}}), std::vector{Phase::lm_head});
    EXPECT_TRUE(shapes.of_any({{7, 11}, {11, 13}}).empty());
}

TEST(CollectiveJoin, GoesByKindGroupAndSize) {
    PlanPrediction p = prediction();
    p.num_ranks = 4;  // two groups of two: gradients of the experts too are reduced, over 2
    p.phases.push_back(cost(Phase::expert_grad_all_reduce, Pass::update, 5.0 * us, 8192.0 * byte));
    CollectiveJoin join(p, plan());
    const auto call = [](const char* name, const char* dtype, std::int64_t elements, int group) {
        return NcclCall{
            .name = name, .dtype = dtype, .in = elements, .out = elements, .group_size = group};
    };
    const NcclCall rows = call("all_to_allv", "BFloat16", 1000, 2);
    EXPECT_EQ(kind_of(rows, ""), CallKind::all_to_all);
    EXPECT_EQ(kind_of({}, "ncclDevKernel_ReduceScatter_Sum_bf16_RING_LL"),
              CallKind::reduce_scatter);
    EXPECT_EQ(kind_of(call("_allgather_base", "Long", 1, 2), ""), CallKind::all_gather);
    // Half of 1000 elements of two bytes.
    EXPECT_DOUBLE_EQ(sent_bytes(rows, CallKind::all_to_all).in(byte), 1000.0);
    // Over four ranks, 2 (4 - 1) / 4 of the buffer.
    EXPECT_DOUBLE_EQ(sent_bytes(call("allreduce", "Float", 1000, 4), CallKind::all_reduce).in(byte),
                     6000.0);
    // In turns: forward dispatch first, backward combine first.
    const auto next = [&](const NcclCall& c, CallKind kind, Pass pass) {
        return join.join(c, kind, pass);
    };
    EXPECT_EQ(next(rows, CallKind::all_to_all, Pass::forward), Phase::dispatch);
    EXPECT_EQ(next(rows, CallKind::all_to_all, Pass::forward), Phase::combine);
    EXPECT_EQ(next(rows, CallKind::all_to_all, Pass::forward), Phase::dispatch);
    EXPECT_EQ(next(rows, CallKind::all_to_all, Pass::backward), Phase::combine);
    EXPECT_EQ(next(rows, CallKind::all_to_all, Pass::backward), Phase::dispatch);
    EXPECT_EQ(next(call("all_to_all", "Long", 8, 2), CallKind::all_to_all, Pass::forward),
              Phase::count_exchange);
    // Gradients leave in backward; four ranks are the dense group, two the experts'.
    EXPECT_EQ(next(call("allreduce", "Float", 99, 4), CallKind::all_reduce, Pass::backward),
              Phase::grad_all_reduce);
    EXPECT_EQ(next(call("allreduce", "Float", 99, 2), CallKind::all_reduce, Pass::backward),
              Phase::expert_grad_all_reduce);
    // Megatron's names of groups count more than a size that two of them have.
    NcclCall named = call("allreduce", "Float", 99, 4);
    named.group = "7 TENSOR_MODEL_PARALLEL_GROUP";
    EXPECT_EQ(next(named, CallKind::all_reduce, Pass::backward), std::nullopt);
    named.group = "9 DATA_PARALLEL_GROUP_WITH_CP";
    EXPECT_EQ(next(named, CallKind::all_reduce, Pass::backward), Phase::grad_all_reduce);
    // Three ranks are no group of the plan; nothing is broadcast.
    EXPECT_EQ(next(call("all_to_allv", "BFloat16", 1000, 3), CallKind::all_to_all, Pass::forward),
              std::nullopt);
    EXPECT_EQ(next(call("broadcast", "Float", 9, 4), CallKind::other, Pass::forward), std::nullopt);
}

// One step of 60 us on two streams: an expert [0, 10], [20, 30], the dispatch [5, 25] beside it,
// which 10 us hide, then nothing till a second step begins at 60. The combine takes `combine` us.
RankTrace run_of(int rank, double dispatch_begin, double combine) {
    Kineto file;
    file.annotation("ProfilerStep#4", 0.0, 50.0);
    file.annotation("ProfilerStep#5", 100.0, 50.0);
    file.annotation("ProfilerStep#6", 200.0, 50.0);
    file.kernel("before the profiler", -5.0, 900.0, 50.0);
    for (const double begin : {0.0, 100.0, 200.0}) {
        const double gpu = 1000.0 + 0.6 * begin;
        file.annotation("expert", begin + 1.0, 5.0);
        file.kernel("gemm", begin + 2.0, gpu, 10.0);
        file.kernel("gemm", begin + 3.0, gpu + 20.0, 10.0);
        file.annotation("dispatch", begin + 7.0, 5.0);
        file.call("all_to_allv", "BFloat16", 1024, 2, begin + 8.0, gpu + dispatch_begin,
                  25.0 - dispatch_begin, 20);
        file.annotation("combine", begin + 20.0, 5.0);
        file.call("all_to_allv", "BFloat16", 1024, 2, begin + 21.0, gpu + 30.0, combine, 20);
        file.kernel("a stranger", begin + 40.0, gpu + 50.0, 2.0);
    }
    TorchTrace trace = file.read();
    trace.rank = rank;
    trace.file = "rank" + std::to_string(rank);
    const HostTree host(trace);
    const auto joined = attribute(trace, host, model(), plan(), prediction());
    return rank_trace(trace, gpu_steps(trace, host, joined));
}

TEST(GpuSteps, TellExposedFromHiddenAndIdle) {
    const RankTrace rank = run_of(0, 5.0, 8.0);
    ASSERT_EQ(rank.steps.size(), 2u);  // without the first
    const GpuStep& step = rank.steps[0];
    EXPECT_EQ(step.number, 5);
    EXPECT_EQ(step.duration(), 60'000);
    EXPECT_EQ(step.busy, 40'000);     // [0, 38] and the stranger
    EXPECT_EQ(step.hidden, 10'000);   // [5, 10] and [20, 25]
    EXPECT_EQ(step.exposed, 18'000);  // [10, 20] and the combine
    EXPECT_EQ(step.lost_time(), 2'000);
    const GpuPhase& dispatch = step.phases.at({Pass::forward, Phase::dispatch});
    EXPECT_EQ(dispatch.communication, 20'000);
    EXPECT_EQ(dispatch.exposed, 10'000);
    EXPECT_EQ(dispatch.begin, 5'000);
    EXPECT_DOUBLE_EQ(dispatch.sent.in(byte), 1024.0);
    EXPECT_EQ(step.phases.at({Pass::forward, Phase::expert}).compute, 20'000);
    // The last step ends with its last kernel.
    EXPECT_EQ(rank.steps[1].duration(), 52'000);
}

// Rank 1 enters the dispatch 10 us later: it takes 10 us of rank 0's 20. The combine
// takes 8 us on rank 0, 12 on rank 1.
TEST(TraceCheck, TakesWaitsForPeersOutOfExchanges) {
    const std::vector<RankTrace> ranks = {run_of(0, 5.0, 8.0), run_of(1, 15.0, 12.0)};
    const TraceCheck check = check_trace(prediction(), ranks);
    const auto of = [&](Phase phase) {
        for (const PhaseComparison& p : check.comparison.phases) {
            if (p.phase == phase && p.pass == Pass::forward) return p;
        }
        return PhaseComparison{};
    };
    EXPECT_NEAR(of(Phase::dispatch).measured.in(us), 10.0, 1e-9);
    EXPECT_NEAR(of(Phase::dispatch).error(), 1.0, 1e-9);  // 20 us predicted
    EXPECT_NEAR(of(Phase::combine).measured.in(us), 8.0, 1e-9);
    EXPECT_NEAR(of(Phase::expert).measured.in(us), 20.0, 1e-9);
    EXPECT_TRUE(of(Phase::expert).inside());
    for (const char* part : {"ranks 0, 1 of 2, ProfilerStep 5 to 6", "+100.0 %", "a stranger",
                             "not joined: 2.00 us a step"})
        EXPECT_NE(check.text.find(part), std::string::npos) << part << "\n" << check.text;
    // Waits: 10 us of rank 0, 4 us of rank 1: 7 us of the mean rank.
    EXPECT_NE(check.text.find("waiting for peers              7.00 us"), std::string::npos)
        << check.text;
    // One rank alone: nothing is known of waits.
    const TraceCheck alone = check_trace(prediction(), {ranks[0]});
    EXPECT_NEAR(alone.comparison.phases[0].measured.in(us), 20.0, 1e-9);
    EXPECT_EQ(alone.text.find("waiting for peers"), std::string::npos);
}

TEST(TraceCheck, WritesExecutionsAsTimelinesDo) {
    PlanPrediction two_layers = prediction();
    for (PhaseCost& c : two_layers.phases) c.count = 2;
    const TraceCheck check = check_trace(two_layers, {run_of(0, 5.0, 8.0)});
    for (const Span& span : check.measured.spans) {
        if (span.phase != Phase::expert) continue;
        EXPECT_EQ(span.count, 2);
        EXPECT_NEAR(span.duration.in(us), 10.0, 1e-9);
        EXPECT_EQ(span.samples, 2);
    }
    for (const Span& span : check.predicted.spans) {
        if (span.phase != Phase::expert) continue;
        EXPECT_NEAR(span.duration.in(us), 5.0, 1e-9);
    }
}

TEST(TraceCheck, RefusesTracesOfOtherRuns) {
    const auto refusal = [](const PlanPrediction& p, const std::vector<RankTrace>& ranks) {
        try {
            check_trace(p, ranks);
        } catch (const InputError& error) {
            return std::string(error.what());
        }
        return std::string("accepted");
    };
    const RankTrace first = run_of(0, 5.0, 8.0);
    EXPECT_NE(refusal(prediction(), {first, first}).find("rank 0 once more"), std::string::npos);
    PlanPrediction wider = prediction();
    wider.num_ranks = 8;
    EXPECT_NE(refusal(wider, {first}).find("a run of 2 ranks; accepted: one of 8"),
              std::string::npos);
    RankTrace other = run_of(1, 5.0, 8.0);
    other.steps.pop_back();
    EXPECT_NE(refusal(prediction(), {first, other}).find("other steps than rank0 has"),
              std::string::npos);
}

TEST(GpuSteps, NeedStepsOfTheProfiler) {
    Kineto file;
    file.kernel("gemm", 1.0, 2.0, 3.0);
    const TorchTrace trace = file.read();
    const HostTree host(trace);
    EXPECT_THROW(gpu_steps(trace, host, std::vector<Joined>(1)), InputError);
}

}  // namespace
}  // namespace headway
