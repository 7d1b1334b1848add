#include "models/cost/program.hpp"

#include <algorithm>
#include <map>
#include <span>
#include <tuple>
#include <utility>
#include <variant>

#include "models/cost/program_tasks.hpp"
#include "models/workload/schedule.hpp"

namespace headway::inline cost {
namespace {

// What a layer's draw means: traffic of every group, and the phases of every rank with its own rows
// (dense layers, and layers whose routing stays on the rank: one entry for all).
struct LayerDraw {
    const std::vector<DrawnGroup>* groups = nullptr;
    std::vector<LayerWork> ranks;

    const std::vector<PhaseWork>& phases(Pass pass) const {
        return pass == Pass::forward ? ranks[0].forward : ranks[0].backward;
    }
    const std::vector<PhaseRange>& pipelines(Pass pass) const {
        return pass == Pass::forward ? ranks[0].forward_pipelines : ranks[0].backward_pipelines;
    }
    std::vector<const PhaseWork*> by_rank(Pass pass, std::size_t index) const {
        std::vector<const PhaseWork*> result;
        for (const LayerWork& rank : ranks)
            result.push_back(&(pass == Pass::forward ? rank.forward : rank.backward)[index]);
        return result;
    }
};

// The load as one rank sees it: its rows, what it sends and gets.
GroupLoad load_of_rank(const DrawnGroup& group, int rank, const ExpertLayout& layout, int island) {
    GroupLoad load{.rows_mean = layout.tokens_per_rank * layout.router.top_k,
                   .rows_max = static_cast<double>(group.rows[static_cast<std::size_t>(rank)]),
                   .forwarded = group.forwarded};
    const TrafficMatrix& arriving = group.forwarded ? group.staged.inside : group.copies;
    load.copies_received = static_cast<double>(arriving.received(rank) + arriving.at(rank, rank));
    if (!group.forwarded) {
        load.copies_sent = static_cast<double>(arriving.sent(rank) + arriving.at(rank, rank));
        return load;
    }
    // `inside` holds what the rank forwards for others too; its own share is one island's part.
    double inside = 0.0;
    for (int d = 0; d < arriving.num_ranks; ++d)
        inside += static_cast<double>(arriving.at(rank, d));
    const double own = inside * island / layout.group_size;
    load.copies_sent = static_cast<double>(group.staged.over_nic.sent(rank)) + own;
    load.copies_forwarded = inside - own;
    return load;
}

// Appends tasks in the order of the step; keeps the last task of each stream to depend on.
class ProgramBuilder {
  public:
    ProgramBuilder(const Scenario& scenario, const Plan& plan, const Profile& profile,
                   const ProgramOptions& options)
        : scenario_(scenario),
          plan_(plan),
          options_(options),
          workload_(build_workload(scenario, plan)),
          pricer_(scenario, plan, profile, workload_) {
        program_.num_ranks = scenario.cluster.num_ranks();
        program_.overlap_slowdown = profile.overheads.overlap_slowdown;
    }

    Program build() {
        const int layers = scenario_.model.num_layers;
        std::map<int, std::vector<std::vector<DrawnGroup>>> drawn;  // [draw][layer]
        for (const Block& block : step_blocks(layers, workload_.num_micro_batches)) {
            micro_batch_ = block.micro_batch;
            std::vector<std::vector<DrawnGroup>>& draws = drawn[draw_of(micro_batch_)];
            switch (block.kind) {
                case BlockKind::before:
                    run_outer(workload_.before, block.pass);
                    if (block.pass == Pass::forward || options_.num_draws > 0) break;
                    pricer_.forget_draws();
                    drawn.clear();
                    break;
                case BlockKind::layer:
                    for (int i = static_cast<int>(draws.size()); i < layers; ++i)
                        draws.push_back(draw(i));
                    run_layer(draws[static_cast<std::size_t>(block.layer)], block.layer,
                              block.pass);
                    break;
                case BlockKind::after:
                    run_outer(workload_.after, block.pass);
                    break;
                case BlockKind::bucket:
                    reduce_bucket(block.layer);
                    break;
                case BlockKind::update:
                    run_update();
                    break;
            }
        }
        return std::move(program_);
    }

