#include "runtime/cuda/step/measure_cuda_step.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <memory>
#include <utility>

#include "kernels/check.hpp"
#include "models/vocab/error.hpp"
#include "runtime/cuda/measure_device.hpp"
#include "runtime/cuda/step/step_runner.hpp"
#include "runtime/thread_communicator.hpp"

namespace headway::runtime {
namespace {

// So many steps are enqueued ahead at most.
constexpr int kStepsAhead = 64;

struct StepCounts {
    int warmups = 0, wholes = 0, timed = 0;

    int all() const { return warmups + wholes + timed; }
};

// A graph is captured behind one warm-up and replayed in another.
StepCounts counts_of(const StepRun& run, const MeasureOptions& options, bool graph) {
    return {graph ? std::max(2, options.num_warmups) : options.num_warmups, run.num_steps,
            options.num_repeats};
}

// Events between steps.
class StepClock {
  public:
    StepClock() = default;
    StepClock(const StepClock&) = delete;
    StepClock& operator=(const StepClock&) = delete;
    ~StepClock() {
        for (cudaEvent_t e : events_) cudaEventDestroy(e);
    }
    void mark(cudaStream_t stream) {
        events_.push_back(nullptr);
        HEADWAY_CUDA_CHECK(cudaEventCreate(&events_.back()));
        HEADWAY_CUDA_CHECK(cudaEventRecord(events_.back(), stream));
    }
    // Once the stream has been waited for: seconds between the marks.
    std::vector<double> read() const {
        std::vector<double> times;
        for (std::size_t i = 1; i < events_.size(); ++i) {
            float ms = 0.0F;
            HEADWAY_CUDA_CHECK(cudaEventElapsedTime(&ms, events_[i - 1], events_[i]));
            times.push_back(1e-3 * double{ms});
        }
        return times;
    }

