#include "models/recorded/lay_out.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "models/cost/fitted_tasks.hpp"
#include "models/recorded/exchanges.hpp"
#include "models/vocab/error.hpp"
#include "models/workload/link_load.hpp"

namespace headway::inline recorded {
namespace {

PathBytes path_bytes(const PathCounts& counts) {
    PathBytes bytes{};
    for (std::size_t c = 0; c < bytes.size(); ++c) bytes[c] = counts[c] * byte;
    return bytes;
}

// Groups of another number of ranks: the outermost axis alone may grow, where its ranks hold the
// same work.
void grow(Recording& recording, int ranks) {
    const int recorded = recording.world_size;
    if (ranks == recorded) return;
    const auto refuse = [&](const std::string& why) {
        throw InputError(
            {.where = "program " + recording.name,
             .found = fmt::format("{} ranks recorded, a cluster of {}: {}", recorded, ranks, why),
             .accepted = fmt::format("a cluster of {} ranks, or a program whose outermost "
                                     "axis is data parallel (grows: true)",
                                     recorded)});
    };
    bool grows = false;
    for (RecordedGroup& group : recording.groups) {
        const int block = group.size * group.stride;
        if (block == recorded && !group.grows)
            refuse(fmt::format(
                "'{}' spans all ranks and would hold other work on each: other experts, "
                "other shards",
                group.name));
        if (!group.grows) {
            if (ranks % block != 0)
                refuse(fmt::format("'{}' takes blocks of {}", group.name, block));
            continue;
        }
        if (block != recorded)
            refuse(fmt::format("'{}' grows and is not the outermost axis", group.name));
        if (ranks % group.stride != 0)
            refuse(fmt::format("'{}' is of every {}th rank", group.name, group.stride));
        group.size = ranks / group.stride;
        grows = true;
    }
    if (!grows && recorded > 1) refuse("none of its groups spans all ranks and grows");
    for (const RecordedTask& task : recording.tasks) {
        const bool exchange =
            task.kind == RecordedKind::collective && task.collective == Collective::all_to_all;
        if (exchange && recording.groups[static_cast<std::size_t>(task.group)].grows)
            refuse("an all-to-all runs over a group that grows");
    }
    recording.world_size = ranks;
}

class Layout {
  public:
    Layout(const Recording& recording, const Cluster& cluster, const Profile& profile,
           const std::optional<Routing>& routing)
        : cluster_(cluster),
          plain_(without_overrides(cluster)),
          book_(profile, cluster_, Dtype::bf16),
          plain_book_(profile, plain_, Dtype::bf16) {
        out_.recording = recording;
        grow(out_.recording, cluster.num_ranks());
        exchanges_.emplace(out_.recording, cluster_, routing);
        out_.program.num_ranks = cluster.num_ranks();
        out_.program.overlap = profile.overheads.overlap();
        out_.compute_of_rank.resize(static_cast<std::size_t>(cluster.num_ranks()));
        speed_.assign(out_.compute_of_rank.size(), 1.0);
        for (const RankOverride& o : cluster.rank_overrides)
            speed_[static_cast<std::size_t>(o.rank)] = o.compute_factor;
        if (contradicts(recording.device, cluster.device.name))
            out_.warnings.push_back(fmt::format("kernels were timed on {}, the cluster has {}",
                                                recording.device, cluster.device.name));
        if (contradicts(profile.provenance.device, cluster.device.name))
            out_.warnings.push_back(fmt::format("profile {} was measured on {}, the cluster has {}",
                                                profile.name, profile.provenance.device,
                                                cluster.device.name));
    }

    LaidOut run() {
        out_.replay = replay_tasks(out_.recording);
        for (const ReplayTask& replay : out_.replay) add(replay);
        out_.sigma = book_.total_sigma();
        const auto warnings = book_.warnings();
        out_.warnings.insert(out_.warnings.end(), warnings.begin(), warnings.end());
        return std::move(out_);
    }

  private:
    void add(const ReplayTask& replay) {
        Task task{.stream = replay.stream,
                  .after = replay.after,
                  .work = ComputeTask{.per_rank = {Seconds{}}, .flops = {}, .bytes = {}},
                  .launch = replay.launch,
                  .host_waits = replay.host_waits};
        Price price;
        Bytes sent;
        if (replay.recorded >= 0 && replay.is_device) {
            const RecordedTask& recorded =
                out_.recording.tasks[static_cast<std::size_t>(replay.recorded)];
            if (recorded.kind == RecordedKind::compute)
                price.time = compute(recorded, std::get<ComputeTask>(task.work));
            else if (recorded.collective == Collective::all_to_all)
                price = exchange(replay.recorded, task.work, sent);
            else
                price = reduce(recorded, task.work, sent);
            const bool compute = recorded.kind == RecordedKind::compute;
            task.phase = compute ? Phase::expert : Phase::dispatch;
        }
        out_.timed.push_back({.stream = replay.stream,
                              .time = price.time,
                              .after = !replay.after.empty() ? replay.after[0] : -1,
                              .also_after = replay.after.size() > 1 ? replay.after[1] : -1,
                              .launch = replay.launch,
                              .host_waits = replay.host_waits,
                              .links = price.links});
        out_.prices.push_back(price);
        out_.sent.push_back(sent);
        out_.program.tasks.push_back(std::move(task));
    }

