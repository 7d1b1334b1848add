#include "models/import/import_job.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>

#include "models/import/dialects.hpp"
#include "models/import/known_arguments.hpp"
#include "models/scenario/check_scenario.hpp"
#include "models/scenario/head_parallel_twin.hpp"
#include "models/scenario/quantity_text.hpp"
#include "models/scenario/resolve.hpp"
#include "models/scenario/source_files.hpp"

namespace headway::inline importing {
namespace {

namespace fs = std::filesystem;

bool is_hugging_face(std::string_view text, const fs::path& file) {
    const auto has = [&](std::string_view key) { return text.find(key) != text.npos; };
    return file.extension() == ".json" && (has("\"model_type\"") || has("\"architectures\"")) &&
           !has("\"parallelism\"");
}

// Notes are comments: one line each, whatever the file quotes.
std::string one_line(std::string text) {
    constexpr std::size_t most = 400;
    for (char& c : text) {
        if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = ' ';
    }
    return text.size() > most ? text.substr(0, most) + " ..." : text;
}

JobFile read_file(std::string_view text, const std::string& file, const ImportOptions& options) {
    const fs::path path(file);
    const std::string extension = path.extension().string();
    const ShellSurroundings& around = options.surroundings;
    if (is_hugging_face(text, path)) {
        return {file, "Hugging Face config"};
    }
    if (extension == ".py") {
        throw InputError({file, "Python: what it configures is known when it runs",
                          "the launch script, or the log of the job",
                          "the head of a Megatron log has every argument; torchtitan prints its "
                          "configuration with --debug.print_config"});
    }
    if (extension == ".toml") return read_torchtitan_toml(text, file);
    if (is_bridge_log(text)) return read_bridge_log(text, file);
    if (extension == ".yaml" || extension == ".yml" || extension == ".json")
        return read_job_yaml(text, file, around);
    if (is_megatron_log(text)) return read_megatron_log(text, file);
    return read_script(text, file, around);
}

// Arguments and variables that nothing reads are mistakes.
void check_surroundings(std::string_view text, const JobFile& job, const ImportOptions& options) {
    const bool takes =
        job.format.find("script") != std::string::npos || job.dialect == Dialect::megatron;
    const ShellSurroundings& around = options.surroundings;
    if (!takes && !around.arguments.empty()) {
        throw InputError({"headway import",
                          fmt::format("arguments for {}, which takes none: {}", job.file,
                                      in_quotes(around.arguments.front())),
                          "arguments behind a job of Megatron, as its command line has them", ""});
    }
    const bool reads_variables =
        job.format.find("script") != std::string::npos || job.format.starts_with("YAML");
    for (const auto& [name, value] : around.variables) {
        if (reads_variables && text.find(name) != text.npos) continue;
        throw InputError({"--set " + name, fmt::format("{} does not read {}", job.file, name),
                          "a variable of the file", ""});
    }
}

std::optional<int> world_of(const Job& job, const ImportOptions& options) {
    const JobFile& file = job.file();
    const auto stated = [&](std::string_view name) -> std::optional<int> {
        const Setting* setting = job.find(name);
        const auto value = setting ? parse_integer(setting->text()) : std::nullopt;
        if (!value || *value < 1 || *value > 1 << 20) return std::nullopt;
        return static_cast<int>(*value);
    };
    const auto dumped = stated("world_size"), nodes = stated("nnodes"),
               each = stated("nproc_per_node");
    if (options.num_ranks) return options.num_ranks;
    if (dumped) return dumped;
    const auto num_nodes = file.num_nodes ? file.num_nodes : nodes,
               per_node = file.gpus_per_node ? file.gpus_per_node : each;
    if (num_nodes && per_node) return *num_nodes * *per_node;
    return file.num_ranks;
}

Cluster read_cluster_of(const ImportOptions& options) {
    std::error_code ignored;
    const bool is_file =
        fs::path(*options.cluster).has_extension() || fs::exists(*options.cluster, ignored);
    return read_cluster(is_file ? fs::path(*options.cluster)
                                : find_preset("clusters", *options.cluster, options.presets),
                        options.presets);
}

Cluster cluster_of(const Job& job, const ImportOptions& options, std::optional<int> num_ranks) {
    if (!num_ranks) job.ask("no number of GPUs", "--gpus N");
    if (!options.cluster && !options.machine) {
        job.ask("nothing of the machine", "--cluster NAME|FILE",
                "headway list clusters names the shipped ones");
        return {};
    }
    Cluster cluster = options.machine ? *options.machine : read_cluster_of(options);
    if (!num_ranks) return cluster;
    const int own = cluster.gpus_per_node;
    if (*num_ranks % own == 0) {
        cluster.num_nodes = *num_ranks / own;
    } else if (*num_ranks < own) {
        cluster.num_nodes = 1;
        cluster.gpus_per_node = *num_ranks;
        if (cluster.nvlink) cluster.nvlink->domain = std::min(cluster.nvlink->domain, *num_ranks);
    } else {
        job.ask(fmt::format("{} GPUs for nodes of {}", *num_ranks, own), "whole nodes",
                "--gpus N and --cluster say what there is");
    }
    const auto stated = job.file().gpus_per_node;
    if (stated && *stated != cluster.gpus_per_node && !options.num_ranks)
        job.assume(fmt::format("the job has {} GPUs a node, the cluster {}: {} in all", *stated,
                               cluster.gpus_per_node, *num_ranks));
    return cluster;
}

std::optional<ModelSpec> model_of(const Job& job, const fs::path& file,
                                  const ImportOptions& options, std::vector<std::string>& notes) {
    std::error_code ignored;
    const bool is_config = job.file().format == "Hugging Face config";
    std::string name = options.model.value_or("");
    if (is_config) {
        if (options.model)
            throw InputError({"--model", "a model beside a Hugging Face config", "one of them"});
        return read_model(file, options.presets, &notes);
    }
    if (job.file().dialect == Dialect::torchtitan && name.empty()) {
        name = torchtitan_preset(job);
        if (!name.empty()) notes.push_back("the model is the preset " + name);
    }
    if (name.empty()) {
        if (job.file().dialect == Dialect::torchtitan)
            job.ask(fmt::format("the shape of the model {} is in Python",
                                in_quotes(job.text("model.name", job.text("config")) + " " +
                                          job.text("model.flavor"))),
                    "--model NAME|FILE", "headway list models, or a Hugging Face config.json");
        return std::nullopt;
    }
    if (job.has("num_layers") || job.has("hidden_size"))
        throw InputError({"--model", "a model for a job that describes its own",
                          "no --model; --vocab-size gives what a tokenizer leaves open"});
    const bool is_file = fs::path(name).has_extension() || fs::exists(name, ignored);
    return read_model(is_file ? fs::path(name) : find_preset("models", name, options.presets),
                      options.presets, &notes);
}

void add_twin(const ImportOptions& options, Scenario& scenario) {
    if (!options.head_parallel_twin) return;
    HeadParallel twin{.num_heads = *options.head_parallel_twin};
    Plan plan = scenario.plans.front();
    plan.name = "hp";
    if (scenario.model.hidden % twin.num_heads != 0) {
        throw InputError(
            {"--head-parallel-twin",
             fmt::format("{} heads do not divide hidden {}", twin.num_heads, scenario.model.hidden),
             "a number that does"});
    }
    twin = head_parallel_twin(scenario.model, twin);
    scenario.notes.push_back(describe_twin(scenario.model, twin, plan.name));
    plan.layer = twin;
    scenario.plans.push_back(std::move(plan));
}

// A setting that several keys come from is read more than once.
std::vector<InputProblem> each_once(std::vector<InputProblem> problems) {
    std::vector<InputProblem> once;
    for (InputProblem& problem : problems) {
        const bool is_known = std::any_of(once.begin(), once.end(), [&](const InputProblem& other) {
            return other.where == problem.where && other.found == problem.found;
        });
        if (!is_known) once.push_back(std::move(problem));
    }
    return once;
}

void check(const Job& job, const Scenario& scenario, std::vector<InputProblem>& problems) {
    for (InputProblem problem : check_scenario(scenario)) {
        problem.found += fmt::format(" ({})", problem.where);
        problem.where = job.where(problem.where);
        problems.push_back(std::move(problem));
    }
}

ImportedJob import_file(std::string_view text, const std::string& name,
                        const ImportOptions& options) {
    JobFile file = read_file(text, name, options);
    // A script has its own arguments put in already.
    if (file.dialect == Dialect::megatron && file.format.find("script") == std::string::npos)
        add_arguments(options.surroundings.arguments, file);
    check_surroundings(text, file, options);
    std::vector<InputProblem> problems;
    const Job job(file, problems);
    if (file.settings.empty() && file.format != "Hugging Face config") {
        throw InputError(
            {name, fmt::format("no training arguments in a {}", file.format),
             "a launch script or log of Megatron, YAML with MODEL_ARGS, run_config.yaml, "
             "TOML, JSON or a command of torchtitan, a Hugging Face config.json",
             ""});
    }
    ImportedJob result;
    result.format = file.format;
    Scenario& scenario = result.scenario;
    scenario.name = fs::path(name).stem().string();
    std::vector<std::string> notes;
    const std::optional<ModelSpec> model = model_of(job, name, options, notes);
    const std::optional<int> num_ranks = world_of(job, options);
    scenario.cluster = cluster_of(job, options, num_ranks);
    const Given given{model ? &*model : nullptr, options.vocab_size, num_ranks.value_or(0)};
    if (file.dialect == Dialect::torchtitan)
        fill_from_torchtitan(job, given, scenario);
    else
        fill_from_megatron(job, given, scenario);
    if (!model) {
        scenario.model.name = scenario.name;
        scenario.model.source = fmt::format("imported from {}", fs::path(name).filename().string());
    }
    if (!problems.empty()) throw InputError(each_once(std::move(problems)));
    add_twin(options, scenario);
    resolve(scenario);
    check(job, scenario, problems);
    if (!problems.empty()) throw InputError(std::move(problems));
    for (std::string& line : job.leftovers()) result.leftovers.push_back(one_line(std::move(line)));
    result.num_of_no_concern = job.num_of_no_concern();
    for (const std::string& note : job.assumed()) notes.push_back(one_line(note));
    for (const std::string& leftover : result.leftovers) notes.push_back(leftover);
    if (result.num_of_no_concern > 0)
        notes.push_back(
            fmt::format("{} settings change nothing of a step's work (paths, logs, data, "
                        "schedules of learning rates, initial values) or are off",
                        result.num_of_no_concern));
    notes.insert(notes.begin(), fmt::format("imported from {} ({})",
                                            fs::path(name).filename().string(), result.format));
    scenario.notes.insert(scenario.notes.begin(), notes.begin(), notes.end());
    return result;
}

}  // namespace

ImportedJob import_job_text(std::string_view text, const std::string& file,
                            const ImportOptions& options) {
    try {
        return import_file(text, file, options);
    } catch (const InputError& error) {
        // Texts that grow do not know their file.
        std::vector<InputProblem> problems = error.problems();
        for (InputProblem& problem : problems) {
            if (problem.where.empty()) problem.where = file;
        }
        throw InputError(std::move(problems));
    }
}

ImportedJob import_job(const fs::path& path, const ImportOptions& options) {
    ImportOptions beside = options;
    beside.surroundings.file_beside =
        [folder = path.parent_path()](const std::string& name) -> std::optional<std::string> {
        std::error_code ignored;
        const fs::path file = (folder / name).lexically_normal();
        if (fs::path(name).is_absolute() || !fs::is_regular_file(file, ignored) ||
            fs::file_size(file, ignored) > kMaxText)
            return std::nullopt;
        return read_text_file(file, file.string());
    };
    return import_job_text(read_text_file(path, path.string()), path.string(), beside);
}

}  // namespace headway::inline importing
