#include "models/recorded/head_parallel.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "models/cost/fitted_tasks.hpp"
#include "models/cost/moe_layer.hpp"
#include "models/recorded/exchanges.hpp"
#include "models/scenario/head_parallel_twin.hpp"
#include "models/text/human.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline recorded {
namespace {

bool is_exchange(const RecordedTask& task) {
    return task.kind == RecordedKind::collective && task.collective == Collective::all_to_all;
}

// A routed exchange and the one that sends its rows back, by their numbers.
struct MoePair {
    int out = 0, back = 0;
    Pass pass = Pass::forward;
};

class Replacement {
  public:
    Replacement(const Recording& recording, int num_heads, const Cluster& cluster,
                const Profile& profile)
        : in_(recording), num_heads_(num_heads), cluster_(cluster), profile_(profile) {}

    Recording run() {
        check_router();
        find_layers();
        price_layer();
        measure_host();
        write();
        return std::move(result_);
    }

  private:
    [[noreturn]] void refuse(std::string found, std::string accepted, std::string hint = "") const {
        throw InputError({.where = "program " + in_.name + " under Head Parallel",
                          .found = std::move(found),
                          .accepted = std::move(accepted),
                          .hint = std::move(hint)});
    }

    const RecordedTask& task(int number) const {
        return in_.tasks[static_cast<std::size_t>(number)];
    }
    bool is_annotated(const RecordedTask& t, Pass pass) const {
        const std::string& label = in_.router->annotation;
        return t.kind == RecordedKind::compute &&
               t.what == (pass == Pass::forward ? label : label + " backward");
    }

    void check_router() const {
        const RecordedRouter router = in_.router.value_or(RecordedRouter{});
        if (!router.expert_width || !router.activation || router.annotation.empty())
            refuse("a router without expert_width, activation or annotation",
                   "router: {experts: E, top_k: K, expert_width: F, activation: A, annotation: "
                   "NAME}",
                   "NAME: of the record_function around the script's MoE layers");
    }

    // Also what of the recording goes: `out_`.
    void find_layers() {
        out_.assign(in_.tasks.size(), false);
        const int count = static_cast<int>(in_.tasks.size());
        int behind = 0;  // the last pair's end
        for (int t = 0; t < count; ++t) {
            for (const Pass pass : {Pass::forward, Pass::backward})
                if (is_annotated(task(t), pass)) out_[static_cast<std::size_t>(t)] = true;
            if (!task(t).returns) continue;
            pairs_.push_back({.out = *task(t).returns, .back = t});
            take_out(pairs_.back(), behind);
            behind = t + 1;
        }
        const auto forward = std::ranges::count(pairs_, Pass::forward, &MoePair::pass);
        if (pairs_.empty())
            refuse("no exchange whose rows another one brings back", "a script with MoE layers");
        if (2 * forward != static_cast<std::ptrdiff_t>(pairs_.size()))
            refuse(fmt::format("{} exchanges with '{}' between them and their return, {} with '{} "
                               "backward'",
                               forward, in_.router->annotation,
                               static_cast<std::ptrdiff_t>(pairs_.size()) - forward,
                               in_.router->annotation),
                   "one of each a layer",
                   "the annotation stands around the whole layer and holds no other; layers that "
                   "run again in backward are not replaced");
    }

    void take_out(MoePair& pair, int behind) {
        bool forward = false, backward = false;
        for (int t = pair.out; t <= pair.back; ++t) {
            const bool is_of_pair = t == pair.out || t == pair.back || task(t).rows_of == pair.out;
            if (is_of_pair) out_[static_cast<std::size_t>(t)] = true;
            forward = forward || is_annotated(task(t), Pass::forward);
            backward = backward || is_annotated(task(t), Pass::backward);
        }
        if (forward == backward)
            refuse(fmt::format("tasks {} to {}, an exchange and its return: {}", pair.out,
                               pair.back, forward ? "forward and backward" : "no annotation"),
                   fmt::format("kernels of '{0}' or of '{0} backward' between them",
                               in_.router->annotation),
                   "with torch.profiler.record_function(NAME): around the MoE layer");
        pair.pass = forward ? Pass::forward : Pass::backward;
        // Counts travel ahead of the rows, and the host waits for them.
        for (int t = pair.out - 1; t >= behind; --t) {
            const bool counts = is_exchange(task(t)) && task(t).group == task(pair.out).group;
            const bool wait = task(t).host_waits && task(t).kernels == 0;
            if (counts || wait) out_[static_cast<std::size_t>(t)] = true;
        }
    }

