// headway calibrate: measures or imports, fits curves, and writes the profile.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "cli/cpu_samples.hpp"
#include "cli/grid_samples.hpp"
#include "cli/options.hpp"
#include "cli/output.hpp"
#include "cli/scenario_options.hpp"
#include "models/fit/kernel_bench.hpp"
#include "models/fit/layer_samples.hpp"
#include "models/fit/nccl_log.hpp"
#include "models/report/atomic_file.hpp"
#include "models/report/csv_text.hpp"
#include "models/report/timeline_csv.hpp"
#include "models/report/version.hpp"
#include "models/scenario/check_scenario.hpp"
#include "models/scenario/read_scenario.hpp"
#include "models/vocab/error.hpp"
#include "runtime/host.hpp"
#include "runtime/layer_setup.hpp"

namespace headway::cli {
namespace {

using Strings = std::vector<std::string>;

CommandHelp calibrate_help() {
    return {
        .usage = "calibrate -o PROFILE.yaml [SCENARIO.yaml] [options]",
        .about =
            "Measures the machine, or takes measurements that exist, fits the curves that\n"
            "predictions look up, and writes the profile with its provenance. With --device cpu\n"
            "the layers of the scenario run over a grid of token counts and top-k; --from\n"
            "refits from a measured Timeline of that scenario; --from-nccl-tests fits\n"
            "communication curves, --from-kernel-bench kernel curves of a GPU. Curves without new\n"
            "samples are kept from --base.",
        .examples =
            "  headway calibrate scenarios/cpu_small.yaml --device cpu -o cpu.yaml\n"
            "  headway calibrate scenarios/cpu_small.yaml --device cpu --samples cpu.csv -o "
            "cpu.yaml\n"
            "  headway calibrate --from-nccl-tests alltoall.log --base h100_public -o mine.yaml\n"
            "  headway calibrate --from-kernel-bench docs/kernels_h200_grid.csv --base h200_public "
            "-o mine.yaml",
        .positional = {"scenario"}};
}

po::options_description calibrate_options() {
    po::options_description options("Options");
    add_scenario_options(options);
    auto add = options.add_options();
    const auto text = [](const char* name) { return po::value<std::string>()->value_name(name); };
    add("out,o", text("FILE"), "the profile to write");
    add("device", text("DEVICE"), "cpu: measure this machine's CPU");
    add("grid", po::value<std::string>()->default_value("small")->value_name("GRID"),
        "small or full");
    add("passes", po::value<int>()->default_value(3)->value_name("N"),
        "interleaved passes over the grid");
    add("samples", text("FILE"),
        "keep the samples of --device cpu there; a second run goes on with those it finds");
    add("ranks", po::value<int>()->default_value(0)->value_name("N"),
        "ranks that run, or that ran the Timeline (default: the plan's group_size)");
    add("tokens", po::value<int>()->default_value(0)->value_name("N"),
        "tokens per rank of the Timeline (default: the scenario's)");
    add("from", text("CSV"), "refit from a measured Timeline");
    add("from-grid", po::value<Strings>()->value_name("CSV"),
        "fit whole phases and exchanges from samples of headway-run --grid (may be repeated)");
    add("multiprocessors", po::value<int>()->default_value(132)->value_name("N"),
        "of the GPU that a rank of --from-grid ran on, or of its share");
    add("from-nccl-tests", po::value<Strings>()->value_name("LOG"),
        "import an nccl-tests log, text or JSON (may be repeated)");
    add("from-kernel-bench", text("CSV"), "GPU kernel curves from headway-bench --csv");
    add("path", text("CLASS"), "link class of the logs: nvlink, pcie, nic or spine");
    add("base", text("PROFILE"), "profile whose other curves are kept");
    add("cluster-out", text("FILE"), "also write the scenario's cluster with this CPU's name");
    add("help,h", "this text");
    return options;
}

std::string today() {
    return fmt::format("{:%Y-%m-%d}", fmt::gmtime(std::time(nullptr)));
}

// What the CPU was busy with besides: the mean number of runnable threads of the last minute.
std::string load_note() {
    double load = 0.0;
    if (getloadavg(&load, 1) != 1) return "";
    return fmt::format("{} cores, load average {:.1f} at the end", runtime::num_cores(), load);
}

void import_logs(const Strings& logs, std::optional<PathClass> path, Profile& profile,
                 std::string& device) {
    for (const std::string& log : logs) {
        const NcclTable table = read_nccl_log(std::filesystem::path(log));
        TimeCurve curve = to_time_curve(table, path);
        if (!device.empty() && !table.device.empty() && table.device != device) {
            warn(fmt::format("{} is of {}, the profile of {}", log, table.device, device));
        }
        if (device.empty()) device = table.device;
        auto& all = profile.communication;
        for (const TimeCurve& old : all) {
            const bool same = old.collective == curve.collective && old.path == curve.path;
            if (same) curve.link = old.link;
        }
        std::erase_if(all, [&](const TimeCurve& c) {
            return c.collective == curve.collective && c.path == curve.path &&
                   c.num_ranks == curve.num_ranks;
        });
        all.push_back(std::move(curve));
    }
}

std::optional<PathClass> path_of(const po::variables_map& values) {
    const auto chosen = optional_text(values, "path");
    if (!chosen) return std::nullopt;
    one_of(*chosen, {"nvlink", "pcie", "nic", "spine"}, "--path");
    const auto it = std::find(kPathClassNames.begin(), kPathClassNames.end(), *chosen);
    return static_cast<PathClass>(it - kPathClassNames.begin());
}

CalibrationSamples samples_from_csv(const std::string& csv, const Scenario& scenario) {
    CalibrationSamples samples;
    for (const Timeline& timeline : read_timelines(std::filesystem::path(csv))) {
        const auto plan = std::find_if(scenario.plans.begin(), scenario.plans.end(),
                                       [&](const Plan& p) { return p.name == timeline.plan; });
        if (timeline.source != Source::measured || plan == scenario.plans.end()) {
            throw InputError({.where = csv,
                              .found = "a timeline of plan '" + timeline.plan + "'",
                              .accepted = "measured timelines of the scenario's plans"});
        }
        add_samples(scenario, *plan, timeline, samples);
    }
    return samples;
}

CalibrationSamples samples_of_cpu(const po::variables_map& values, const Scenario& scenario) {
    runtime::keep_freed_memory();
    Progress progress("calibrating");
    const int asked = whole_number(values, "ranks", 0, 64);
    const int ranks = asked > 0 ? asked : scenario.plans.front().group_size;
    const std::string grid = one_of(values["grid"].as<std::string>(), {"small", "full"}, "--grid");
    std::optional<SamplesFile> file;
    if (const auto path = optional_text(values, "samples")) {
        file.emplace(
            *path, fmt::format("{} of {} plans, {} tokens, {} grid, {} ranks, {}",
                               one_line(scenario.name), scenario.plans.size(),
                               scenario.batch.tokens_per_rank(), grid, ranks, runtime::cpu_name()));
    }
    return measure_cpu(scenario, {.full = grid == "full",
                                  .num_passes = whole_number(values, "passes", 1, 1000),
                                  .num_ranks = ranks,
                                  .file = file ? &*file : nullptr,
                                  .progress = [&](std::size_t done, std::size_t total) {
                                      progress.update(done, total);
                                  }});
}

void write_cluster(const std::string& file, Cluster cluster) {
    cluster.device.name = runtime::cpu_name();
    cluster.device.memory = runtime::physical_memory();
    cluster.source = "written by headway calibrate on the CPU it names";
    write_file_atomically(file, to_yaml(cluster));
}

Profile profile_of_grid(const po::variables_map& values, Profile profile) {
    const Scenario scenario = load_scenario(values, "calibrate");
    std::vector<runtime::GridSample> samples;
    for (const std::string& file : values["from-grid"].as<Strings>()) {
        for (auto& s : runtime::read_grid_samples(file)) samples.push_back(std::move(s));
    }
    return fit_profile(
        calibration_samples(scenario, samples, whole_number(values, "multiprocessors", 1, 4096)),
        std::move(profile), fmt::format("measured by headway-run, fitted {}", today()));
}

Profile measured_profile(const po::variables_map& values, Profile profile, std::string& device) {
    const bool cpu = values.count("device") != 0;
    if (cpu) {
        const std::string asked = values["device"].as<std::string>();
        if (asked == "cuda") {
            throw InputError({.where = "--device",
                              .found = "cuda",
                              .accepted = "cpu",
                              .hint = "kernel curves of a GPU come from headway-bench --csv, "
                                      "communication curves from --from-nccl-tests"});
        }
        one_of(asked, {"cpu"}, "--device");
    }
    if (!cpu && values.count("from") == 0) return profile;
    const Scenario scenario = load_scenario(values, "calibrate");
    CalibrationSamples samples;
    std::string source = fmt::format("measured {} by headway calibrate", today());
    if (cpu) {
        samples = samples_of_cpu(values, scenario);
    } else {
        const std::string csv = values["from"].as<std::string>();
        samples = samples_from_csv(
            csv, runtime::scenario_to_run(scenario, whole_number(values, "ranks", 0, 1 << 20),
                                          whole_number(values, "tokens", 0, 1 << 30)));
        source = fmt::format("refitted {} from {}", today(),
                             std::filesystem::path(csv).filename().string());
    }
    if (device.empty()) device = cpu ? runtime::cpu_name() : scenario.cluster.device.name;
    if (const auto file = optional_text(values, "cluster-out"))
        write_cluster(*file, scenario.cluster);
    return fit_profile(samples, std::move(profile), source);
}

}  // namespace

int run_calibrate(Args args) {
    const auto values = parse_options(args, calibrate_help(), calibrate_options());
    if (!values) return kDone;
    const std::string out = required(*values, "out", "calibrate");
    const bool logs = values->count("from-nccl-tests") != 0, grid = values->count("from-grid") != 0;
    const auto bench = optional_text(*values, "from-kernel-bench");
    if (!logs && !bench && !grid && values->count("device") == 0 && values->count("from") == 0) {
        throw InputError({.where = "headway calibrate",
                          .found = "nothing to calibrate from",
                          .accepted = "--device cpu, --from CSV, --from-grid CSV, "
                                      "--from-kernel-bench CSV or --from-nccl-tests LOG"});
    }
    Profile profile;
    if (const auto base = optional_text(*values, "base"))
        profile = load_profile(*base, read_options(*values));
    if (bench) profile = with_measured_kernels(profile, read_kernel_bench(*bench));
    if (grid) profile = profile_of_grid(*values, std::move(profile));
    std::string device = profile.provenance.device;
    profile = measured_profile(*values, std::move(profile), device);
    if (logs)
        import_logs((*values)["from-nccl-tests"].as<Strings>(), path_of(*values), profile, device);
    std::string command = "headway calibrate";
    for (const std::string& word : args) command += " " + word;
    profile.name = std::filesystem::path(out).stem().string();
    profile.provenance.device = device.empty() ? "unknown" : device;
    profile.provenance.kind = "measured";
    profile.provenance.date = today();
    profile.provenance.commit = std::string(version());
    profile.provenance.command = command;
    if (values->count("device") != 0) profile.provenance.note = load_note();
    if (std::vector<InputProblem> problems = check_profile(profile); !problems.empty())
        throw InputError(std::move(problems));
    write_file_atomically(out, to_yaml(profile));
    return kDone;
}

}  // namespace headway::cli
