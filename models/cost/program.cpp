#include "models/cost/program.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <utility>
#include <variant>

#include "models/cost/priced_layers.hpp"
#include "models/cost/program_tasks.hpp"
#include "models/cost/role_writer.hpp"
#include "models/cost/step.hpp"
#include "models/vocab/error.hpp"
#include "models/workload/schedule.hpp"

namespace headway::inline cost {
namespace {

using Part = PipelinePart;

std::size_t index(int i) {
    return static_cast<std::size_t>(i);
}

// Numbers of messages: each role counts those that come to it, as either end first asks.
class Messages {
  public:
    enum Kind { activations, gradients, copies, end_of_step };

    explicit Messages(int roles) : numbers_(index(roles)) {}
    int number(int to_role, Kind kind, int direction, int stage, int micro_batch) {
        auto& of_role = numbers_[index(to_role)];
        return of_role
            .emplace(std::array<int, 4>{kind, direction, stage, micro_batch},
                     static_cast<int>(of_role.size()))
            .first->second;
    }

  private:
    std::vector<std::map<std::array<int, 4>, int>> numbers_;
};

// The list of one pipeline rank: its steps in order, then its update.
class RoleBuilder {
  public:
    RoleBuilder(const Workload& workload, const PipelineOrder& order, int role, int ranks_of_role,
                TaskPricer& pricer, PricedLayers& layers, Messages& messages, Program& program)
        : work_(*workload.pipeline),
          workload_(workload),
          order_(order),
          role_(role),
          ranks_(ranks_of_role),
          pricer_(pricer),
          messages_(messages),
          writer_(pricer, layers, program) {}

    void build() {
        const std::vector<PipelineStep>& steps = order_.steps[index(role_)];
        for (const FirstForward& first : first_forwards(steps))
            writer_.gather(work_.gathers[index(first.stage)], work_.stages[index(first.stage)]);
        const std::map<std::pair<int, int>, std::size_t> last = last_gradients(steps);
        for (std::size_t i = 0; i < steps.size(); ++i) {
            const PipelineStep& step = steps[i];
            const auto is_last = [&](const PipelineItem& item) {
                const auto found = last.find({item.direction, item.stage});
                return found != last.end() && found->second == i && item.part != Part::forward;
            };
            receive(step.item);
            if (step.beside) {
                receive(*step.beside);
                run_pair(step.item, *step.beside);
            } else {
                run(step.item, is_last(step.item));
            }
            send(step.item);
            if (!step.beside) continue;
            send(*step.beside);
            if (is_last(*step.beside)) writer_.reduce(reductions(*step.beside), -1, 0);
        }
        update();
    }

  private:
    // The step in which the gradients of a stage become whole, by (direction, stage).
    static std::map<std::pair<int, int>, std::size_t> last_gradients(
        const std::vector<PipelineStep>& steps) {
        std::map<std::pair<int, int>, std::size_t> last;
        const auto note = [&](const PipelineItem& item, std::size_t i) {
            if (item.part != Part::forward) last[{item.direction, item.stage}] = i;
        };
        for (std::size_t i = 0; i < steps.size(); ++i) {
            note(steps[i].item, i);
            if (steps[i].beside) note(*steps[i].beside, i);
        }
        return last;
    }

    const PipelineStage& stage(const PipelineItem& item) const {
        return work_.stages[index(item.stage)];
    }
    const std::vector<PhaseWork>& reductions(const PipelineItem& item) const {
        return work_.reductions[index(item.stage)];
    }
    // Its number in the step, both directions counted.
    int micro_batch(const PipelineItem& item) const {
        return item.direction * order_.micro_batches + item.micro_batch;
    }
    // The role of a stage next to the item's; -1: there is none, or it is this one.
    int other_role(const PipelineItem& item, int stage) const {
        if (stage < 0 || stage >= order_.stages || item.part == Part::backward_weight) return -1;
        const int role = order_.rank_of(item.direction, stage);
        return role == role_ ? -1 : role;
    }

    void receive(const PipelineItem& item) {
        const bool forward = item.part == Part::forward;
        if (other_role(item, item.stage + (forward ? -1 : 1)) < 0) return;
        writer_.receive(
            {messages_.number(role_, forward ? Messages::activations : Messages::gradients,
                              item.direction, item.stage, item.micro_batch)});
    }

    void send(const PipelineItem& item) {
        const bool forward = item.part == Part::forward;
        const int next = item.stage + (forward ? 1 : -1), to = other_role(item, next);
        if (to < 0) return;
        const int behind = std::min(item.stage, next);
        auto [found, added] = sends_.try_emplace({to, work_.rows[index(behind)]});
        if (added)
            found->second = pricer_.send_task(work_.message_behind(behind), role_, to, ranks_);
        SendTask task = found->second;
        task.message = messages_.number(to, forward ? Messages::activations : Messages::gradients,
                                        item.direction, next, item.micro_batch);
        writer_.send(task, Phase::pipeline_p2p, forward ? Pass::forward : Pass::backward);
    }

    void run(const PipelineItem& item, bool last) {
        const bool forward = item.part == Part::forward;
        const GradientPart part = item.part == Part::backward_input    ? GradientPart::input
                                  : item.part == Part::backward_weight ? GradientPart::weight
                                                                       : GradientPart::all;
        const bool buckets =
            last && std::ranges::any_of(reductions(item), [](const PhaseWork& phase) {
                return !std::get<ReduceWork>(phase.work).buckets.empty();
            });
        for (const Block& block :
             stage_blocks(stage(item), forward ? Pass::forward : Pass::backward, micro_batch(item),
                          buckets)) {
            if (block.kind == BlockKind::bucket)
                writer_.reduce(reductions(item), block.layer,
                               block.layer - stage(item).first_layer);
            else
                writer_.block(block, part);
        }
        // What the layers have not sent: the table's.
        if (last) writer_.reduce(reductions(item), -1, buckets ? stage(item).num_layers : 0);
    }

