// A whole step on the CPU: its gradient against finite differences of the loss, N ranks against
// one, micro-batches against one batch, recompute against none, AdamW by hand, what is refused.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <string>

#include "models/vocab/error.hpp"
#include "models/workload/workload.hpp"
#include "runtime/step/measure_step.hpp"
#include "runtime/step/reference_step.hpp"
#include "runtime/thread_communicator.hpp"

namespace headway::runtime {
namespace {

const HeadParallel kHeads{
    .num_heads = 2, .head_width = 4, .num_experts = 4, .top_k = 2, .expert_width = 6};

Scenario tiny(MoeLayerSplit layer, int ranks, int sequences) {
    Scenario s{.name = "tiny"};
    s.model = {
        .vocab_size = 11,
        .hidden = 8,
        .num_layers = 3,
        .num_dense_layers = 1,
        .dense_width = 5,
        .dense_activation = Activation::gelu,
        .moe = {.num_experts = 4, .top_k = 2, .expert_width = 6, .activation = Activation::swiglu},
        .dtype = Dtype::fp64};
    s.model.attention = {.num_heads = 2, .num_kv_heads = 2, .head_width = 4};
    s.cluster = {.name = "box", .num_nodes = 1, .gpus_per_node = ranks};
    s.cluster.pcie = Pcie{.bandwidth = GB / second};
    s.batch = {.sequence_length = 5, .sequences_per_rank = sequences};
    s.plans = {{.name = "p", .layer = layer, .group_size = ranks}};
    return s;
}

std::vector<MoeLayerSplit> splits() {
    return {ExpertParallel{}, ExpertParallel{.dedup = Dedup::rank}, kHeads};
}

// What all ranks hold after a number of steps on the same tokens, with the last step's gradients.
struct Result {
    double loss = 0.0;
    std::vector<StepParameters> parameters;  // [rank]
    std::vector<std::vector<double>> values, gradients;
};

// `change` is made to the parameters of every rank before the first step. `forced`: else the
// routers choose.
Result run(const Scenario& scenario, int steps,
           const std::function<void(int, std::vector<double>&)>& change = {}, bool forced = true) {
    const StepRun options{.num_steps = steps, .forced = forced};
    const auto ranks = static_cast<std::size_t>(scenario.plans[0].group_size);
    auto setup = std::make_shared<StepSetup>(step_setup(scenario, scenario.plans[0], options));
    auto routing = std::make_shared<StepRouting>(step_routing(scenario, *setup, forced));
    auto result = std::make_shared<Result>();
    result->parameters.resize(ranks);
    result->values.resize(ranks);
    result->gradients.resize(ranks);
    auto shared = std::make_shared<std::vector<double>>(ranks);
    run_on_threads(static_cast<int>(ranks), [=](Communicator& comm) {
        RankContext context{.communicator = comm};
        ReferenceStep<double> step(context, *setup, *routing);
        const auto r = static_cast<std::size_t>(comm.rank());
        if (change) change(comm.rank(), step.values());
        for (int i = 0; i < steps; ++i) {
            step.start(TokenSource(*setup, "").of(i, comm.rank()));
            run_step(step, step_blocks(setup->model.num_layers, setup->num_micro_batches));
        }
        (*shared)[r] = step.loss();
        result->parameters[r] = step.parameters();
        result->values[r] = step.values();
        result->gradients[r] = step.gradients();
    });
    for (const double loss : *shared) result->loss += loss;
    return *result;
}

// dL/dp = (L(p + e) - L(p - e)) / 2e, e = 1e-5: error e^2 L''' / 6, about 1e-9. Every tensor, some
// elements of each, on two ranks; what all ranks hold is changed on all of them.
TEST(Step, GradientIsTheDerivativeOfTheLoss) {
    constexpr double e = 1e-5;
    std::vector<Scenario> scenarios;
    for (const MoeLayerSplit& split : splits()) scenarios.push_back(tiny(split, 2, 1));
    // Grouped queries: four heads of q on two of k and v, twelve wide in a model of eight.
    scenarios.push_back(scenarios.front());
    scenarios.back().model.attention = {.num_heads = 4, .num_kv_heads = 2, .head_width = 3};
    for (const Scenario& scenario : scenarios) {
        const Result at = run(scenario, 1);
        for (const Section& section : at.parameters[1].sections) {
            for (const WeightTensor& tensor : section.tensors) {
                for (const std::int64_t i : {std::int64_t{1}, tensor.count() * 2 / 3}) {
                    const auto place = static_cast<std::size_t>(tensor.place + i);
                    const bool own = tensor.place >= section.own;
                    const auto moved = [&](double by) {
                        return run(scenario, 1,
                                   [=](int rank, std::vector<double>& values) {
                                       if (!own || rank == 1) values[place] += by;
                                   })
                            .loss;
                    };
                    EXPECT_NEAR(at.gradients[1][place], (moved(e) - moved(-e)) / (2 * e), 2e-8)
                        << tensor.name << " " << i;
                }
            }
        }
    }
}

// Heads of k and v that are copies of one another's give what one shared head does, and its
// gradient is the sum of theirs.
TEST(Step, SharedKeysAreEqualKeys) {
    const int d = 8, w = 4, heads = 4;
    Scenario shared = tiny(ExpertParallel{}, 1, 1), apart = shared;
    shared.model.attention = {.num_heads = heads, .num_kv_heads = 2, .head_width = w};
    apart.model.attention = {.num_heads = heads, .num_kv_heads = heads, .head_width = w};
    Result few, all;
    const auto place = [](const Result& r, const char* name) {
        return static_cast<std::size_t>(r.parameters[0].layer(0)[name].place);
    };
    const auto rows_of = [&](std::vector<double>& values, std::size_t at, int first, int count) {
        const auto begin = values.begin() + static_cast<std::ptrdiff_t>(at) + first * w * d;
        return std::vector<double>(begin, begin + count * w * d);
    };
    few = run(shared, 1);
    // Every tensor of `shared` for `apart`, with each head of k and v twice.
    all = run(apart, 1, [&](int, std::vector<double>& values) {
        const StepSetup setup = step_setup(apart, apart.plans[0], {.forced = true});
        const StepParameters to = step_parameters(setup, 0);
        const StepParameters& from = few.parameters[0];
        std::vector<double> old = draw_parameters<double>(from);
        for (std::size_t s = 0; s < to.sections.size(); ++s) {
            for (std::size_t t = 0; t < to.sections[s].tensors.size(); ++t) {
                const WeightTensor &a = from.sections[s].tensors[t], &b = to.sections[s].tensors[t];
                const auto at = static_cast<std::size_t>(a.place);
                std::vector<double> rows(old.begin() + a.place, old.begin() + a.place + a.count());
                if (b.count() != a.count()) {
                    rows = rows_of(old, at, 0, heads);
                    for (int k = 0; k < 2 * heads; ++k) {
                        const auto head = rows_of(old, at, heads + k / 2, 1);
                        rows.insert(rows.end(), head.begin(), head.end());
                    }
                }
                std::ranges::copy(rows, values.begin() + b.place);
            }
        }
    });
    EXPECT_NEAR(all.loss, few.loss, 1e-12);
    for (int k = 0; k < 4; ++k) {  // two of k, two of v
        const auto sum = rows_of(few.gradients[0], place(few, "qkv"), heads + k, 1),
                   two = rows_of(all.gradients[0], place(all, "qkv"), heads + 2 * k, 2);
        for (std::size_t i = 0; i < sum.size(); ++i)
            EXPECT_NEAR(sum[i], two[i] + two[i + sum.size()], 1e-12) << k;
    }
}

// Two ranks with a sequence each compute what one rank with both does, after three steps.
TEST(Step, RanksDoNotChangeTheResult) {
    for (const MoeLayerSplit& split : splits()) {
        const Scenario apart = tiny(split, 2, 1);
        // Routing is drawn by source rank: one rank reads both parts of it.
        Result two = run(apart, 3);
        const StepSetup setup = step_setup(apart, apart.plans[0], {.forced = true});
        const Scenario together = tiny(split, 1, 2);
        const StepSetup whole = step_setup(together, together.plans[0], {.forced = true});
        StepRouting joined = step_routing(apart, setup, true);
        for (auto& layer : joined) {
            for (auto& sources : layer) {
                auto& first = sources[0].expert;
                first.insert(first.end(), sources[1].expert.begin(), sources[1].expert.end());
                sources.resize(1);
            }
        }
        double loss = 0.0;
        run_on_threads(1, [&](Communicator& comm) {
            RankContext context{.communicator = comm};
            ReferenceStep<double> step(context, whole, joined);
            for (int i = 0; i < 3; ++i) {
                step.start(TokenSource(whole, "").of(i, 0));
                run_step(step, step_blocks(3, 1));
            }
            loss = step.loss();
            for (std::size_t s = 0; s < step.parameters().sections.size(); ++s) {
                const Section &one = step.parameters().sections[s],
                              &half = two.parameters[1].sections[s];
                for (std::size_t t = 0; t < one.tensors.size(); ++t) {
                    const bool own = half.tensors[t].place >= half.own;
                    // Rank 1 has the second half of what is a rank's own.
                    const std::int64_t shift = own ? half.tensors[t].count() : 0;
                    for (std::int64_t i = 0; i < half.tensors[t].count(); ++i) {
                        const auto a = static_cast<std::size_t>(one.tensors[t].place + shift + i),
                                   b = static_cast<std::size_t>(half.tensors[t].place + i);
                        ASSERT_NEAR(step.values()[a], two.values[1][b], 1e-8)
                            << one.tensors[t].name << " " << i;
                        ASSERT_NEAR(step.gradients()[a], two.gradients[1][b], 1e-9);
                    }
                }
            }
        });
        EXPECT_NEAR(loss, two.loss, 1e-9);
    }
}

// m micro-batches of s sequences are the same tokens as one of m s, so that loss, gradient and what
// three steps make of the parameters are equal but for the order of the sums: about m epsilon of
// the largest summand. Once from m, once from the sequences of a global batch.
TEST(Step, MicroBatchesAddUpToOneBatch) {
    for (const MoeLayerSplit& split : splits()) {
        for (const int ranks : {1, 2}) {
            Scenario one = tiny(split, ranks, 4);
            const Result whole = run(one, 3, {}, false);
            for (const int sequences : {1, 2}) {
                Scenario cut = tiny(split, ranks, sequences);
                if (sequences == 1)
                    cut.batch.num_micro_batches = 4;
                else
                    cut.batch.global_batch_size = 4 * ranks;
                EXPECT_EQ(step_setup(cut, cut.plans[0], {}).num_micro_batches, 4 / sequences);
                const Result parts = run(cut, 3, {}, false);
                EXPECT_NEAR(parts.loss, whole.loss, 1e-13);
                for (std::size_t r = 0; r < whole.values.size(); ++r) {
                    for (std::size_t i = 0; i < whole.values[r].size(); ++i) {
                        ASSERT_NEAR(parts.gradients[r][i], whole.gradients[r][i], 1e-13);
                        // AdamW divides by |g|: where g is little but noise, that is all there is.
                        ASSERT_NEAR(parts.values[r][i], whole.values[r][i], 1e-8);
                    }
                }
            }
        }
    }
}

Recompute selective(RecomputeModules modules) {
    Recompute recompute;
    recompute.granularity = RecomputeGranularity::selective;
    recompute.modules = modules;
    return recompute;
}

Recompute first_layers(int count) {
    Recompute recompute = RecomputeLevel::full;
    recompute.method = RecomputeMethod::block;
    recompute.num_layers = count;
    return recompute;
}

std::vector<Recompute> recomputes() {
    using enum RecomputeModule;
    return {RecomputeLevel::moe, RecomputeLevel::full, selective(modules(moe)),
            selective(modules(mlp, experts)), first_layers(2)};
}

// What is computed again has the bits that it had.
TEST(Step, RecomputeChangesNoBit) {
    for (const MoeLayerSplit& split : splits()) {
        for (const int ranks : {1, 2}) {
            Scenario scenario = tiny(split, ranks, 2);
            scenario.batch.num_micro_batches = 2;
            const Result kept = run(scenario, 2);
            for (const Recompute& recompute : recomputes()) {
                scenario.plans[0].recompute = recompute;
                const Result again = run(scenario, 2);
                EXPECT_EQ(again.loss, kept.loss) << recompute_text(recompute);
                EXPECT_EQ(again.gradients, kept.gradients) << recompute_text(recompute);
                EXPECT_EQ(again.values, kept.values) << recompute_text(recompute);
            }
        }
    }
}

// A step executes every phase of the layers as often as the Workload that is priced has it: what is
// recomputed once more, its exchanges too, but not the counts. Not held: the norms, two of which
// are one phase, and rank-dedup's records and gradients of gates, which have no price of their own.
TEST(Step, RecomputedPhasesRunAsOftenAsTheyArePriced) {
    using Executed = std::multiset<std::tuple<int, Phase, Pass>>;
    for (const MoeLayerSplit& split : splits()) {
        for (const Recompute& recompute : recomputes()) {
            Scenario scenario = tiny(split, 2, 1);
            scenario.plans[0].recompute = recompute;
            const StepSetup setup = step_setup(scenario, scenario.plans[0], {.forced = true});
            const StepRouting routing = step_routing(scenario, setup, true);
            std::vector<Executed> executed(2);
            run_on_threads(2, [&](Communicator& comm) {
                std::vector<PhaseSample> samples;
                RankContext context{.communicator = comm, .samples = &samples};
                ReferenceStep<double> step(context, setup, routing);
                step.start(TokenSource(setup, "").of(0, comm.rank()));
                run_step(step, step_blocks(3, 1));
                for (const StepSample& s : step.marks().join(samples)) {
                    const CallSite site = s.phase.site;
                    const bool unpriced = site == CallSite{Phase::count_exchange, Pass::backward} ||
                                          site.phase == Phase::norm;
                    if (s.layer >= 0 && !unpriced)
                        executed[static_cast<std::size_t>(comm.rank())].insert(
                            {s.layer, site.phase, site.pass});
                }
            });
            Executed priced;
            const Workload work = build_workload(scenario, scenario.plans[0]);
            for (int l = 0; l < 3; ++l) {
                const LayerWork& layer = work.layers[static_cast<std::size_t>(
                    work.entry_of_layer[static_cast<std::size_t>(l)])];
                for (const auto* pass : {&layer.forward, &layer.backward})
                    for (const PhaseWork& p : *pass)
                        if (p.phase != Phase::norm) priced.insert({l, p.phase, p.pass});
            }
            EXPECT_EQ(executed[0], priced) << recompute_text(recompute);
            EXPECT_EQ(executed[1], priced) << recompute_text(recompute);
        }
    }
}

// At t = 1 both moments are unbiased by their own 1 - b: m / (1 - b1) = g, v / (1 - b2) = g^2, so a
// parameter moves by -lr g / (|g| + eps), whatever g is.
TEST(Step, FirstAdamWStepMovesByTheLearningRate) {
    const Scenario scenario = tiny(kHeads, 1, 1);
    std::vector<double> before;
    const Result after = run(scenario, 1, [&](int, std::vector<double>& v) { before = v; });
    int moved = 0;
    for (std::size_t i = 0; i < before.size(); ++i) {
        const double g = after.gradients[0][i], step = after.values[0][i] - before[i];
        EXPECT_NEAR(step, g == 0.0 ? 0.0 : -1e-3 * g / (std::abs(g) + 1e-8), 1e-12);
        moved += g != 0.0;
    }
    EXPECT_GT(moved, 300);
}

// With a head of zeros all logits are equal: the loss is ln V.
TEST(Step, LossOfEqualLogitsIsTheLogarithmOfTheVocabulary) {
    const Scenario scenario = tiny(ExpertParallel{}, 1, 1);
    const StepSetup setup = step_setup(scenario, scenario.plans[0], {.forced = true});
    const WeightTensor head = step_parameters(setup, 0).after()["head"];
    const Result result = run(scenario, 1, [&](int, std::vector<double>& v) {
        std::fill_n(v.begin() + head.place, head.count(), 0.0);
    });
    EXPECT_NEAR(result.loss, std::log(11.0), 1e-12);
}

TEST(Step, LossFallsOnText) {
    const auto file = std::filesystem::temp_directory_path() / "headway_step_test.txt";
    std::ofstream(file) << std::string("the quick brown fox jumps over the lazy dog. ") +
                               std::string("the quick brown fox jumps over the lazy dog. ");
    for (const MoeLayerSplit& split : splits()) {
        Scenario scenario = tiny(split, 2, 4);
        scenario.model.vocab_size = 256;
        const StepMeasurement m =
            measure_steps(scenario, scenario.plans[0],
                          {.num_steps = 60, .data = file.string(), .learning_rate = 0.01},
                          {.num_warmups = 0, .num_repeats = 1});
        ASSERT_EQ(m.losses.size(), 61U);
        EXPECT_NEAR(m.losses.front(), std::log(256.0), 1.0);
        EXPECT_LT(m.losses.back(), 0.6 * m.losses.front());
    }
    std::filesystem::remove(file);
}

// Every phase that the Workload of the step has, once a layer, pass and micro-batch; the update
// once.
TEST(Step, PhasesAreThoseOfTheWorkload) {
    for (const MoeLayerSplit& split : splits()) {
        Scenario scenario = tiny(split, 2, 1);
        scenario.batch.num_micro_batches = 2;
        const StepMeasurement m =
            measure_steps(scenario, scenario.plans[0], {.num_steps = 2, .forced = true},
                          {.num_warmups = 0, .num_repeats = 3});
        EXPECT_EQ(m.timeline.step->samples, 2);
        std::multiset<std::string> measured;
        std::set<std::string> predicted;
        const auto label = [](int micro_batch, int layer, Phase phase, Pass pass) {
            return std::to_string(micro_batch) + " " + std::to_string(layer) + " " +
                   std::string(name(phase)) + " " + std::string(name(pass));
        };
        const auto add = [&](int layer, const std::vector<PhaseWork>& phases) {
            for (const PhaseWork& p : phases)
                for (const int micro_batch : {0, 1})
                    if (p.pass != Pass::update || micro_batch == 1)
                        predicted.insert(label(micro_batch, layer, p.phase, p.pass));
        };
        const Workload work = build_workload(scenario, scenario.plans[0]);
        for (const auto* phases : {&work.before, &work.after, &work.update}) add(-1, *phases);
        for (std::size_t l = 0; l < 3; ++l) {
            const LayerWork& layer = work.layers[static_cast<std::size_t>(work.entry_of_layer[l])];
            add(static_cast<int>(l), layer.forward);
            add(static_cast<int>(l), layer.backward);
        }
        for (const Span& s : m.timeline.spans) {
            // The gates' gradient that rank-dedup sends back has no price of its own.
            if (s.phase == Phase::count_exchange && s.pass == Pass::backward) continue;
            EXPECT_EQ(s.samples, 3);
            if (s.rank == 0) measured.insert(label(s.micro_batch, s.layer, s.phase, s.pass));
        }
        EXPECT_EQ(measured, std::multiset<std::string>(predicted.begin(), predicted.end()));
    }
}

constexpr GraphScopes kWholeStep = 1U << static_cast<unsigned>(GraphScope::full_iteration);

// A graph is replayed by GPUs, where nothing waits for counts.
TEST(Step, GraphsAreOfGpus) {
    Scenario scenario = tiny(kHeads, 2, 1);
    scenario.plans[0].implementation = Implementation::headway;
    scenario.plans[0].cuda_graph_scope = kWholeStep;
    const StepRun run{.num_steps = 1, .forced = true};
    EXPECT_NO_THROW(step_setup(scenario, scenario.plans[0], run));
    EXPECT_THROW(step_setup(scenario, scenario.plans[0], {.num_steps = 1, .check = true}),
                 InputError);
    try {
        steps_on_threads(scenario, scenario.plans, run, {}, 1e6);
        FAIL();
    } catch (const InputError& error) {
        EXPECT_NE(std::string(error.what()).find("--device cuda"), std::string::npos);
    }
}

std::string refusal(const Scenario& scenario, const StepRun& run = {.forced = true}) {
    try {
        check_steps(scenario, scenario.plans, run);
        step_setup(scenario, scenario.plans[0], run);
    } catch (const InputError& error) {
        return error.what();
    }
    return "";
}

TEST(Step, RefusesWhatItDoesNotExecute) {
    const auto expect = [](const std::string& word, const std::function<void(Scenario&)>& change) {
        Scenario scenario = tiny(ExpertParallel{}, 2, 1);
        EXPECT_EQ(refusal(scenario), "");
        change(scenario);
        EXPECT_NE(refusal(scenario).find(word), std::string::npos)
            << word << ": " << refusal(scenario);
    };
    expect("overlap_chunks: 2", [](Scenario& s) { s.plans[0].overlap_chunks = 2; });
    expect("cuda_graph_scope of EP on 2 ranks", [](Scenario& s) {
        s.plans[0].implementation = Implementation::headway;
        s.plans[0].cuda_graph_scope = kWholeStep;
    });
    expect("global_batch_size: 5 of micro-batches of 2 sequences on 2 ranks",
           [](Scenario& s) { s.batch.global_batch_size = 5; });
    expect("recompute_modules: moe_act",
           [](Scenario& s) { s.plans[0].recompute = RecomputeLevel::activation; });
    expect("recompute_modules: core_attn, recompute_modules: layernorm", [](Scenario& s) {
        s.plans[0].recompute =
            selective(modules(RecomputeModule::core_attn, RecomputeModule::layernorm));
    });
    expect("recompute_num_layers: 3 of uniform", [](Scenario& s) {
        s.plans[0].recompute = RecomputeLevel::full;
        s.plans[0].recompute.num_layers = 3;
    });
    expect("gradient_accumulation_fusion: false",
           [](Scenario& s) { s.plans[0].gradient_accumulation_fusion = false; });
    expect("adamw_8bit", [](Scenario& s) { s.plans[0].optimizer = Optimizer::adamw_8bit; });
    expect("implementation: torch",
           [](Scenario& s) { s.plans[0].implementation = Implementation::torch; });
    expect("tied_embeddings", [](Scenario& s) { s.model.tied_embeddings = true; });
    expect("add_bias_linear", [](Scenario& s) { s.model.moe.add_bias_linear = true; });
    expect("shared experts", [](Scenario& s) {
        s.model.moe.num_shared_experts = 1;
        s.model.moe.shared_expert_width = 8;
    });
    expect("a group of 2 on a cluster of 4", [](Scenario& s) { s.cluster.gpus_per_node = 4; });
    Scenario skewed = tiny(ExpertParallel{}, 2, 1);
    skewed.routing.skew = Skew::zipf;
    EXPECT_NE(refusal(skewed, {}).find("--force-routing"), std::string::npos);
    EXPECT_NE(refusal(tiny(ExpertParallel{}, 2, 1), {.data = "x"}).find("vocab_size: 11"),
              std::string::npos);
    HeadParallel shared = kHeads;
    shared.num_heads = 1;
    shared.head_width = 8;
    EXPECT_NE(refusal(tiny(shared, 2, 1)).find("2 ranks for 1 heads"), std::string::npos);
}

}  // namespace
}  // namespace headway::runtime
