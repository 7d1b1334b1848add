#include "cli/calibration/cpu_samples.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <set>
#include <variant>

#include "models/fit/interleave.hpp"
#include "models/fit/layer_samples.hpp"
#include "models/vocab/quantile.hpp"
#include "runtime/layers/layer_setup.hpp"
#include "runtime/layers/measure.hpp"
#include "runtime/rank_context.hpp"
#include "runtime/reference/row_exchange.hpp"

namespace headway::cli {
namespace {

using namespace runtime;

struct Point {
    std::size_t plan = 0;
    std::int64_t tokens = 0;
    int top_k = 0;
};

int top_k_of(const Scenario& scenario, const Plan& plan) {
    const auto* hp = std::get_if<HeadParallel>(&plan.layer);
    return hp == nullptr ? scenario.model.moe.top_k : hp->top_k;
}

std::vector<Point> grid_of(const Scenario& scenario, bool full) {
    const std::vector<double> factors = full ? std::vector<double>{0.125, 0.25, 0.5, 1, 2, 4}
                                             : std::vector<double>{0.25, 0.5, 1, 2};
    std::vector<Point> points;
    for (std::size_t p = 0; p < scenario.plans.size(); ++p) {
        const Plan& plan = scenario.plans[p];
        const auto* hp = std::get_if<HeadParallel>(&plan.layer);
        const int num_experts = hp == nullptr ? scenario.model.moe.num_experts : hp->num_experts;
        std::set<int> ks;
        for (const double k : {0.5, 1.0, 2.0}) {
            ks.insert(std::clamp(static_cast<int>(k * top_k_of(scenario, plan)), 1, num_experts));
        }
        for (const int k : ks) {
            for (const double f : factors) {
                const double tokens = f * static_cast<double>(scenario.batch.tokens_per_rank());
                points.push_back({p, std::max<std::int64_t>(1, std::llround(tokens)), k});
            }
        }
    }
    return points;
}

void run_point(const Scenario& base, const Point& point, int num_ranks,
               CalibrationSamples& samples) {
    Scenario scenario = scenario_to_run(base, num_ranks, point.tokens);
    Plan& plan = scenario.plans[point.plan];
    if (auto* hp = std::get_if<HeadParallel>(&plan.layer)) {
        hp->top_k = point.top_k;
    } else {
        scenario.model.moe.top_k = point.top_k;
    }
    const Measurement m = measure_plan(scenario, plan, {.num_warmups = 1, .num_repeats = 3});
    add_samples(scenario, plan, m.timeline, samples);
}

// Bare all-to-all of `bytes` to every rank, as the layers do it.
double time_exchange(int num_ranks, std::int64_t bytes) {
    auto times = std::make_shared<std::vector<double>>();
    run_on_threads(num_ranks, [times, num_ranks, bytes](Communicator& comm) {
        const auto rows = std::max<std::int64_t>(1, bytes / 256);
        const Matrix<float> send = Matrix<float>::Ones(rows * num_ranks, 64);
        const std::vector<std::int64_t> counts(static_cast<std::size_t>(num_ranks), rows);
        std::vector<PhaseSample> phases;
        RankContext context{.communicator = comm, .samples = &phases};
        for (int i = 0; i < 7; ++i) {
            const PhaseScope scope(context, {Phase::dispatch, Pass::forward}, &comm);
            exchange_rows<float>(comm, send, counts, counts);
        }
        if (comm.rank() != 0) return;
        for (const PhaseSample& s : phases) times->push_back(s.duration);
    });
    return quantile(*times, 0.5);
}

// y = a x + b on arrays that sum up to `bytes`; and phases with nothing in them.
void time_streaming(std::int64_t bytes, CalibrationSamples& samples) {
    run_on_threads(1, [&](Communicator& comm) {
        const Eigen::Index count = bytes / 8;
        Matrix<float> x = Matrix<float>::Ones(1, count), y = x;
        std::vector<PhaseSample> phases;
        RankContext context{.communicator = comm, .samples = &phases};
        for (int i = 0; i < 7; ++i) {
            {
                const PhaseScope scope(context, {Phase::norm, Pass::forward});
                y.noalias() = 0.5F * x + 0.25F * Matrix<float>::Ones(1, count);
            }
            const PhaseScope scope(context, {Phase::loss, Pass::forward});
        }
        std::vector<double> work, empty;
        for (const PhaseSample& s : phases)
            (s.site.phase == Phase::norm ? work : empty).push_back(s.duration);
        samples.kernels.push_back({.kernel = Kernel::streaming,
                                   .size = static_cast<double>(bytes),
                                   .work = static_cast<double>(bytes),
                                   .seconds = quantile(work, 0.5)});
        samples.launch.push_back(quantile(empty, 0.5));
    });
}

constexpr std::int64_t kLargestExchange = 1 << 24, kLargestStream = 1 << 26;

// Streaming over `bytes`, and exchanges of as many between 2 and 4 ranks.
void run_size(const Scenario& scenario, std::int64_t bytes, CalibrationSamples& samples) {
    time_streaming(bytes, samples);
    if (bytes > kLargestExchange) return;
    for (const int ranks : {2, 4}) {
        const double sent = static_cast<double>(bytes * (ranks - 1));
        const double seconds = time_exchange(ranks, bytes);
        // Between the scenario's nodes, where it has some, lies the same memory.
        const Cluster cluster = scenario_to_run(scenario, ranks, 0).cluster;
        for (const PathClass path :
             std::set{path_class(cluster, 0, 1), path_class(cluster, 0, ranks - 1)}) {
            samples.exchanges.push_back(
                {.path = path, .num_ranks = ranks, .sample = {sent, seconds}, .is_bare = true});
        }
    }
}

// Inside a layer the caches are cold; where the layers reach, their samples are the truth.
void drop_covered(CalibrationSamples& samples, int num_ranks) {
    double low = INFINITY, high = 0.0;
    for (const ExchangeSample& s : samples.exchanges) {
        if (s.is_bare) continue;
        low = std::min(low, s.sample.bytes);
        high = std::max(high, s.sample.bytes);
    }
    std::erase_if(samples.exchanges, [&](const ExchangeSample& s) {
        return s.is_bare && s.num_ranks == num_ranks && low <= s.sample.bytes &&
               s.sample.bytes <= high;
    });
}

}  // namespace

CalibrationSamples measure_cpu(const Scenario& scenario, const CpuGrid& options) {
    const std::vector<Point> points = grid_of(scenario, options.full);
    std::vector<std::int64_t> sizes;
    for (std::int64_t bytes = 1 << 12; bytes <= kLargestStream; bytes *= 4) sizes.push_back(bytes);
    CalibrationSamples samples{.dtype = scenario.model.dtype};
    const Cluster cluster = scenario_to_run(scenario, options.num_ranks, 0).cluster;
    samples.link = link_bandwidth(cluster, path_class(cluster, 0, 1));
    // The order follows from the seed: steps that a file holds are the first.
    const std::vector<std::size_t> order =
        interleaved(points.size() + sizes.size(), options.num_passes, 1);
    for (std::size_t done = 0; done < order.size(); ++done) {
        const std::size_t i = order[done];
        CalibrationSamples of_step;
        if (options.file != nullptr && done < options.file->finished().size()) {
            of_step = options.file->finished()[done];
        } else {
            if (i < points.size()) {
                run_point(scenario, points[i], options.num_ranks, of_step);
            } else {
                run_size(scenario, sizes[i - points.size()], of_step);
            }
            if (options.file != nullptr) options.file->append(of_step);
        }
        append(samples, of_step);
        if (options.progress) options.progress(done + 1, order.size());
    }
    drop_covered(samples, options.num_ranks);
    return samples;
}

}  // namespace headway::cli