  private:
    int draw_of(int micro_batch) const {
        return options_.num_draws > 0 ? micro_batch % options_.num_draws : micro_batch;
    }

    std::vector<DrawnGroup> draw(int layer) const {
        std::vector<DrawnGroup> groups;
        const int n = pricer_.layout().group_size;
        if (n == 1 || !scenario_.model.is_moe_layer(layer)) return groups;
        const int sample = options_.sample * workload_.num_micro_batches + draw_of(micro_batch_);
        for (int g = 0; g < program_.num_ranks / n; ++g)
            groups.push_back(draw_group(scenario_, plan_, layer, g, sample));
        return groups;
    }

    LayerDraw layer_draw(int layer, const std::vector<DrawnGroup>& groups) const {
        LayerDraw result{.groups = &groups, .ranks = {}};
        if (groups.empty()) {
            const int entry = workload_.entry_of_layer[static_cast<std::size_t>(layer)];
            result.ranks.push_back(workload_.layers[static_cast<std::size_t>(entry)]);
            return result;
        }
        const int n = pricer_.layout().group_size,
                  island = std::min(n, scenario_.cluster.island_size());
        for (int rank = 0; rank < program_.num_ranks; ++rank) {
            const GroupLoad load = load_of_rank(groups[static_cast<std::size_t>(rank / n)],
                                                rank % n, pricer_.layout(), island);
            result.ranks.push_back(build_moe_layer(scenario_, plan_, load, layer));
        }
        return result;
    }

    int last_of(Stream stream) const { return last_[static_cast<std::size_t>(stream)]; }

    Task& add(Phase phase, Pass pass, int layer, Stream stream, std::vector<int> after,
              int chunk = 0) {
        last_[static_cast<std::size_t>(stream)] = static_cast<int>(program_.tasks.size());
        std::erase_if(after, [](int i) { return i < 0; });
        program_.tasks.push_back({.phase = phase,
                                  .pass = pass,
                                  .layer = layer,
                                  .micro_batch = micro_batch_,
                                  .chunk = chunk,
                                  .stream = stream,
                                  .after = std::move(after),
                                  .work = ComputeTask{}});
        return program_.tasks.back();
    }

    void run_outer(const std::vector<PhaseWork>& phases, Pass pass) {
        LayerDraw all;
        const std::span<const PhaseWork> own = of_pass(phases, pass);
        LayerWork& outer = all.ranks.emplace_back();
        (pass == Pass::forward ? outer.forward : outer.backward).assign(own.begin(), own.end());
        write_pass(all, -1, pass);
    }

    void run_slot(const LayerDraw& draw, int layer, Pass pass, const Slot& slot,
                  std::vector<int> after) {
        const auto index = static_cast<std::size_t>(slot.phase);
        const PhaseWork& phase = draw.phases(pass)[index];
        const double fraction = 1.0 / slot.num_chunks;
        Task& task = add(phase.phase, pass, layer, slot.stream, std::move(after), slot.chunk);
        if (std::holds_alternative<ComputeWork>(phase.work)) {
            task.work = pricer_.compute_task(draw.by_rank(pass, index), fraction);
        } else if (const auto* counts = std::get_if<CountExchangeWork>(&phase.work)) {
            task.work = pricer_.count_exchange_task(*counts);
        } else if (const auto* reduce = std::get_if<ReduceWork>(&phase.work)) {
            task.work = pricer_.reduce_task(*reduce, fraction);
        } else {
            task.work = pricer_.exchange_task(phase, draw.groups, fraction);
        }
    }

    // A micro-batch with the draw of an earlier one does what that did.
    void run_layer(const std::vector<DrawnGroup>& groups, int layer, Pass pass) {
        const std::tuple key{draw_of(micro_batch_), layer, pass};
        const auto written = written_.find(key);
        if (written != written_.end()) return copy_tasks(written->second);
        const int begin = static_cast<int>(program_.tasks.size());
        // Before the first tasks of a stream there is nothing to wait for, later there is.
        const bool can_be_copied = options_.num_draws > 0 && last_of(Stream::compute) >= 0 &&
                                   last_of(Stream::communication) >= 0;
        write_pass(layer_draw(layer, groups), layer, pass);
        if (can_be_copied) written_[key] = {begin, static_cast<int>(program_.tasks.size())};
    }