    void price_layer() {
        const RecordedTask& first = task(pairs_.front().out);
        group_ = first.group;
        for (const MoePair& pair : pairs_)
            if (task(pair.out).group != group_ || task(pair.out).row_bytes != first.row_bytes)
                refuse("MoE layers over several groups, or of several widths", "equal ones");
        const int ranks = in_.groups[static_cast<std::size_t>(group_)].size;
        // The layout of the recording applies what overrides say.
        Scenario scenario = routed_layer(in_, first, without_overrides(cluster_), Routing{});
        ModelSpec& model = scenario.model;
        model.name = in_.name;
        model.hidden = static_cast<int>(first.row_bytes / bytes_per_element(model.dtype));
        model.moe.expert_width = *in_.router->expert_width;
        model.moe.activation = *in_.router->activation;
        if (model.hidden % num_heads_ != 0 || num_heads_ % ranks != 0)
            refuse(
                fmt::format("{} heads of rows of {} on {} ranks", num_heads_, model.hidden, ranks),
                fmt::format("a multiple of {} that divides {}", ranks, model.hidden));
        if (cluster_.num_ranks() % ranks != 0)
            refuse(fmt::format("groups of {} on {} ranks", ranks, cluster_.num_ranks()),
                   "a cluster of whole groups");
        const HeadParallel twin = head_parallel_twin(model, {.num_heads = num_heads_});
        const Plan plan{.name = "hp", .layer = twin, .group_size = ranks};
        MoePrediction layer = predict_moe_layers(scenario, plan, profile_, 1);
        layer_ = std::move(layer.timeline.spans);
        result_ = {.name = in_.name, .inferred = in_.inferred};
        result_.inferred.push_back(describe_twin(model, twin, "head-parallel"));
        for (const std::string& warning : layer.warnings)
            result_.inferred.push_back("HP layer: " + warning);
        projections_ = 2.0 * model.hidden * twin.num_heads * twin.head_width;
    }

    void measure_host() {
        Seconds host;
        int kernels = 0;
        for (const RecordedTask& t : in_.tasks) {
            if (t.kind != RecordedKind::compute) continue;
            host += t.host;
            kernels += t.kernels;
        }
        host_of_kernel_ = host / std::max(1, kernels);
        std::vector<Seconds> exchanges;
        for (const MoePair& pair : pairs_) exchanges.push_back(task(pair.out).host);
        const auto middle = exchanges.begin() + static_cast<std::ptrdiff_t>(exchanges.size() / 2);
        std::ranges::nth_element(exchanges, middle);
        host_of_exchange_ = *middle;
    }

    void write() {
        std::vector<RecordedTask> tasks;
        std::vector<int> number_of(in_.tasks.size(),
                                   -1);  // here; of one that is out, the one before
        Seconds out;
        std::size_t pair = 0;
        if (in_.world_size > 1) world_ = group_of_all_ranks();
        for (std::size_t t = 0; t < in_.tasks.size(); ++t) {
            if (pair < pairs_.size() && static_cast<int>(t) == pairs_[pair].out)
                write_layer(pairs_[pair++], tasks);
            const RecordedTask& old = in_.tasks[t];
            if (out_[t]) {
                out += old.device;
            } else {
                tasks.push_back(old);
                keep_numbers(tasks.back(), number_of);
            }
            number_of[t] = static_cast<int>(tasks.size()) - 1;
        }
        std::vector<std::string> inferred = std::move(result_.inferred);
        const std::vector<RecordedGroup> groups =
            result_.groups.empty() ? in_.groups : result_.groups;
        result_ = in_;
        result_.tasks = std::move(tasks);
        result_.groups = groups;
        result_.inferred = std::move(inferred);
        result_.inferred.push_back(fmt::format(
            "{} passes of MoE layers and their {} of kernels, exchanges apart, are HP's; all else "
            "is the script's",
            pairs_.size(), human(out)));
    }

