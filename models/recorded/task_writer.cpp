#include "models/recorded/task_writer.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "models/recorded/nccl_calls.hpp"
#include "models/trace/host_tree.hpp"
#include "models/trace/name_rules.hpp"
#include "models/vocab/error.hpp"

namespace headway::inline recorded {
namespace {

// Streams of asynchronous calls, one a group, whatever the trace's were.
constexpr int kFirstCallStream = 1 << 20;

// "void at::native::(anonymous namespace)::f<...>(...)": f. Kernels' names are whole signatures.
std::string short_name(std::string name) {
    constexpr std::string_view nameless = "(anonymous namespace)::";
    for (std::size_t at = name.find(nameless); at != name.npos; at = name.find(nameless))
        name.erase(at, nameless.size());
    name.resize(std::min(name.find_first_of("<("), name.size()));
    if (const std::size_t space = name.find_last_of(' '); space != name.npos)
        name.erase(0, space + 1);
    if (const std::size_t scope = name.rfind("::"); scope != name.npos) name.erase(0, scope + 2);
    return name.size() > 48 ? name.substr(0, 48) : name;
}

// Names come from a file: what is printed and written is printable.
std::string plain(std::string text) {
    for (char& c : text)
        if (c < ' ' || c > '~') c = '?';
    return text;
}

bool is_of_script(std::string_view name) {
    return !name.starts_with("headway.") && !is_step_annotation(name) &&
           !name.starts_with("nccl:") && !name.starts_with("Optimizer.zero_grad");
}

double flops_of(const std::vector<Shape>& operands) {
    const Shape &a = operands[0], &b = operands[1];
    if (a.empty() || b.empty()) return 0.0;
    double flops = 2.0 * static_cast<double>(b.back());
    for (const std::int64_t n : a) flops *= static_cast<double>(n);
    return flops;
}

}  // namespace

std::vector<std::string> labels_of(const TorchTrace& trace, const HostStep& step) {
    const HostTree tree(trace);
    const auto annotation = [&](std::int32_t span) {
        return tree.innermost(span, [&](std::int32_t s) {
            const HostSpan& of = trace.host[static_cast<std::size_t>(s)];
            return of.is_annotation && is_of_script(trace.names[of.name]);
        });
    };
    std::vector<std::string> labels;
    for (const HostEvent& event : step.events) {
        std::int32_t found = annotation(event.span);
        const std::int32_t forward = tree.differentiated(event.span);
        if (forward >= 0 && annotation(forward) >= 0) found = annotation(forward);
        std::string& label = labels.emplace_back();
        if (found < 0) continue;
        label = trace.names[trace.host[static_cast<std::size_t>(found)].name];
        if (tree.in_backward(event.span)) label += " backward";
    }
    return labels;
}

int compute_stream(const TorchTrace& trace, const HostStep& step) {
    std::set<std::int32_t> streams;
    for (std::size_t e = 0; e < step.events.size(); ++e) {
        const HostEvent& event = step.events[e];
        if (event.gpu < 0) continue;
        const GpuWork& work = trace.gpu[static_cast<std::size_t>(event.gpu)];
        if (work.collective < 0) streams.insert(work.stream);
    }
    if (streams.size() == 1) return *streams.begin();
    throw InputError(
        {.where = trace.file,
         .found = fmt::format("kernels on streams {} in one step", fmt::join(streams, ", ")),
         .accepted = "kernels on one stream, beside collectives",
         .hint = "a trace does not say what one stream waits for of another: FSDP and "
                 "other scripts with streams of their own are not replayed yet"});
}

Recording TaskWriter::run() {
    for (std::size_t e = 0; e < in_.step.times.size(); ++e) take(e);
    close();
    recording_.host_tail = std::round(host_ + scale_ * in_.step.tail) * ns;
    recording_.wait_latency = std::round(scale_ * (in_.latency.wake + in_.latency.launch)) * ns;
    return std::move(recording_);
}

const GpuWork& TaskWriter::work(std::size_t e) const {
    return in_.trace.gpu[static_cast<std::size_t>(in_.step.step->events[e].gpu)];
}

void TaskWriter::take(std::size_t e) {
    const HostEvent& event = in_.step.step->events[e];
    const bool fake_calls = markers_ == Markers::calls && in_.table != nullptr && in_.table->fake;
    if (call_ >= 0) {  // the recorder's own work in a fake call, and its time
        has_marker_ = has_marker_ || event.gpu >= 0;
        if (event.kind == HostEventKind::call_end) fake_call(std::exchange(call_, -1));
        return;
    }
    host_ += scale_ * in_.step.times[e].gap;
    if (event.kind == HostEventKind::launch) return launch(e);
    if (event.kind == HostEventKind::host_waits) return host_wait();
    if (event.kind == HostEventKind::call_begin && fake_calls) {
        close();
        call_ = event.call;
        has_marker_ = false;
    }
    if (event.kind == HostEventKind::call_wait && markers_ == Markers::calls) {
        if (in_.table->fake) waiting_until_ = event.end;
        const auto task = task_of_call_.find(event.call);
        if (task == task_of_call_.end()) return;
        close();
        waits_.push_back(task->second);
    }
}

void TaskWriter::launch(std::size_t e) {
    const HostEvent& event = in_.step.step->events[e];
    if (event.at < waiting_until_) return;  // the recorder's mark in a wait()
    if (markers_ == Markers::calls && work(e).collective >= 0)
        nccl_kernel(e);
    else
        kernel(e);
}

void TaskWriter::kernel(std::size_t e) {
    const HostEvent& event = in_.step.step->events[e];
    if (is_open_ && block_.what != in_.labels[e]) close();
    if (!is_open_) {
        is_open_ = true;
        block_ = {.stream = in_.stream, .what = in_.labels[e]};
        longest_ = 0.0;
    }
    const double device = in_.step.times[e].device + in_.latency.between;
    block_.host += std::exchange(host_, 0.0) * ns;
    block_.lead = max(block_.lead, block_.host - block_.device);
    block_.device += device * ns;
    block_.fixed += min(device * ns, kFixedOfKernel);
    ++block_.kernels;
    if (event.span >= 0) {
        const std::int32_t shapes = in_.trace.host[static_cast<std::size_t>(event.span)].shapes;
        if (shapes >= 0)
            block_.flops += flops_of(in_.trace.shapes[static_cast<std::size_t>(shapes)]) * flop;
    }
    if (device > longest_) {
        longest_ = device;
        longest_name_ = work(e).name;
    }
    if (!event.blocks) return;
    block_.host_waits = true;
    close();
    waited_for_ = last_kernels_;
}

void TaskWriter::close() {
    if (!is_open_) return;
    is_open_ = false;
    if (block_.what.empty()) block_.what = short_name(in_.trace.names[longest_name_]);
    block_.what = plain(block_.what);
    add(std::exchange(block_, {}));
}

// Times in whole nanoseconds, as the trace has them.
void TaskWriter::add(RecordedTask task) {
    const int number = static_cast<int>(recording_.tasks.size());
    for (Seconds* time : {&task.host, &task.lead, &task.device, &task.fixed})
        *time = std::round(time->in(ns)) * ns;
    if (task.stream == in_.stream) {
        task.after.insert(task.after.end(), waits_.begin(), waits_.end());
        waits_.clear();
        last_kernels_ = number;
    }
    recording_.tasks.push_back(std::move(task));
}

void TaskWriter::host_wait() {
    close();
    if (last_kernels_ == waited_for_) return;  // nothing since it has waited before
    waited_for_ = last_kernels_;
    add({.stream = in_.stream,
         .host = std::exchange(host_, 0.0) * ns,
         .host_waits = true,
         .what = "host waits"});
}

int TaskWriter::group(const std::string& name, const std::vector<int>& ranks) {
    RecordedGroup group = group_of(in_.trace.file, plain(name), ranks);
    std::vector<RecordedGroup>& groups = recording_.groups;
    for (std::size_t g = 0; g < groups.size(); ++g) {
        if (groups[g].size == group.size && groups[g].stride == group.stride)
            return static_cast<int>(g);
        if (groups[g].name == group.name) group.name += fmt::format(" ({})", groups.size());
    }
    groups.push_back(group);
    return static_cast<int>(groups.size()) - 1;
}

// `number`: of the call in the side table; -1: without one.
void TaskWriter::collective(const RecordedCall& call, const std::vector<int>& ranks, int number,
                            double host) {
    if (ranks.size() < 2) {  // of one rank: nothing is sent
        host_ += host;
        return;
    }
    RecordedTask task{.kind = RecordedKind::collective,
                      .stream = in_.stream,
                      .host = host * ns,
                      .what = plain(call.dtype)};
    task.collective = collective_of(in_.trace.file, call.kind);
    task.group = group(call.group, ranks);
    task.send = call.send;
    task.receive = call.receive;
    task.row_bytes = call.row_bytes;
    if (task.collective != Collective::all_to_all)
        task.bytes = std::max(call.in_bytes, call.out_bytes) * byte;
    if (call.async) {  // of its group, behind what the compute stream has so far
        task.stream = kFirstCallStream + task.group;
        if (last_kernels_ >= 0) task.after.push_back(last_kernels_);
        task.after.insert(task.after.end(), waits_.begin(), waits_.end());
        task_of_call_[number] = static_cast<int>(recording_.tasks.size());
    }
    add(std::move(task));
}

void TaskWriter::nccl_kernel(std::size_t e) {
    const HostEvent& event = in_.step.step->events[e];
    const NcclCall& nccl = in_.trace.collectives[static_cast<std::size_t>(work(e).collective)];
    close();
    const double own = std::exchange(host_, 0.0);
    // The recorder's call around the launch knows more than the kernel does.
    for (const HostEvent& around : in_.step.step->events) {
        if (in_.table == nullptr || around.kind != HostEventKind::call_begin ||
            around.at > event.at || around.end < event.at)
            continue;
        const RecordedCall& call = call_at(around.call);
        return collective(call, in_.table->groups.at(call.group), around.call, own);
    }
    if (work(e).stream != in_.stream)
        throw InputError({.where = in_.trace.file,
                          .found = fmt::format("a collective on stream {}, kernels on {}",
                                               work(e).stream, in_.stream),
                          .accepted =
                              "collectives that the recorder has marked, or on the stream of "
                              "the kernels",
                          .hint = "the trace does not say who waits for it: record with "
                                  "headway_recorder.py and give its table: --comm S.json"});
    collective(call_of_kernel(in_.trace, nccl), ranks_of_kernel(in_.trace, nccl), -1, own);
}

void TaskWriter::fake_call(int number) {
    const RecordedCall& call = call_at(number);
    if (!has_marker_)
        throw InputError(
            {.where = in_.trace.file,
             .found = fmt::format("call {} ({}) without a kernel of the recorder's in it", number,
                                  call.kind),
             .accepted = "a trace with ProfilerActivity.CUDA",
             .hint = "is the table of another trace?"});
    const auto cost = in_.table->nccl_host_us.find(call.kind);
    const double nccl = cost == in_.table->nccl_host_us.end() ? 0.0 : 1e3 * cost->second;
    collective(call, in_.table->groups.at(call.group), number, std::exchange(host_, 0.0) + nccl);
}

}  // namespace headway::inline recorded