  private:
    std::vector<cudaEvent_t> events_;
};

StepRecord run_steps(DeviceContext& context, const CudaStep& step, StepRunner& runner,
                     const StepCounts& counts) {
    StepClock wholes;
    const int first = counts.warmups, end = first + counts.wholes;
    for (int i = 0; i < counts.all(); ++i) {
        // In front of what is timed there is an idle device and a host that is not yet ahead: the
        // last warm-up makes it busy again.
        if (i % kStepsAhead == std::max(0, first - 1) % kStepsAhead)
            context.communicator.wait(context.stream);
        if (i >= first && i <= end) wholes.mark(context.stream);
        i < end ? runner.run(i) : runner.run_timed(i);
    }
    if (counts.timed == 0) wholes.mark(context.stream);
    context.communicator.wait(context.stream);
    return {.step_times = wholes.read(), .phases = runner.phases(), .losses = step.losses()};
}

// Every rank's numbers in this order, on every rank: all ranks executed the same phases.
template <class Visit>
void visit_numbers(StepRecord& record, Visit&& visit) {
    for (double& time : record.step_times) visit(time);
    for (double& loss : record.losses) visit(loss);
    for (auto& step : record.phases) {
        for (StepSample& sample : step) {
            visit(sample.phase.begin);
            visit(sample.phase.duration);
        }
    }
}

std::vector<StepRecord> gather(DeviceCommunicator& communicator, StepRecord own) {
    std::vector<std::int64_t> flat;
    visit_numbers(own, [&](double value) { flat.push_back(std::bit_cast<std::int64_t>(value)); });
    const std::vector<std::int64_t> all = communicator.all_gather_counts(flat);
    std::vector<StepRecord> records(static_cast<std::size_t>(communicator.size()), own);
    auto at = all.begin();
    for (StepRecord& record : records)
        visit_numbers(record, [&](double& value) { value = std::bit_cast<double>(*at++); });
    return records;
}

// The kernels' own refusals of a shape are refusals of the plan.
std::unique_ptr<CudaStep> make_step(DeviceContext& context, DeviceCommunicator* reductions,
                                    const StepSetup& setup, const StepRouting& routing,
                                    const StepInputs& inputs, int num_steps) {
    try {
        return std::make_unique<CudaStep>(context, reductions, setup, routing, inputs, num_steps);
    } catch (const std::invalid_argument& error) {
        throw InputError({.where = "a step on CUDA",
                          .found = error.what(),
                          .accepted = "shapes that the kernels take"});
    }
}

StepMeasurement measure(DeviceContext& context, DeviceCommunicator* reductions,
                        const Scenario& scenario, const Plan& plan, const StepRun& run,
                        const MeasureOptions& options) {
    const StepSetup setup = step_setup(scenario, plan, run);
    const StepRouting routing = step_routing(scenario, setup, run.forced);
    const bool graph = has_scope(plan.cuda_graph_scope, GraphScope::full_iteration);
    const StepCounts counts = counts_of(run, options, graph);
    DeviceArena& arena = context.arena;
    const ArenaScope scope(arena);
    const StepInputs inputs(arena, setup, TokenSource(setup, run.data), context.communicator.rank(),
                            counts.all());
    const auto base = static_cast<std::int64_t>(arena.used());
    arena.reset_peak();
    const auto step = make_step(context, reductions, setup, routing, inputs, counts.all());
    StepRunner runner(context, *step, step_blocks(setup.model.num_layers, setup.num_micro_batches),
                      graph);
    StepRecord own = run_steps(context, *step, runner, counts);
    RunState state = run_state(context.communicator);
    state.in_flow = true;
    state.graph = graph;
    const std::int64_t peak = static_cast<std::int64_t>(arena.peak()) - base;
    const std::vector<std::int64_t> peaks = context.communicator.all_gather_counts({&peak, 1});
    state.memory_peak = static_cast<double>(*std::ranges::max_element(peaks)) * byte;
    StepMeasurement result = to_step_measurement(
        scenario, plan, device_name(), gather(context.communicator, std::move(own)), true);
    result.timeline.run = std::move(state);
    return result;
}

constexpr double kTolerance = 0.06;  // of a gradient, in bf16: two units in its last place, 2^-4

struct Reference {
    double loss = 0.0;
    std::vector<double> gradients;  // of the wanted rank
};

Reference reference_of(const StepSetup& setup, const StepRouting& routing, const std::string& data,
                       int wanted) {
    auto result = std::make_shared<Reference>();
    auto losses = std::make_shared<std::vector<double>>(static_cast<std::size_t>(setup.num_ranks));
    run_on_threads(setup.num_ranks, [=](Communicator& comm) {
        RankContext context{.communicator = comm};
        ReferenceStep<double> step(context, setup, routing);
        step.start(TokenSource(setup, data).of(0, comm.rank()));
        run_step(step, step_blocks(setup.model.num_layers, setup.num_micro_batches));
        (*losses)[static_cast<std::size_t>(comm.rank())] = step.loss();
        if (comm.rank() == wanted) result->gradients = step.gradients();
    });
    for (const double loss : *losses) result->loss += loss;
    return *result;
}

// |a - b| / |b| of a tensor.
double distance(const WeightTensor& t, const std::vector<float>& a, const std::vector<double>& b) {
    double difference = 0.0, norm = 0.0;
    for (auto i = static_cast<std::size_t>(t.place); i < std::size_t(t.place + t.count()); ++i) {
        difference += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
        norm += b[i] * b[i];
    }
    return std::sqrt(difference / norm);
}

std::string check(DeviceContext& context, DeviceCommunicator* reductions, const Scenario& scenario,
                  const Plan& plan, const StepRun& run) {
    const StepSetup setup = step_setup(scenario, plan, run);
    const StepRouting routing = step_routing(scenario, setup, run.forced);
    const int rank = context.communicator.rank();
    const ArenaScope scope(context.arena);
    const StepInputs inputs(context.arena, setup, TokenSource(setup, run.data), rank, 1);
    const auto step = make_step(context, reductions, setup, routing, inputs, 1);
    step->start(0);
    step->run(step_blocks(setup.model.num_layers, setup.num_micro_batches));
    step->finish();
    context.communicator.wait(context.stream);
    const std::vector<float> gradients = step->gradients();
    const Reference reference = reference_of(setup, routing, run.data, rank);
    std::map<std::string, double> worst;
    for (const Section& section : step->parameters().sections) {
        for (const WeightTensor& t : section.tensors)
            worst[t.name] = std::max(worst[t.name], distance(t, gradients, reference.gradients));
    }
    std::vector<std::int64_t> own{std::bit_cast<std::int64_t>(step->losses().front())};
    for (const auto& [name, error] : worst) own.push_back(std::bit_cast<std::int64_t>(error));
    const std::vector<std::int64_t> all = context.communicator.all_gather_counts(own);
    double loss = 0.0, largest = 0.0;
    for (std::size_t i = 0; i < all.size(); i += own.size()) {
        loss += std::bit_cast<double>(all[i]);
        std::size_t at = i;
        for (auto& [name, error] : worst) error = std::max(error, std::bit_cast<double>(all[++at]));
    }
    std::string text =
        fmt::format("plan {}: loss {:.6f}, reference {:.6f}\n", plan.name, loss, reference.loss);
    for (const auto& [name, error] : worst) {
        text += fmt::format("  gradient of {:<12} {:.4f}\n", name, error);
        largest = std::max(largest, std::isfinite(error) ? error : INFINITY);
    }
    largest = std::max(largest, std::abs(loss / reference.loss - 1.0));
    if (largest > kTolerance)
        throw std::runtime_error(text + "a gradient is further from the reference than " +
                                 std::to_string(kTolerance));
    return text;
}

}  // namespace

StepMeasurement measure_steps_on_device(DeviceContext& context, DeviceCommunicator* reductions,
                                        const Scenario& scenario, const Plan& plan,
                                        const StepRun& run, const MeasureOptions& options) {
    return as_failures_of_the_rank(
        context, [&] { return measure(context, reductions, scenario, plan, run, options); });
}

std::string check_step_on_device(DeviceContext& context, DeviceCommunicator* reductions,
                                 const Scenario& scenario, const Plan& plan, const StepRun& run) {
    return as_failures_of_the_rank(context,
                                   [&] { return check(context, reductions, scenario, plan, run); });
}

}  // namespace headway::runtime
