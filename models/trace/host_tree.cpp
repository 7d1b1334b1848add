#include "models/trace/host_tree.hpp"

#include <algorithm>
#include <cstddef>
#include <map>
#include <numeric>
#include <string_view>
#include <utility>

namespace headway::inline trace {
namespace {

// Names as the engine of autograd gives them to the operators that it runs.
constexpr std::string_view kEngine = "autograd::engine::evaluate_function";

}  // namespace

HostTree::HostTree(const TorchTrace& trace)
    : trace_(trace),
      parents_(trace.host.size(), -1),
      forward_of_(trace.host.size(), -1),
      is_engine_(trace.names.size(), false) {
    const std::vector<HostSpan>& host = trace.host;
    for (std::size_t i = 0; i < trace.names.size(); ++i)
        is_engine_[i] = trace.names[i].starts_with(kEngine);
    // Spans of a thread in order of begin, the longer first: a span lies in the last that is open.
    std::vector<std::int32_t> order(host.size());
    std::iota(order.begin(), order.end(), 0);
    const auto at = [&](std::int32_t i) -> const HostSpan& {
        return host[static_cast<std::size_t>(i)];
    };
    std::ranges::stable_sort(order, [&](std::int32_t a, std::int32_t b) {
        const HostSpan &x = at(a), &y = at(b);
        if (x.thread != y.thread) return x.thread < y.thread;
        return x.begin != y.begin ? x.begin < y.begin : x.end > y.end;
    });
    std::vector<Launch> launches = trace.launches;
    std::ranges::stable_sort(launches, [](const Launch& a, const Launch& b) {
        return a.thread != b.thread ? a.thread < b.thread : a.begin < b.begin;
    });
    std::map<std::pair<std::int32_t, Nanoseconds>, std::int32_t> by_begin;  // the outermost
    std::vector<std::int32_t> open;
    std::size_t next = 0;
    const auto close = [&](std::int32_t thread, Nanoseconds time) {
        while (!open.empty() && (at(open.back()).thread != thread || at(open.back()).end <= time))
            open.pop_back();
    };
    const auto take_launches = [&](std::int32_t thread, Nanoseconds before) {
        for (; next < launches.size(); ++next) {
            const Launch& launch = launches[next];
            if (launch.thread > thread || (launch.thread == thread && launch.begin >= before))
                break;
            close(launch.thread, launch.begin);
            origins_[launch.correlation] = {launch.begin, launch.thread,
                                            open.empty() ? -1 : open.back()};
        }
    };
    for (const std::int32_t i : order) {
        take_launches(at(i).thread, at(i).begin);
        close(at(i).thread, at(i).begin);
        parents_[static_cast<std::size_t>(i)] = open.empty() ? -1 : open.back();
        open.push_back(i);
        if (!at(i).is_annotation) by_begin.try_emplace({at(i).thread, at(i).begin}, i);
    }
    if (!launches.empty()) take_launches(launches.back().thread, launches.back().begin + 1);
    const auto span_at = [&](const BackwardLink::Place& place) {
        const auto found = by_begin.find({place.thread, place.at});
        return found == by_begin.end() ? -1 : found->second;
    };
    for (const BackwardLink& link : trace.links) {
        const std::int32_t backward = span_at(link.backward), forward = span_at(link.forward);
        if (backward < 0 || forward < 0) continue;
        forward_of_[static_cast<std::size_t>(backward)] = forward;
        // The engine's own span lies around it, with what it adds up before.
        const std::int32_t around = parent(backward);
        if (around >= 0 && is_engine_[at(around).name])
            forward_of_[static_cast<std::size_t>(around)] = forward;
    }
}

const HostTree::Origin* HostTree::origin(const GpuWork& work) const {
    const auto found = origins_.find(work.correlation);
    return found == origins_.end() ? nullptr : &found->second;
}

std::int32_t HostTree::differentiated(std::int32_t span) const {
    const auto forward = [&](std::int32_t i) { return forward_of_[static_cast<std::size_t>(i)]; };
    const std::int32_t own = innermost(span, [&](std::int32_t i) { return forward(i) >= 0; });
    return own < 0 ? -1 : forward(own);
}

bool HostTree::in_backward(std::int32_t span) const {
    return innermost(span, [&](std::int32_t i) {
               return is_engine_[trace_.host[static_cast<std::size_t>(i)].name];
           }) >= 0;
}

}  // namespace headway::inline trace
