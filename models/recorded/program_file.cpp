#include "models/recorded/program_file.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "models/scenario/read_scenario.hpp"
#include "models/scenario/yaml_reader.hpp"
#include "models/scenario/yaml_writer.hpp"

namespace headway::inline recorded {
namespace {

constexpr Range kTime = {.low = 0, .high = 1e6};
constexpr Range kBytes = {.low = 0, .high = 1e15};
constexpr Range kCount = {.low = 0, .high = 1 << 20};
constexpr Range kTaskNumber = {.low = 0, .high = 1 << 24};

enum class HostThen { waits };
constexpr std::array kHostThenNames = {std::string_view("waits")};

// Not written where it is 0.
template <class Q>
void unless_none(Fields& f, std::string_view name, Q& value, Range range,
                 std::string_view meaning) {
    std::optional<Q> given;
    if (value > Q{}) given = value;
    f.quantity(name, given, range, meaning);
    value = given ? *given : Q{};
}

void unless_none(Fields& f, std::string_view name, double& value, Range range,
                 std::string_view meaning) {
    std::optional<double> given;
    if (value > 0.0) given = value;
    f.number(name, given, range, meaning);
    value = given ? *given : 0.0;
}

void numbers_of_tasks(Fields& f, std::string_view name, std::vector<int>& tasks,
                      std::string_view meaning) {
    std::vector<double> numbers(tasks.begin(), tasks.end());
    f.numbers(name, numbers, kTaskNumber, meaning, Presence::optional);
    tasks.assign(numbers.begin(), numbers.end());
}

void describe_group(Fields& f, RecordedGroup& group) {
    f.text("name", group.name, "of the process group");
    f.integer("size", group.size, {2, 1 << 20}, "its ranks");
    f.integer("stride", group.stride, {1, 1 << 20}, "how far they are apart");
    f.flag("grows", group.grows,
           "with the cluster: its ranks hold the same work (data parallelism)", Presence::optional);
}

void describe_router(Fields& f, RecordedRouter& router) {
    f.integer("experts", router.experts, kCount, "that tokens choose from; 0: not known",
              Presence::optional);
    f.integer("top_k", router.top_k, {0, 1024}, "experts of a token; 0: not known",
              Presence::optional);
    f.integer("expert_width", router.expert_width, {1, 1 << 20}, "of an expert");
    f.choice("activation", router.activation, kActivationNames, "of an expert");
    f.text("annotation", router.annotation, "the script's record_function around its MoE layers",
           Presence::optional);
}

void describe_compute(Fields& f, RecordedTask& task) {
    unless_none(f, "device", task.device, kTime, "of its kernels, one after the other");
    unless_none(
        f, "lead", task.lead, kTime,
        "the host has over the device at least: the task ends no earlier than host's begin + "
        "lead + device");
    unless_none(f, "fixed", task.fixed, kTime, "of device, whatever the rows are");
    f.derived_integer("kernels", task.kernels, kTaskNumber, "kernels, copies and fills");
    double flops = task.flops.in(flop);
    unless_none(f, "flops", flops, {.low = 0, .high = 1e21},
                "of its matrix products, as far as shapes say");
    task.flops = flops * flop;
    f.integer("rows_of", task.rows_of, kTaskNumber, "exchange whose received rows it works on");
}

void describe_collective(Fields& f, RecordedTask& task, std::vector<std::string>& group_names,
                         std::size_t number) {
    f.choice("collective", task.collective, kCollectiveNames, "which");
    f.text("group", group_names[number], "name of its group");
    f.only_when("collective: not all_to_all", task.collective != Collective::all_to_all,
                [&] { unless_none(f, "bytes", task.bytes, kBytes, "of the whole buffer"); });
    f.only_when("collective: all_to_all", task.collective == Collective::all_to_all, [&] {
        f.numbers("send", task.send, kBytes, "bytes to each rank of the group", Presence::optional,
                  UnitClass::bytes);
        f.numbers("receive", task.receive, kBytes, "bytes from each", Presence::optional,
                  UnitClass::bytes);
        unless_none(f, "row_bytes", task.row_bytes, kBytes, "of one row");
        f.integer("returns", task.returns, kTaskNumber,
                  "exchange whose rows it sends back, the other way round");
    });
}

void describe_task(Fields& f, RecordedTask& task, std::vector<std::string>& group_names,
                   std::size_t number) {
    f.choice("do", task.kind, kRecordedKindNames,
             "kernels of one stream in a row, or a collective");
    f.integer("stream", task.stream, {0, 1 << 24}, "of the trace");
    f.text("what", task.what, "the annotation around it or its longest kernel; a collective's type",
           Presence::optional);
    unless_none(f, "host", task.host, kTime, "of the host, to enqueue it");
    numbers_of_tasks(f, "after", task.after, "tasks of other streams that must have ended, from 0");
    std::optional<HostThen> then = task.host_waits ? std::optional(HostThen::waits) : std::nullopt;
    f.choice("host_then", then, kHostThenNames, "waits for its end before it goes on");
    task.host_waits = then.has_value();
    const bool collective = task.kind == RecordedKind::collective;
    f.only_when("do: compute", !collective, [&] { describe_compute(f, task); });
    f.only_when("do: collective", collective,
                [&] { describe_collective(f, task, group_names, number); });
}

// Tasks name groups; a Recording has their numbers.
struct Named {
    Recording recording;
    std::vector<std::string> group_names;  // [task]
};

void describe_tasks(Fields& f, Recording& recording, std::vector<std::string>& names) {
    std::size_t number = 0;
    f.list("tasks", recording.tasks, "in the order in which the host enqueued them",
           [&](Fields& fields, RecordedTask& task) {
               names.resize(std::max(names.size(), number + 1));
               describe_task(fields, task, names, number++);
           });
}

void describe_head(Fields& f, Recording& r) {
    f.text("name", r.name, "of the trace");
    f.text("device", r.device, "it was recorded on", Presence::optional);
    f.integer("rank", r.rank, {0, 1 << 20}, "that was recorded");
    f.integer("world_size", r.world_size, {1, 1 << 20}, "ranks of the run");
    f.flag("fake", r.fake, "its exchanges sent nothing", Presence::optional);
    f.number("host_scale", r.host_scale, {.low = 0, .high = 10},
             "that the profiled times of the host were multiplied by", Presence::optional);
    unless_none(f, "wait_latency", r.wait_latency, kTime,
                "from the end of what a host waits for to its next kernel");
    unless_none(f, "host_tail", r.host_tail, kTime, "of the host, behind the last task");
    f.quantity("measured_step", r.measured_step, kTime, "without profiler");
    f.quantity("measured_enqueue", r.measured_enqueue, kTime,
               "of the host, without profiler, in a step that begins idle");
    f.quantity("replayed_step", r.replayed_step, kTime, "the recorded kernels, replayed");
    f.quantity("peak_memory", r.peak_memory, kBytes, "of the allocator");
    f.map("router", r.router, "of its MoE layers", describe_router);
    f.texts("inferred", r.inferred, "what the trace does not say", Presence::optional);
    f.list("groups", r.groups, "axes of the layout", describe_group, Presence::optional);
}

InputProblem problem(std::size_t task, const char* key, std::string found, std::string accepted) {
    return {.where = fmt::format("tasks[{}].{}", task, key),
            .found = std::move(found),
            .accepted = std::move(accepted),
            .hint = ""};
}

void check_task(Recording& r, const std::vector<std::string>& names, std::size_t i,
                std::vector<InputProblem>& problems) {
    RecordedTask& task = r.tasks[i];
    const auto is_exchange = [&](int number) {
        const auto t = static_cast<std::size_t>(number);
        return t < i && r.tasks[t].kind == RecordedKind::collective &&
               r.tasks[t].collective == Collective::all_to_all;
    };
    for (const int before : task.after)
        if (before < 0 || static_cast<std::size_t>(before) >= i)
            problems.push_back(problem(i, "after", std::to_string(before), "a task before it"));
    if (task.lead > task.host)
        problems.push_back(problem(i, "lead", "more than host", "at most host"));
    if (task.rows_of && !is_exchange(*task.rows_of))
        problems.push_back(
            problem(i, "rows_of", std::to_string(*task.rows_of), "an all_to_all before it"));
    if (task.returns && !is_exchange(*task.returns))
        problems.push_back(
            problem(i, "returns", std::to_string(*task.returns), "an all_to_all before it"));
    if (task.kind != RecordedKind::collective) return;
    const auto group = std::ranges::find(r.groups, names[i], &RecordedGroup::name);
    if (group == r.groups.end()) {
        problems.push_back(problem(i, "group", "'" + names[i] + "'", "a name of groups"));
        return;
    }
    task.group = static_cast<int>(group - r.groups.begin());
    const auto size = static_cast<std::size_t>(group->size);
    const bool exchange = task.collective == Collective::all_to_all;
    if (exchange && (task.send.size() != size || task.receive.size() != size))
        problems.push_back(problem(
            i, "send", fmt::format("{} and {} entries", task.send.size(), task.receive.size()),
            fmt::format("send and receive, each of the {} ranks", size)));
    if (task.returns && exchange &&
        r.tasks[static_cast<std::size_t>(*task.returns)].group != task.group)
        problems.push_back(problem(i, "returns", "an exchange of another group", "one of its own"));
}

std::vector<InputProblem> check(Recording& r, const std::vector<std::string>& names) {
    std::vector<InputProblem> problems;
    if (r.rank >= r.world_size)
        problems.push_back({.where = "rank",
                            .found = fmt::format("{} of {}", r.rank, r.world_size),
                            .accepted = "below world_size",
                            .hint = ""});
    for (std::size_t g = 0; g < r.groups.size(); ++g) {
        const RecordedGroup& group = r.groups[g];
        if (r.world_size % (group.size * group.stride) != 0)
            problems.push_back({.where = fmt::format("groups[{}].size", g),
                                .found = fmt::format("{} ranks that are {} apart, of {}",
                                                     group.size, group.stride, r.world_size),
                                .accepted = "size x stride divides world_size",
                                .hint = ""});
        for (std::size_t h = 0; h < g; ++h)
            if (r.groups[h].name == group.name)
                problems.push_back({.where = fmt::format("groups[{}].name", g),
                                    .found = "the name of another group",
                                    .accepted = "one of its own",
                                    .hint = ""});
    }
    if (r.tasks.empty())
        problems.push_back(
            {.where = "tasks", .found = "none", .accepted = "at least one", .hint = ""});
    for (std::size_t i = 0; i < r.tasks.size(); ++i) check_task(r, names, i, problems);
    return problems;
}

void describe(Fields& f, Named& named) {
    describe_head(f, named.recording);
    describe_tasks(f, named.recording, named.group_names);
}

}  // namespace

std::string to_yaml(const Recording& recording) {
    Named named{.recording = recording, .group_names = {}};
    for (const RecordedTask& task : recording.tasks)
        named.group_names.push_back(
            task.kind == RecordedKind::collective
                ? recording.groups[static_cast<std::size_t>(task.group)].name
                : "");
    YamlWriter writer;
    describe(writer, named);
    return writer.take_text();
}

Recording read_program(const std::filesystem::path& path) {
    const ReadOptions options;
    YamlReader reader(options);
    Named named;
    reader.read_file(reader.load(path), std::nullopt, named);
    if (reader.is_clean("tasks") && reader.is_clean("groups"))
        reader.add_check("", check(named.recording, named.group_names));
    reader.throw_if_any();
    return std::move(named.recording);
}

}  // namespace headway::inline recorded