    void run_pair(const PipelineItem& forward, const PipelineItem& backward) {
        auto [found, added] = pairs_.try_emplace({forward.stage, backward.stage});
        if (added) found->second = pair_tasks(workload_, stage(forward), stage(backward));
        writer_.pair(found->second, micro_batch(forward), micro_batch(backward));
    }

    // With one rank of another role: both send what they have, as a ring of two does. The
    // embedding is on the first role and its copy behind it; DualPipe's first half holds one copy
    // of a stage and its second half the other.
    void reduce_with_other_role(const PhaseWork& phase, const ReduceWork& reduce, int which) {
        const bool lower = order_.directions > 1 ? role_ < order_.ranks / 2 : role_ == 0;
        const int apart = reduce.stride / ranks_, to = lower ? role_ + apart : role_ - apart;
        const ReduceTask priced = pricer_.reduce_task(reduce, 1.0);
        writer_.send({.to_role = to,
                      .message = messages_.number(to, Messages::copies, 0, which, 0),
                      .bytes = priced.bytes,
                      .latency = priced.latency,
                      .efficiency = priced.efficiency},
                     phase.phase, Pass::update);
        writer_.receive({messages_.number(role_, Messages::copies, 0, which, 0)});
    }

    // The optimizer needs the norm of all gradients: it waits for the gradients of all roles.
    void wait_for_all() {
        std::vector<int> come;
        for (int other = 0; other < order_.ranks; ++other) {
            if (other == role_) continue;
            writer_.send({.to_role = other,
                          .message = messages_.number(other, Messages::end_of_step, 0, role_, 0)},
                         Phase::pipeline_p2p, Pass::update);
            come.push_back(messages_.number(role_, Messages::end_of_step, 0, other, 0));
        }
        writer_.receive(come);
    }

    void update() {
        int which = 0;
        for (const PhaseWork& phase : work_.late_reductions[index(role_)]) {
            const auto& reduce = std::get<ReduceWork>(phase.work);
            if (order_.ranks > 1 && reduce.stride >= ranks_)
                reduce_with_other_role(phase, reduce, which++);
            else
                writer_.update({&phase, 1});
        }
        wait_for_all();
        writer_.update(work_.updates[index(role_)]);
    }

    const PipelineWork& work_;
    const Workload& workload_;
    const PipelineOrder& order_;
    const int role_, ranks_;
    TaskPricer& pricer_;
    Messages& messages_;
    RoleWriter writer_;
    std::map<std::pair<int, int>, SendTask> sends_;               // to each role, by rows
    std::map<std::pair<int, int>, std::vector<PairTask>> pairs_;  // by stage
};

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
        program_.overlap = profile.overheads.overlap();
        if (!workload_.runs_free) return;
        PriceBook book(profile, scenario.cluster, scenario.model.dtype);
        program_.lead = price_step({workload_, workload_, {}}, profile, book).lead;
    }

    Program build() {
        if (workload_.pipeline)
            build_roles();
        else
            build_role();
        return std::move(program_);
    }

  private:
    PricedLayers layers_of(RankBlock ranks) {
        return {scenario_, plan_, workload_, options_, ranks, pricer_};
    }

    void build_role() {
        PricedLayers layers = layers_of({.first = 0, .count = program_.num_ranks});
        RoleWriter writer(pricer_, layers, program_);
        writer.gather(workload_.update, whole_model(scenario_.model.all_layers()));
        const int num_layers = scenario_.model.all_layers();
        for (const Block& block : step_blocks(num_layers, workload_.num_micro_batches)) {
            if (block.kind == BlockKind::bucket) {
                writer.reduce(workload_.update, block.layer, block.layer);
            } else if (block.kind == BlockKind::update) {
                writer.reduce(workload_.update, -1, num_layers);
                writer.update(workload_.update);
            } else {
                writer.block(block);
            }
        }
    }

    void build_roles() {
        const PipelineOrder order =
            pipeline_order(workload_.pipeline->schedule, workload_.pipeline->shape);
        Messages messages(order.ranks);
        const int ranks = program_.num_ranks / order.ranks;
        for (int role = 0; role < order.ranks; ++role) {
            PricedLayers layers = layers_of({.first = role * ranks, .count = ranks});
            RoleBuilder(workload_, order, role, ranks, pricer_, layers, messages, program_).build();
            program_.role_ends.push_back(static_cast<int>(program_.tasks.size()));
        }
    }

    const Scenario& scenario_;
    const Plan& plan_;
    const ProgramOptions options_;
    const Workload workload_;
    TaskPricer pricer_;
    Program program_;
};

}  // namespace

Program build_program(const Scenario& scenario, const Plan& plan, const Profile& profile,
                      const ProgramOptions& options) {
    if (options.num_layers <= 0 || options.num_layers >= scenario.model.num_layers)
        return ProgramBuilder(scenario, plan, profile, options).build();
    if (plan.parallel.executes_order())
        throw InputError({.where = "--layers",
                          .found = std::to_string(options.num_layers) + " of the layers of plan " +
                                   plan.name + ", whose stages hold all of them",
                          .accepted = "plans without a pipeline",
                          .hint = "shorten model.num_layers, or the step with --micro-batches"});
    // What is left out has no parameters either: neither gradients nor an update.
    Scenario cut = scenario;
    cut.model.num_layers = options.num_layers;
    cut.model.mtp_num_layers = 0;
    cut.model.num_dense_layers = std::min(cut.model.num_dense_layers, options.num_layers);
    return ProgramBuilder(cut, plan, profile, options).build();
}

}  // namespace headway::inline cost
