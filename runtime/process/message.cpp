#include "runtime/process/message.hpp"

#include "runtime/process/wire.hpp"

namespace headway::runtime {

namespace {

void put_site(Writer& out, const std::optional<CallSite>& site) {
    out.put(site.has_value());
    if (site) out.put(static_cast<int>(site->phase)).put(static_cast<int>(site->pass));
}

std::optional<CallSite> get_site(Reader& in) {
    if (!in.get<bool>()) return std::nullopt;
    const int phase = in.get<int>(), pass = in.get<int>();
    if (phase < 0 || phase >= kNumPhases || pass < 0 ||
        pass >= static_cast<int>(kPassNames.size())) {
        throw std::runtime_error("a rank is in a phase that does not exist");
    }
    return CallSite{static_cast<Phase>(phase), static_cast<Pass>(pass)};
}

}  // namespace

Frame encode(const Hello& hello) {
    Writer out;
    out.put(hello.rank).put(hello.size).put(static_cast<std::uint64_t>(hello.facts.size()));
    for (const auto& [name, value] : hello.facts) out.put_text(name).put_text(value);
    return {FrameType::hello, out.bytes()};
}

Hello decode_hello(const Frame& frame) {
    Reader in(frame.bytes);
    Hello hello{.rank = in.get<int>()};
    hello.size = in.get<int>();
    for (auto left = in.get<std::uint64_t>(); left > 0; --left) {
        std::string fact = in.text();
        hello.facts.emplace_back(std::move(fact), in.text());
    }
    return hello;
}

Frame encode(const Report& report) {
    Writer out;
    put_site(out, report.site);
    out.put(report.num_entered).put(report.idle).put(report.waiting);
    return {FrameType::beat, out.bytes()};
}

Report decode_report(const Frame& frame) {
    Reader in(frame.bytes);
    Report report{.site = get_site(in)};
    report.num_entered = in.get<std::uint64_t>();
    report.idle = in.get<double>();
    report.waiting = in.get<bool>();
    return report;
}

Frame encode(const Contribution& contribution) {
    Writer out;
    out.put_text(contribution.collective).put_text(contribution.bytes);
    return {FrameType::contribute, out.bytes()};
}

Contribution decode_contribution(const Frame& frame) {
    Reader in(frame.bytes);
    Contribution contribution{.collective = in.text()};
    contribution.bytes = in.text();
    return contribution;
}

Frame encode(FrameType type, const Failure& failure) {
    Writer out;
    out.put(failure.rank);
    put_site(out, failure.site);
    out.put_text(failure.cause).put(failure.refused).put(failure.symptom);
    return {type, out.bytes()};
}

Failure decode_failure(const Frame& frame) {
    Reader in(frame.bytes);
    Failure failure{.rank = in.get<int>()};
    failure.site = get_site(in);
    failure.cause = in.text();
    failure.refused = in.get<bool>();
    failure.symptom = in.get<bool>();
    return failure;
}

Frame encode_gathered(const std::vector<Contribution>& contributions) {
    Writer out;
    out.put(static_cast<std::uint64_t>(contributions.size()));
    for (const Contribution& c : contributions) out.put_text(c.bytes);
    return {FrameType::gathered, out.bytes()};
}

std::vector<std::string> decode_gathered(const Frame& frame) {
    Reader in(frame.bytes);
    std::vector<std::string> all;
    for (auto left = in.get<std::uint64_t>(); left > 0; --left) all.push_back(in.text());
    return all;
}

}  // namespace headway::runtime