    // What a task refers to is before it.
    static void keep_numbers(RecordedTask& task, const std::vector<int>& number_of) {
        std::vector<int> after;
        for (const int before : task.after)
            if (number_of[static_cast<std::size_t>(before)] >= 0)
                after.push_back(number_of[static_cast<std::size_t>(before)]);
        task.after = std::move(after);
        task.rows_of.reset();
    }

    int group_of_all_ranks() {
        result_.groups = in_.groups;
        for (std::size_t g = 0; g < in_.groups.size(); ++g)
            if (in_.groups[g].size == in_.world_size && in_.groups[g].stride == 1)
                return static_cast<int>(g);
        result_.groups.push_back(
            {.name = "all ranks", .size = in_.world_size, .stride = 1, .grows = true});
        return static_cast<int>(result_.groups.size()) - 1;
    }

    void write_layer(const MoePair& pair, std::vector<RecordedTask>& tasks) const {
        const int stream = in_.tasks[first_kernels()].stream;
        const std::string suffix = pair.pass == Pass::backward ? " backward" : "";
        const auto ranks =
            static_cast<std::size_t>(in_.groups[static_cast<std::size_t>(group_)].size);
        for (const Span& span : layer_) {
            if (span.pass != pair.pass) continue;
            RecordedTask t{.stream = stream,
                           .what = fmt::format("HP {}{}", name(span.phase), suffix)};
            if (is_communication(span.phase)) {
                // The bytes of a rank, which sends to all others alike.
                const double to_each = span.bytes.in(byte) / static_cast<double>(ranks - 1);
                t.kind = RecordedKind::collective;
                t.host = host_of_exchange_;
                t.collective = Collective::all_to_all;
                t.group = group_;
                t.send = t.receive = std::vector<double>(ranks, to_each);
            } else {
                t.host = t.lead = host_of_kernel_;
                t.device = t.fixed = span.duration;
                t.kernels = 1;
                t.flops = span.flops;
            }
            tasks.push_back(std::move(t));
        }
        if (pair.pass == Pass::forward || in_.world_size == 1) return;
        tasks.push_back({.kind = RecordedKind::collective,
                         .stream = stream,
                         .host = host_of_exchange_,
                         .what = "HP projections",
                         .collective = Collective::all_reduce,
                         .group = world_,
                         .bytes = projections_ * bytes_per_element(Dtype::bf16) * byte});
    }

    std::size_t first_kernels() const {
        return static_cast<std::size_t>(
            std::ranges::find(in_.tasks, RecordedKind::compute, &RecordedTask::kind) -
            in_.tasks.begin());
    }

    const Recording& in_;
    const int num_heads_;
    const Cluster& cluster_;
    const Profile& profile_;
    Recording result_;
    std::vector<bool> out_;  // [task]
    std::vector<MoePair> pairs_;
    int group_ = 0, world_ = 0;  // the MoE layers', all ranks'
    std::vector<Span> layer_;    // phases of an HP layer, both passes
    double projections_ = 0.0;   // parameters of a layer
    Seconds host_of_kernel_, host_of_exchange_;
};

}  // namespace

Recording under_head_parallel(const Recording& recording, int num_heads, const Cluster& cluster,
                              const Profile& profile) {
    return Replacement(recording, num_heads, cluster, profile).run();
}

}  // namespace headway::inline recorded