    // The slowest rank's.
    Seconds compute(const RecordedTask& recorded, ComputeTask& task) {
        Seconds slowest;
        const std::size_t ranks = speed_.size();
        if (recorded.rows_of)
            task.per_rank.resize(ranks);
        else
            task.per_rank = {recorded.device};
        for (std::size_t r = 0; r < ranks; ++r) {
            Seconds time = recorded.device;
            if (recorded.rows_of) {
                const double ratio = rows_ratio(*recorded.rows_of, static_cast<int>(r));
                time = recorded.fixed + ratio * (recorded.device - recorded.fixed);
                task.per_rank[r] = time;
            }
            out_.compute_of_rank[r] += time / speed_[r];
            slowest = max(slowest, time / speed_[r]);
        }
        task.flops = recorded.flops;
        return slowest;
    }

    // Rows that come to a rank over those that came to the recorded one.
    double rows_ratio(int exchange, int rank) {
        auto known = ratios_.find(exchange);
        if (known == ratios_.end()) {
            const RecordedTask& task = out_.recording.tasks[static_cast<std::size_t>(exchange)];
            double recorded = 0.0;
            for (const double bytes : task.receive) recorded += bytes;
            const ExchangedBytes bytes = exchanges_->bytes(exchange);
            std::vector<double> ratios;
            for (std::size_t r = 0; r < speed_.size(); ++r)
                ratios.push_back(recorded > 0.0 ? bytes.received(static_cast<int>(r)) / recorded
                                                : 1.0);
            known = ratios_.emplace(exchange, std::move(ratios)).first;
        }
        return known->second[static_cast<std::size_t>(rank)];
    }

    Price exchange(int number, TaskWork& work, Bytes& sent) {
        const RecordedGroup& group =
            group_of(out_.recording.tasks[static_cast<std::size_t>(number)]);
        const ExchangedBytes bytes = exchanges_->bytes(number);
        LinkLoad load(cluster_, cluster_.num_ranks());
        for (int rank = 0; rank < cluster_.num_ranks(); ++rank) {
            const TrafficMatrix& matrix = bytes.of_rank(rank);
            const int first = rank - rank % bytes.block_size;
            for (int to = 0; to < bytes.block_size; ++to) {
                const auto b = static_cast<double>(matrix.at(rank - first, to));
                if (b > 0.0 && first + to != rank) load.add(rank, first + to, b);
            }
        }
        ExchangeWork priced{
            .group_size = group.size,
            .mean = path_bytes(load.mean()),
            .busiest = path_bytes(load.busiest_rank()),
            .on_curve = path_bytes(load.on_curve(root_squeeze(cluster_, group.size))),
            .links = path_bytes(load.busiest_link())};
        for (const Bytes b : priced.busiest) sent += b;
        ExchangeTask task{.group_size = bytes.block_size};
        ExchangeStage stage{.matrices = bytes.blocks};
        fit_stage(stage, priced.mean, group.size, Collective::all_to_all, plain_book_, plain_);
        task.stages.push_back(std::move(stage));
        work = std::move(task);
        return book_.exchange(priced, 1.0);
    }

    Price reduce(const RecordedTask& recorded, TaskWork& work, Bytes& sent) {
        const RecordedGroup& group = group_of(recorded);
        const ReduceWork reduction{.collective = recorded.collective,
                                   .group_size = group.size,
                                   .stride = group.stride,
                                   .bytes = recorded.bytes};
        const double passes = recorded.collective == Collective::all_reduce ? 2.0 : 1.0;
        sent = passes * (group.size - 1.0) / group.size * recorded.bytes;
        work = fitted_reduction(reduction, plain_book_);
        return book_.reduce(reduction, 1.0);
    }

    const RecordedGroup& group_of(const RecordedTask& task) const {
        return out_.recording.groups[static_cast<std::size_t>(task.group)];
    }

    const Cluster& cluster_;
    const Cluster plain_;  // without overrides, which the simulator applies
    PriceBook book_;
    const PriceBook plain_book_;
    LaidOut out_;
    std::optional<Exchanges> exchanges_;
    std::vector<double> speed_;                  // [rank]
    std::map<int, std::vector<double>> ratios_;  // [exchange][rank]
};

}  // namespace

LaidOut lay_out(const Recording& recording, const Cluster& cluster, const Profile& profile,
                const std::optional<Routing>& routing) {
    return Layout(recording, cluster, profile, routing).run();
}

}  // namespace headway::inline recorded
