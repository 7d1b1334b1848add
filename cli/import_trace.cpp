#include "cli/import_trace.hpp"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <optional>
#include <string>

#include "cli/output.hpp"
#include "cli/verbs.hpp"
#include "models/recorded/call_table.hpp"
#include "models/recorded/import_recording.hpp"
#include "models/recorded/program_file.hpp"
#include "models/text/human.hpp"
#include "models/trace/torch_trace.hpp"
#include "models/vocab/error.hpp"

namespace headway::cli {
namespace {

std::optional<int> step_of(const po::variables_map& values) {
    const std::string text = values["step"].as<std::string>();
    if (text == "median") return std::nullopt;
    int step = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), step);
    if (error == std::errc() && end == text.data() + text.size()) return step;
    throw InputError({.where = "--step",
                      .found = "'" + text + "'",
                      .accepted = "the number of a step, N of ProfilerStep#N, or median"});
}

std::string comment_of(const Recording& recording) {
    std::string text =
        "# A program of headway import --torch-trace; headway predict --program replays it.\n";
    return text +
           fmt::format("# {} tasks, {} groups; docs/howto/own_script.md explains the keys.\n",
                       recording.tasks.size(), recording.groups.size());
}

void note_replay(const Recording& recording) {
    if (!recording.measured_step || !recording.replayed_step) return;
    const double error = *recording.replayed_step / *recording.measured_step - 1.0;
    note(fmt::format(
        "replay of the recorded kernels: {} a step; measured without profiler: {} ({:+.1f} %)",
        human(*recording.replayed_step), human(*recording.measured_step), 100.0 * error));
    if (std::abs(error) > 0.1)
        warn("the replay is more than 10 % off: predictions from it are, too");
}

}  // namespace

void add_trace_options(po::options_description& options) {
    auto add = options.add_options();
    add("torch-trace", po::value<std::string>()->value_name("FILE"),
        "instead of a job: a trace of PyTorch's profiler, .json or .json.gz");
    add("comm", po::value<std::string>()->value_name("FILE"),
        "the side table that headway_recorder.py wrote with it");
    add("step", po::value<std::string>()->default_value("median")->value_name("N|median"),
        "of a trace: which of its steps");
    add("top-k", po::value<int>()->value_name("K"), "of a trace: experts that a token chooses");
}

int import_torch_trace(const po::variables_map& values) {
    ImportRecordingOptions options{.step = step_of(values), .top_k = std::nullopt};
    if (values.count("top-k") != 0) options.top_k = whole_number(values, "top-k", 1, 1024);
    const std::string file = values["torch-trace"].as<std::string>();
    const auto comm = optional_text(values, "comm");
    std::optional<CallTable> table;
    if (comm) table = read_call_table(*comm);
    const TorchTrace trace = read_torch_trace(file);
    const Recording recording = import_recording(trace, table ? &*table : nullptr, options);
    write_result(comment_of(recording) + to_yaml(recording), optional_text(values, "out"));
    note_replay(recording);
    for (const std::string& text : recording.inferred) note("inferred: " + text);
    return kDone;
}

}  // namespace headway::cli