    // What the tasks [begin, end) waited for before them were the last tasks of their streams.
    void copy_tasks(const std::array<int, 2>& range) {
        std::vector<int> before = last_;
        before[static_cast<std::size_t>(Stream::gradient)] = beside_;
        const int shift = static_cast<int>(program_.tasks.size()) - range[0];
        for (int t = range[0]; t < range[1]; ++t) {
            Task task = program_.tasks[static_cast<std::size_t>(t)];
            task.micro_batch = micro_batch_;
            for (int& wait : task.after) {
                const Stream stream = program_.tasks[static_cast<std::size_t>(wait)].stream;
                wait = wait >= range[0] ? wait + shift : before[static_cast<std::size_t>(stream)];
            }
            last_[static_cast<std::size_t>(task.stream)] = t + shift;
            if (task.stream == Stream::gradient) beside_ = t + shift;
            program_.tasks.push_back(std::move(task));
        }
    }

    // A pass begins when what ran beside the one before it has ended.
    void write_pass(const LayerDraw& draw, int layer, Pass pass) {
        const std::vector<int> before = last_;
        const int first = static_cast<int>(program_.tasks.size()), beside_before = beside_;
        for (const Slot& slot :
             pass_slots(draw.phases(pass), draw.pipelines(pass), plan_.overlap_chunks)) {
            std::vector<int> after = {
                slot.after >= 0 ? first + slot.after
                                : before[static_cast<std::size_t>(stream_before(slot.after))]};
            if (slot.stream == Stream::gradient) {
                beside_ = static_cast<int>(program_.tasks.size());
            } else if (slot.after < 0) {
                after.push_back(beside_before);
            }
            run_slot(draw, layer, pass, slot, std::move(after));
        }
    }

    // With overlap a layer's gradients leave as soon as its backward is done.
    void reduce_bucket(int layer) {
        for (const PhaseWork& phase : workload_.update) {
            const auto* reduce = std::get_if<ReduceWork>(&phase.work);
            if (reduce == nullptr || !reduce->overlaps_backward) continue;
            add(phase.phase, Pass::update, layer, Stream::gradient, {last_of(Stream::compute)})
                .work = pricer_.reduce_task(*reduce, 1.0 / reduce->num_buckets);
        }
    }

    void run_update() {
        for (const PhaseWork& phase : workload_.update) {
            const std::vector<int> after = {last_of(Stream::compute),
                                            last_of(Stream::communication),
                                            last_of(Stream::gradient)};
            if (const auto* reduce = std::get_if<ReduceWork>(&phase.work)) {
                if (reduce->overlaps_backward) continue;
                add(phase.phase, Pass::update, -1, Stream::gradient, after).work =
                    pricer_.reduce_task(*reduce, 1.0);
            } else {
                add(phase.phase, Pass::update, -1, Stream::compute, after).work =
                    pricer_.compute_task({&phase}, 1.0);
            }
        }
    }

    const Scenario& scenario_;
    const Plan& plan_;
    const ProgramOptions options_;
    const Workload workload_;
    TaskPricer pricer_;
    Program program_;
    int micro_batch_ = 0;
    int beside_ = -1;  // the last task that runs beside a pass
    std::vector<int> last_ = std::vector<int>(kNumStreams, -1);         // last task of each stream
    std::map<std::tuple<int, int, Pass>, std::array<int, 2>> written_;  // [draw, layer, pass]
};

}  // namespace

Program build_program(const Scenario& scenario, const Plan& plan, const Profile& profile,
                      const ProgramOptions& options) {
    if (options.num_layers <= 0 || options.num_layers >= scenario.model.num_layers)
        return ProgramBuilder(scenario, plan, profile, options).build();
    // What is left out has no parameters either: neither gradients nor an update.
    Scenario cut = scenario;
    cut.model.num_layers = options.num_layers;
    cut.model.num_dense_layers = std::min(cut.model.num_dense_layers, options.num_layers);
    return ProgramBuilder(cut, plan, profile, options).build();
}

}  // namespace headway::inline cost
