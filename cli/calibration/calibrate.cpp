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

#include "cli/calibration/calibrate_lab.hpp"
#include "cli/calibration/cpu_samples.hpp"
#include "cli/calibration/curve_note.hpp"
#include "cli/calibration/gpu_samples.hpp"
#include "cli/calibration/log_import.hpp"
#include "cli/grid_samples.hpp"
#include "cli/measured_timelines.hpp"
#include "cli/options.hpp"
#include "cli/output.hpp"
#include "cli/scenario_options.hpp"
#include "models/fit/curve_fit.hpp"
#include "models/fit/layer_samples.hpp"
#include "models/measurements/kernel_bench.hpp"
#include "models/measurements/nccl_log.hpp"
#include "models/measurements/overhead_samples.hpp"
#include "models/report/version.hpp"
#include "models/scenario/check_scenario.hpp"
#include "models/scenario/read_scenario.hpp"
#include "models/text/atomic_file.hpp"
#include "models/text/csv_text.hpp"
#include "models/vocab/error.hpp"
#include "runtime/host.hpp"
#include "runtime/layers/layer_setup.hpp"

namespace headway::cli {
namespace {

using Strings = std::vector<std::string>;

CommandHelp calibrate_help() {
    return {
        .usage = "calibrate -o PROFILE.yaml [SCENARIO.yaml] [options]",
        .about =
            "Measures the machine, or takes measurements that exist, fits the curves that\n"
            "predictions look up, and writes the profile with its provenance. With --device cpu\n"
            "the layers of the scenario run over a grid of token counts and top-k; with\n"
            "--device cuda headway-grid and headway-comm measure a grid of layers, exchanges,\n"
            "copies and launches on GPUs, and what they have measured is kept and not repeated;\n"
            "--lab runs layers and even exchanges in headway-lab, on a star at --scale, for\n"
            "verify --lab; --from refits from a measured Timeline; --from-overheads fits\n"
            "launches, waits and overlap of a GPU from its CSV; --from-nccl-tests fits\n"
            "communication curves, --from-kernel-bench kernel curves of a GPU. Curves without new\n"
            "samples are kept from --base.",
        .examples =
            "  headway calibrate scenarios/cpu_small.yaml --device cpu -o cpu.yaml\n"
            "  headway calibrate scenarios/cpu_small.yaml --device cpu --samples cpu.csv -o "
            "cpu.yaml\n"
            "  headway calibrate scenarios/gpu_layer_4.yaml --device cuda --ranks 4 --base "
            "h200_public -o mine.yaml\n"
            "  headway calibrate scenarios/lab_two_leaves.yaml --lab --scale 1/400 -o lab.yaml\n"
            "  headway calibrate --from-nccl-tests alltoall.log --base h100_public -o mine.yaml\n"
            "  headway calibrate --from-kernel-bench docs/results/kernels_h200_grid.csv "
            "--base h200_public -o mine.yaml",
        .positional = {"scenario"}};
}

po::options_description calibrate_options() {
    po::options_description options("Options");
    add_scenario_options(options);
    auto add = options.add_options();
    const auto text = [](const char* name) { return po::value<std::string>()->value_name(name); };
    add("out,o", text("FILE"), "the profile to write");
    add("device", text("DEVICE"), "cpu or cuda: measure this machine's CPU, or its GPUs");
    add("lab", po::bool_switch(), "measure ranks and their transport in headway-lab");
    add("scale", po::value<std::string>()->value_name("PART"),
        "of --lab: every bandwidth times this, a fraction or a number: 1/400, 0.025");
    add("grid", po::value<std::string>()->value_name("GRID"),
        "cpu: small or full (default: small); cuda: CSV of layers (default: fit_1 of "
        "scenarios/grids, fit_4 for several ranks)");
    add("hold-out", po::value<Strings>()->value_name("CSV"),
        "cuda: layers to run between those of the grid, not to fit: for verify --grid (may be "
        "repeated)");
    add("samples", text("PATH"),
        "cpu: file, cuda: folder (default: PROFILE_samples) that keeps the samples; a second run "
        "goes on with those it finds");
    add("programs", text("DIR"),
        "cuda: folder of headway-grid and headway-comm (default: beside headway, then the PATH)");
    add("max-seconds", po::value<double>()->default_value(300.0)->value_name("S"),
        "cuda: measure no new layer after this time; 0 only fits the samples there are");
    add("passes", po::value<int>()->default_value(0)->value_name("N"),
        "interleaved passes over the grid (default: 3; cuda: 2; lab: repeats, 9)");
    add("ranks", po::value<int>()->default_value(0)->value_name("N"),
        "ranks that run, or that ran the Timeline (default: the plan's group_size), or the log "
        "(where it does not say)");
    add("tokens", po::value<int>()->default_value(0)->value_name("N"),
        "tokens per rank, of the Timeline or in the lab (default: the scenario's)");
    add("from", text("CSV"), "refit from a measured Timeline");
    add("from-grid", po::value<Strings>()->value_name("CSV"),
        "fit whole phases and exchanges from samples of headway-grid (may be repeated)");
    add("from-overheads", po::value<Strings>()->value_name("CSV"),
        "fit launches, waits, the host's times and overlap from what headway-grid --overheads "
        "wrote "
        "(may be repeated)");
    add("multiprocessors", po::value<int>()->value_name("N"),
        "multiprocessors that a rank of --from-grid had (--device cuda asks the GPU)");
    add("from-nccl-tests", po::value<Strings>()->value_name("LOG"),
        "import a log of nccl-tests or rccl-tests: text, JSON or CSV (may be repeated)");
    add("from-kernel-bench", text("CSV"), "GPU kernel curves from headway-bench --csv");
    add("path", text("CLASS"),
        "of the logs, the link class that decided: nvlink, pcie, nic, spine or core");
    add("link", text("BANDWIDTH"),
        "of the logs, what the link of a rank can carry in one direction, by its data sheet "
        "(default: that of SCENARIO's cluster): on another link the times scale");
    add("collective", text("NAME"),
        "of the logs: all_to_all, send_recv, all_reduce, all_gather or reduce_scatter, where they "
        "do not say it; of files with several, this one");
    add("nodes", po::value<int>()->default_value(0)->value_name("N"),
        "of the logs, nodes that the ranks were on, where host names do not say it");
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

CalibrationSamples samples_from_csv(const std::string& csv, const Scenario& scenario,
                                    std::string& device) {
    CalibrationSamples samples;
    for (const Timeline& timeline : read_measured({csv}, scenario)) {
        if (!device.empty() && device != timeline.profile) {
            warn(fmt::format("{} is of {}, the profile of {}", csv, timeline.profile, device));
        }
        device = timeline.profile;  // the profile names the device that ran
        add_samples(scenario, plan_of(scenario, timeline), timeline, samples);
    }
    return samples;
}

// What the profile says of its origin. A GPU's measurement writes its own note and driver; those of
// the base say nothing about curves that came from elsewhere.
struct Origin {
    bool on_cpu = false, writes_own = false, with_logs = false;
};
void set_note(Profile& profile, const Profile& base, Origin origin) {
    Provenance& p = profile.provenance;
    const std::string note = curve_note(base, profile);
    if (origin.writes_own) {
        if (origin.with_logs) p.note += " " + note;
        return;
    }
    p.note = origin.on_cpu ? load_note() + ". " + note : note;
    for (std::string* of_base : {&p.driver, &p.cuda, &p.nccl, &p.clocks}) of_base->clear();
}

int passes(const po::variables_map& values, int otherwise) {
    const int asked = whole_number(values, "passes", 0, 1000);
    return asked > 0 ? asked : otherwise;
}

CalibrationSamples samples_of_cpu(const po::variables_map& values, const Scenario& scenario) {
    runtime::prepare_timed_memory();
    Progress progress("calibrating");
    const int asked = whole_number(values, "ranks", 0, 64);
    const int ranks = asked > 0 ? asked : scenario.plans.front().group_size;
    const std::string grid =
        one_of(optional_text(values, "grid").value_or("small"), {"small", "full"}, "--grid");
    std::optional<SamplesFile> file;
    if (const auto path = optional_text(values, "samples")) {
        file.emplace(
            *path, fmt::format("{} of {} plans, {} tokens, {} grid, {} ranks, {}",
                               one_line(scenario.name), scenario.plans.size(),
                               scenario.batch.tokens_per_rank(), grid, ranks, runtime::cpu_name()));
    }
    return measure_cpu(scenario, {.full = grid == "full",
                                  .num_passes = passes(values, 3),
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
    if (values.count("multiprocessors") == 0) {
        throw InputError({.where = "--from-grid",
                          .found = "no --multiprocessors, which the samples do not hold",
                          .accepted = "those of the GPU that a rank ran on, or of its share",
                          .hint = "an H200 has 132, a quarter of it under MPS 32"});
    }
    const Scenario scenario = load_scenario(values, "calibrate");
    std::vector<runtime::GridSample> samples;
    for (const std::string& file : values["from-grid"].as<Strings>()) {
        for (auto& s : runtime::read_grid_samples(file)) samples.push_back(std::move(s));
    }
    CalibrationSamples calibration{.num_multiprocessors =
                                       whole_number(values, "multiprocessors", 1, 4096)};
    add_layers(scenario, samples, calibration);
    return fit_profile(calibration, std::move(profile),
                       fmt::format("measured by headway-grid, fitted {}", today()));
}

Profile profile_of_overheads(const std::vector<std::string>& files, Profile profile,
                             std::string& device) {
    CalibrationSamples samples;
    for (const std::string& file : files) {
        const DeviceFacts facts = add_overheads(file, samples);
        const auto found = facts.find("device");
        if (found == facts.end()) continue;
        if (!device.empty() && device != found->second)
            warn(fmt::format("{} is of {}, the profile of {}", file, found->second, device));
        if (device.empty()) device = found->second;
    }
    // One GPU's matter, of which several ranks give the slowest.
    samples.copies.clear();
    samples.gemms.clear();
    return fit_profile(samples, std::move(profile),
                       fmt::format("measured by headway-grid, fitted {}", today()));
}

// The layers that calibrate the scenario's ranks: a grid that ships with headway.
std::filesystem::path default_grid(int num_ranks) {
    const std::string name = num_ranks == 1 ? "fit_1.csv" : "fit_4.csv";
    for (const auto& presets : builtin_preset_dirs()) {
        if (std::filesystem::exists(presets / "grids" / name)) return presets / "grids" / name;
    }
    throw InputError({.where = "--grid", .found = "no " + name + " among the presets"});
}

GpuCalibration gpu_calibration(const po::variables_map& values, const Scenario& scenario) {
    const std::filesystem::path out = required(values, "out", "calibrate");
    const int asked = whole_number(values, "ranks", 0, 1024);
    GpuCalibration c{.scenario = required(values, "scenario", "calibrate"),
                     .num_ranks = asked > 0 ? asked : scenario.plans.front().group_size,
                     .folder = out.parent_path() / (out.stem().string() + "_samples"),
                     .num_passes = passes(values, 2),
                     .max_seconds = real_number(values, "max-seconds", 0.0, 1e9)};
    const auto grid = optional_text(values, "grid");
    c.grid = grid ? std::filesystem::path(*grid) : default_grid(c.num_ranks);
    if (values.count("hold-out") != 0) {
        for (const std::string& file : values["hold-out"].as<Strings>())
            c.held_out.emplace_back(file);
    }
    if (const auto folder = optional_text(values, "samples")) c.folder = *folder;
    if (const auto folder = optional_text(values, "programs")) c.programs = *folder;
    return c;
}

// Curves of a GPU that headway-grid and headway-comm measure. All-to-all curves are of the layers'
// own exchanges, the others of headway-comm.
Profile profile_of_gpu(const po::variables_map& values, Profile profile, std::string& device) {
    const Scenario scenario = load_scenario(values, "calibrate");
    const GpuCalibration calibration = gpu_calibration(values, scenario);
    const GpuSamples files = measure_gpu(calibration);
    CalibrationSamples samples;
    const DeviceFacts facts = add_overheads(files.overheads, samples);
    const auto fact = [&](const char* name) {
        const auto it = facts.find(name);
        return it == facts.end() ? std::string() : it->second;
    };
    const bool share = values.count("multiprocessors") == 0;
    add_layers(scenario, runtime::read_grid_samples(files.layers), samples);
    samples.num_multiprocessors = share ? std::atoi(fact("multiprocessors").c_str())
                                        : whole_number(values, "multiprocessors", 1, 4096);
    if (samples.num_multiprocessors <= 0) {
        throw InputError({.where = "--device cuda",
                          .found = "samples that do not say how many multiprocessors a rank had",
                          .accepted = "--multiprocessors N beside them"});
    }
    const PathClass path = path_class(scenario.cluster, 0, calibration.num_ranks - 1);
    for (const std::filesystem::path& log : files.comm_logs) {
        for (const NcclTable& table : read_nccl_log(log).tables) {
            TimeCurve curve = to_time_curve(table, path);
            curve.link = samples.link;
            if (curve.collective != Collective::all_to_all)
                replace_curve(profile, std::move(curve));
        }
    }
    profile.provenance.note = fmt::format(
        "Measured: phases of layers, all-to-all{}{}, copies, launches and the host's "
        "waits. Everything else is that of {}.",
        calibration.num_ranks > 1 ? ", send and receive, all-reduce, overlap" : "",
        samples.gemms.empty() ? "" : ", dense GEMMs",
        profile.name.empty() ? "no other profile" : profile.name);
    device = fact("device");
    profile.provenance.driver = fact("driver");
    profile.provenance.cuda = fact("cuda");
    profile.provenance.nccl = fact("nccl");
    profile.provenance.clocks = "SM " + fact("clock_mhz") + " MHz while measuring";
    return fit_profile(samples, std::move(profile),
                       fmt::format("measured {} by headway calibrate", today()));
}

Profile measured_profile(const po::variables_map& values, Profile profile, std::string& device) {
    const bool cpu = values.count("device") != 0;
    if (cpu && one_of(values["device"].as<std::string>(), {"cpu", "cuda"}, "--device") == "cuda")
        return profile_of_gpu(values, std::move(profile), device);
    if (values["lab"].as<bool>()) {
        return profile_of_lab(values, std::move(profile),
                              fmt::format("measured {} by headway calibrate --lab", today()),
                              device);
    }
    if (!cpu && values.count("from") == 0) return profile;
    const Scenario scenario = load_scenario(values, "calibrate");
    for (const std::string& sentence : runtime::not_executed(scenario)) warn(sentence);
    CalibrationSamples samples;
    std::string source = fmt::format("measured {} by headway calibrate", today());
    if (cpu) {
        samples = samples_of_cpu(values, scenario);
    } else {
        const std::string csv = values["from"].as<std::string>();
        samples = samples_from_csv(
            csv,
            runtime::scenario_to_run(scenario, whole_number(values, "ranks", 0, 1 << 20),
                                     whole_number(values, "tokens", 0, 1 << 30)),
            device);
        source = fmt::format("refitted {} from {}", today(),
                             std::filesystem::path(csv).filename().string());
    }
    if (device.empty()) device = runtime::cpu_name();
    if (const auto file = optional_text(values, "cluster-out"))
        write_cluster(*file, scenario.cluster);
    return fit_profile(samples, std::move(profile), source);
}

// What is measured, or measured already: one source of it, and no option that this source ignores.
void check_sources(const po::variables_map& values) {
    const auto has = [&](const char* name) { return values.count(name) != 0; };
    const std::string device = optional_text(values, "device").value_or("");
    if (!device.empty()) one_of(device, {"cpu", "cuda"}, "--device");
    const bool run = !device.empty(), cuda = device == "cuda", from = has("from"),
               grid = has("from-grid"), logs = has("from-nccl-tests"),
               bench = has("from-kernel-bench"), overheads = has("from-overheads"),
               lab = values["lab"].as<bool>();
    if (!run && !lab && !from && !grid && !logs && !bench && !overheads) {
        throw InputError({.where = "headway calibrate",
                          .found = "nothing to calibrate from",
                          .accepted = "--device cpu or cuda, --lab, --from CSV, --from-grid CSV, "
                                      "--from-kernel-bench CSV, --from-overheads CSV or "
                                      "--from-nccl-tests LOG"});
    }
    const std::string measures = run ? "--device " + device : lab ? "--lab" : "--from";
    refuse_both(measures, run && lab, "--lab");
    refuse_both(measures, (run || lab) && from, "--from");
    refuse_both("--lab", lab && (grid || logs || bench || overheads),
                "what was measured elsewhere");
    refuse_both(measures, (run || from) && grid, "--from-grid");
    refuse_both(measures, ((run && !cuda) || from) && bench, "--from-kernel-bench");
    refuse_both(measures, (run || from) && overheads, "--from-overheads");
    check_uses(values, {{"grid", run, "--device"},
                        {"hold-out", cuda, "--device cuda"},
                        {"samples", run, "--device"},
                        {"programs", cuda, "--device cuda"},
                        {"max-seconds", cuda, "--device cuda"},
                        {"passes", run || lab, "--device or --lab"},
                        {"scale", lab, "--lab"},
                        {"ranks", run || from || logs, "--device, --from or --from-nccl-tests"},
                        {"tokens", from || lab, "--from or --lab"},
                        {"multiprocessors", grid || cuda, "--from-grid or --device cuda"},
                        {"path", logs, "--from-nccl-tests"},
                        {"link", logs, "--from-nccl-tests"},
                        {"collective", logs, "--from-nccl-tests"},
                        {"nodes", logs, "--from-nccl-tests"},
                        {"cluster-out", (run && !cuda) || from, "--device cpu or --from"},
                        {"scenario", run || lab || from || grid || logs,
                         "--device, --lab, --from, --from-grid or --from-nccl-tests"},
                        {"profile", false, "another verb; --base gives the curves that are kept"}});
}

}  // namespace

int run_calibrate(Args args) {
    const auto values = parse_options(args, calibrate_help(), calibrate_options());
    if (!values) return kDone;
    const std::string out = required(*values, "out", "calibrate");
    check_sources(*values);
    const bool logs = values->count("from-nccl-tests") != 0, grid = values->count("from-grid") != 0;
    const auto bench = optional_text(*values, "from-kernel-bench");
    Profile base;
    if (const auto file = optional_text(*values, "base"))
        base = load_profile(*file, read_options(*values));
    Profile profile = base;
    if (bench) profile = with_measured_kernels(profile, read_kernel_bench(*bench));
    if (grid) profile = profile_of_grid(*values, std::move(profile));
    std::string device = profile.provenance.device;
    if (values->count("from-overheads") != 0)
        profile = profile_of_overheads((*values)["from-overheads"].as<Strings>(),
                                       std::move(profile), device);
    profile = measured_profile(*values, std::move(profile), device);
    if (logs) import_logs(*values, profile, device);
    std::string command = "headway calibrate";
    for (const std::string& word : args) command += " " + word;
    profile.name = std::filesystem::path(out).stem().string();
    profile.provenance.device = device.empty() ? "unknown" : device;
    if (profile.provenance.device != base.provenance.device) {
        profile.provenance.peak_matmul = {};
        profile.provenance.memory_bandwidth = {};
    }
    profile.provenance.kind = "measured";
    profile.provenance.date = today();
    profile.provenance.commit = std::string(version());
    profile.provenance.command = command;
    if (profile.overheads.source.empty()) profile.overheads.source = "not measured, 0";
    const auto measured = optional_text(*values, "device");
    set_note(profile, base,
             {.on_cpu = measured == "cpu" || (*values)["lab"].as<bool>(),
              .writes_own = measured == "cuda" || bench,
              .with_logs = logs});
    if (std::vector<InputProblem> problems = check_profile(profile); !problems.empty())
        throw InputError(std::move(problems));
    write_file_atomically(out, to_yaml(profile));
    return kDone;
}

}  // namespace headway::cli
