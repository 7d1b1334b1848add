#include "sim/repetition.hpp"

#include <algorithm>
#include <utility>

#include "sim/same_work.hpp"

namespace headway::sim {
namespace {

// Sections are remembered until they hold so many spans, 160 MB: two micro-batches of DeepSeek-V3
// on 256 ranks, while a step in which nothing repeats does not fill the memory.
constexpr std::size_t kMaxSpans = 4'000'000;

// What a task waits for from `start` on, counted from there.
std::vector<int> waits_for(const Task& task, int start) {
    std::vector<int> result;
    for (const int t : task.after) {
        if (t >= start) result.push_back(t - start);
    }
    return result;
}

Network::Totals difference(const Network::Totals& after, Network::Totals before) {
    for (std::size_t l = 0; l < after.bytes.size(); ++l) {
        before.bytes[l] = after.bytes[l] - before.bytes[l];
        before.busy[l] = after.busy[l] - before.busy[l];
    }
    before.messages = after.messages - before.messages;
    before.instants = after.instants - before.instants;
    return before;
}

bool same(const Task& a, int start_a, const Task& b, int start_b) {
    return a.phase == b.phase && a.pass == b.pass && a.layer == b.layer && a.chunk == b.chunk &&
           a.stream == b.stream && waits_for(a, start_a) == waits_for(b, start_b) &&
           same_work(a.work, b.work);
}

}  // namespace

bool same_tasks(const Program& program, int a, int b, int count) {
    const auto& tasks = program.tasks;
    if (static_cast<std::size_t>(std::max(a, b) + count) > tasks.size()) return false;
    for (int k = 0; k < count; ++k) {
        const Task& x = tasks[static_cast<std::size_t>(a + k)];
        const Task& y = tasks[static_cast<std::size_t>(b + k)];
        if (!same(x, a, y, b)) return false;
    }
    return true;
}

Repetition::Repetition(const Program& program) : program_(program) {
    for (std::size_t t = 0; t < program.tasks.size(); ++t)
        tasks_[static_cast<std::size_t>(program.tasks[t].stream)].push_back(static_cast<int>(t));
}

void Repetition::begin(const Still& at, Picoseconds now, Network::Totals totals,
                       std::int64_t events) {
    section_ = {.begin = at, .carried = std::move(totals), .events = events};
    since_ = now;
    is_open_ = true;
}

void Repetition::end(const Still& at, Picoseconds now, std::span<const Picoseconds> entered,
                     std::vector<SpanRecord> spans, const Network::Totals& totals,
                     std::int64_t events) {
    section_.end = at;
    section_.duration = now - since_;
    for (const Picoseconds t : entered) section_.entered.push_back(t - since_);
    for (SpanRecord& span : spans) {
        if (span.task < section_.begin.first_open()) continue;
        span.begin -= since_;
        span.end -= since_;
        section_.spans.push_back(span);
    }
    section_.carried = difference(totals, section_.carried);
    section_.events = events - section_.events;
    is_open_ = false;
    if (num_spans_ > kMaxSpans) return;
    num_spans_ += section_.spans.size();
    sections_.push_back(std::move(section_));
}

const Section* Repetition::find(const Still& now) const {
    for (const Section& s : sections_) {
        const int a = s.begin.first_open(), b = now.first_open();
        if (s.begin.same_state(now) && same_tasks(program_, a, b, s.end.reach - a) &&
            nothing_comes_early(s, a, b)) {
            return &s;
        }
    }
    return nullptr;
}

// Nothing beyond the section starts in it the second time, when it goes from b on, that did not the
// first time: the next task of each stream waits for something that comes later still, or for the
// same as the one that did not start the first time.
bool Repetition::nothing_comes_early(const Section& section, int a, int b) const {
    const int reach = section.end.reach, shifted = reach + b - a;
    for (const std::vector<int>& list : tasks_) {
        const auto then = std::ranges::lower_bound(list, reach);
        const auto now = std::ranges::lower_bound(list, shifted);
        if (now == list.end()) continue;
        const Task& next = program_.tasks[static_cast<std::size_t>(*now)];
        if (std::ranges::any_of(next.after, [&](int t) { return t >= shifted; })) continue;
        if (then == list.end()) return false;
        const Task& before = program_.tasks[static_cast<std::size_t>(*then)];
        if (waits_for(before, a) != waits_for(next, b)) return false;
    }
    return true;
}

}  // namespace headway::sim
