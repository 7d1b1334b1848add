#include "sim/course_memory.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <variant>

#include "sim/same_work.hpp"

namespace headway::sim {
namespace {

constexpr double kQuantum = 0.125;            // of a batching window
constexpr std::size_t kMaxBytes = 256 << 20;  // of courses, and as many of messages

std::uint64_t mixed(std::uint64_t hash, std::uint64_t value) {
    hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
    return hash ^ hash >> 29;
}

// Equal for tasks of the same work; by addresses, as equal matrices are one.
struct HashOfWork {
    std::uint64_t operator()(const ComputeTask&) const { return 0; }
    std::uint64_t operator()(const SendTask&) const { return 0; }
    std::uint64_t operator()(const HostTask&) const { return 0; }
    std::uint64_t operator()(const ExchangeTask& task) const {
        std::uint64_t hash = mixed(1, static_cast<std::uint64_t>(task.group_size));
        for (const ExchangeStage& stage : task.stages) {
            hash = mixed(hash, static_cast<std::uint64_t>(stage.uniform_bytes) + stage.transposed);
            for (const auto& matrix : stage.matrices)
                hash = mixed(hash, reinterpret_cast<std::uintptr_t>(matrix.get()));
        }
        return hash;
    }
    std::uint64_t operator()(const ReduceTask& task) const {
        return mixed(mixed(2, static_cast<std::uint64_t>(task.bytes)),
                     static_cast<std::uint64_t>(task.group_size) << 32 |
                         static_cast<std::uint64_t>(task.stride));
    }
};

// [task] the first task of the same work if there are two or more, else -1.
std::vector<int> classes(const Program& program) {
    std::vector<int> first(program.tasks.size(), -1);
    std::vector<bool> comes_again(first.size(), false);
    std::unordered_multimap<std::uint64_t, int> seen;
    for (std::size_t t = 0; t < first.size(); ++t) {
        const TaskWork& work = program.tasks[t].work;
        const std::uint64_t hash = std::visit(HashOfWork{}, work);
        if (hash == 0) continue;
        const auto [begin, end] = seen.equal_range(hash);
        const auto same = std::find_if(begin, end, [&](const auto& entry) {
            return same_work(program.tasks[static_cast<std::size_t>(entry.second)].work, work);
        });
        if (same == end) {
            first[t] = static_cast<int>(t);
            seen.emplace(hash, static_cast<int>(t));
        } else {
            first[t] = same->second;
            comes_again[static_cast<std::size_t>(same->second)] = true;
        }
    }
    for (int& c : first)
        if (c >= 0 && !comes_again[static_cast<std::size_t>(c)]) c = -1;
    return first;
}

}  // namespace

std::vector<std::uint64_t> waits_of(const Operation& operation) {
    const std::size_t n = operation.members.size(), words = (n + 63) / 64;
    std::vector<std::uint64_t> waits(n * words, 0);
    for (std::size_t i = 0; i < n; ++i) waits[i * words + i / 64] |= std::uint64_t{1} << i % 64;
    for (const Stage& stage : operation.stages) {
        const std::vector<std::uint64_t> before = waits;
        const auto join = [&](std::size_t member, std::size_t other) {
            for (std::size_t w = 0; w < words; ++w)
                waits[member * words + w] |= before[other * words + w];
        };
        for (std::size_t i = 1; i < n && stage.collective; ++i) join(0, i);
        for (std::size_t i = 1; i < n && stage.collective; ++i)
            std::copy_n(waits.begin(), words,
                        waits.begin() + static_cast<std::ptrdiff_t>(i * words));
        for (const Message& m : stage.messages) {
            join(static_cast<std::size_t>(m.from), static_cast<std::size_t>(m.to));
            join(static_cast<std::size_t>(m.to), static_cast<std::size_t>(m.from));
        }
    }
    return waits;
}

namespace {

CellKind kind_of(const Operation& operation, bool comes_again) {
    CellKind kind{.members = operation.members, .links = {}};
    kind.collective = operation.stages[0].collective;
    for (const Stage& stage : operation.stages)
        kind.num_messages += static_cast<std::int64_t>(stage.messages.size());
    if (!comes_again) return kind;
    for (const Stage& stage : operation.stages) {
        for (const Message& m : stage.messages) {
            const auto path = m.path.span();
            kind.links.insert(kind.links.end(), path.begin(), path.end());
            kind.is_one_set = kind.is_one_set && m.path.skip == 0;
        }
    }
    std::ranges::sort(kind.links);
    kind.links.erase(std::unique(kind.links.begin(), kind.links.end()), kind.links.end());
    kind.waits = waits_of(operation);
    const std::size_t words = (kind.members.size() + 63) / 64;
    kind.fewest_waits = kind.members.size();
    for (std::size_t i = 0; i < kind.members.size(); ++i) {
        std::size_t count = 0;
        for (std::size_t w = 0; w < words; ++w)
            count += static_cast<std::size_t>(std::popcount(kind.waits[i * words + w]));
        kind.fewest_waits = std::min(kind.fewest_waits, count);
    }
    return kind;
}

}  // namespace

CollectiveKind kind_of(const SpelledOut& spelled_out, bool comes_again, double epsilon) {
    CollectiveKind kind{
        .outline = spelled_out.outline, .comes_again = comes_again, .apart = spelled_out.apart};
    const std::vector<int>& ranks = kind.outline.members;
    std::vector<std::vector<CollectiveKind::Place>> places(ranks.size());
    bool collective = false;
    for (const Cell& cell : spelled_out.cells) {
        const CellKind& added = kind.cells.emplace_back(kind_of(cell.operation, comes_again));
        collective = collective || added.collective;
        for (std::size_t m = 0; m < added.members.size(); ++m) {
            const auto at = std::ranges::lower_bound(ranks, added.members[m]) - ranks.begin();
            places[static_cast<std::size_t>(at)].push_back(
                {.cell = static_cast<int>(kind.cells.size()) - 1, .member = static_cast<int>(m)});
        }
    }
    kind.first_place.push_back(0);
    for (const auto& of_member : places) {
        kind.places.insert(kind.places.end(), of_member.begin(), of_member.end());
        kind.first_place.push_back(static_cast<std::uint32_t>(kind.places.size()));
    }
    if (comes_again && !collective)
        kind.quantum = std::llround(kQuantum * epsilon * kind.outline.busiest);
    return kind;
}

bool CellKind::may_depart(std::span<const Picoseconds> arrivals, std::size_t num_arrived) const {
    const std::size_t n = members.size(), words = (n + 63) / 64;
    if (num_arrived < fewest_waits) return false;
    if (num_arrived == n) return true;
    std::vector<std::uint64_t> here(words, 0);
    for (std::size_t i = 0; i < n; ++i)
        if (arrivals[i] != kNotYet) here[i / 64] |= std::uint64_t{1} << i % 64;
    for (std::size_t i = 0; i < n; ++i) {
        bool all = true;
        for (std::size_t w = 0; w < words && all; ++w) all = (waits[i * words + w] & ~here[w]) == 0;
        if (all) return true;
    }
    return false;
}

bool CellKind::fits(const Course& course, std::span<const Picoseconds> arrivals,
                    Picoseconds since_first) const {
    for (std::size_t i = 0; i < arrivals.size(); ++i) {
        const bool fits = arrivals[i] == kNotYet ? course.arrivals[i] >= since_first
                                                 : course.arrivals[i] == arrivals[i];
        if (!fits) return false;
    }
    return true;
}

const Course* CellKind::find(const std::optional<Network::Coarseness>& found,
                             std::span<const Picoseconds> arrivals, Picoseconds since_first) const {
    const auto same = std::find_if(courses.rbegin(), courses.rend(), [&](const Course& course) {
        return course.found == found && fits(course, arrivals, since_first);
    });
    return same == courses.rend() ? nullptr : &*same;
}

CourseMemory::CourseMemory(const Program& program, double epsilon)
    : epsilon_(epsilon), class_of_(classes(program)) {}

namespace {

std::uint64_t key(int task_class, int group) {
    return static_cast<std::uint64_t>(task_class) << 32 | static_cast<std::uint64_t>(group);
}

}  // namespace

CollectiveKind* CourseMemory::find(int task, int group) {
    if (!is_of_a_kind(task)) return nullptr;
    const auto found = kinds_.find(key(class_of_[static_cast<std::size_t>(task)], group));
    return found == kinds_.end() ? nullptr : &found->second;
}

CollectiveKind& CourseMemory::learn(int task, int group,
                                    std::shared_ptr<const SpelledOut> spelled_out) {
    CollectiveKind& kind = kinds_
                               .emplace(key(class_of_[static_cast<std::size_t>(task)], group),
                                        kind_of(*spelled_out, true, epsilon_))
                               .first->second;
    std::size_t bytes = 0;
    for (const CellKind& cell : kind.cells)
        bytes +=
            static_cast<std::size_t>(cell.num_messages) * (sizeof(Message) + 2 * sizeof(Partner));
    if (bytes_spelled_out_ + bytes <= kMaxBytes) {
        bytes_spelled_out_ += bytes;
        kind.spelled_out = std::move(spelled_out);
    }
    return kind;
}

void CourseMemory::remember(CellKind& kind, Course course) {
    const std::size_t bytes =
        sizeof(Course) + course.arrivals.size() * (sizeof(Picoseconds) + sizeof(int)) +
        course.departures.size() * sizeof(Departure) + course.loads.size() * sizeof(Network::Load);
    if (bytes_ + bytes > kMaxBytes) return;
    bytes_ += bytes;
    course.order.resize(course.arrivals.size());
    std::iota(course.order.begin(), course.order.end(), 0);
    std::ranges::stable_sort(course.order, {}, [&](int member) {
        return course.arrivals[static_cast<std::size_t>(member)];
    });
    kind.courses.push_back(std::move(course));
}

}  // namespace headway::sim
