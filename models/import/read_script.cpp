// A launch script as settings: the command of it that trains, or the variables that hold its
// arguments.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "models/import/known_arguments.hpp"
#include "models/import/settings.hpp"

namespace headway::inline importing {
namespace {

constexpr std::size_t kEnough = 3;  // training arguments that make a command the job's

std::size_t num_training_arguments(const std::vector<Setting>& settings) {
    return static_cast<std::size_t>(
        std::count_if(settings.begin(), settings.end(),
                      [](const Setting& one) { return is_training_argument(one.name); }));
}

std::optional<int> number(std::string_view text) {
    int value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < 1) return std::nullopt;
    return value;
}

// The first of these names that has a number: among the arguments, the variables, the directives.
std::optional<int> first_number(const ShellRun& run, const std::vector<Setting>& settings,
                                const ShellCommand* command, std::string_view names) {
    while (!names.empty()) {
        const std::size_t end = std::min(names.find(' '), names.size());
        const std::string name(names.substr(0, end));
        names.remove_prefix(std::min(end + 1, names.size()));
        for (const Setting& setting : settings) {
            if (canonical_name(setting.name) != name || setting.values.empty()) continue;
            if (const auto found = number(setting.values.front())) return found;
        }
        if (command != nullptr && command->environment.contains(name)) {
            if (const auto found = number(command->environment.find(name)->second)) return found;
        }
        if (const auto variable = run.variables.find(name);
            variable != run.variables.end() && !variable->second.items.empty()) {
            if (const auto found = number(variable->second.items.front().chars)) return found;
        }
        if (const auto directive = run.directives.find(name); directive != run.directives.end()) {
            const std::string& value = directive->second;
            if (const auto found = number(value.substr(value.rfind(':') + 1))) return found;
        }
    }
    return std::nullopt;
}

// Without a command: what the variables hold, in the order of the script.
std::vector<Setting> settings_of_variables(const ShellRun& run, std::vector<ShellNote>& notes) {
    std::vector<std::vector<Setting>> found;
    std::vector<Position> begins;
    for (const auto& [name, variable] : run.variables) {
        std::vector<Text> words;
        for (const Text& item : variable.items) {
            for (Text& word : split_command(item)) words.push_back(std::move(word));
        }
        std::vector<Setting> settings = arguments_of(words);
        if (num_training_arguments(settings) == 0) continue;
        notes.push_back({settings.front().at,
                         fmt::format("no command of the script trains: the arguments in {} are "
                                     "read",
                                     name)});
        found.push_back(std::move(settings));
    }
    std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
        const Position one = a.front().at, other = b.front().at;
        return std::array{one.file, one.line, one.column} <
               std::array{other.file, other.line, other.column};
    });
    std::vector<Setting> all;
    for (std::vector<Setting>& settings : found) {
        // A variable made of others repeats them.
        const bool repeats = std::any_of(all.begin(), all.end(), [&](const Setting& setting) {
            return setting.at.file == settings.front().at.file &&
                   setting.at.line == settings.front().at.line &&
                   setting.at.column == settings.front().at.column;
        });
        if (repeats && settings.size() <= all.size()) continue;
        if (repeats) all.clear();
        for (Setting& setting : settings) all.push_back(std::move(setting));
    }
    return all;
}

}  // namespace

JobFile read_script(std::string_view text, const std::string& file,
                    const ShellSurroundings& surroundings) {
    ShellRun run = follow_script(text, file, surroundings);
    JobFile job{file, "launch script"};
    job.notes = std::move(run.notes);
    job.sources = std::move(run.sources);
    const ShellCommand* best = nullptr;
    std::size_t most = 0;
    for (const ShellCommand& command : run.commands) {
        std::vector<Setting> settings = arguments_of(command.words);
        const std::size_t count = num_training_arguments(settings);
        if (count < kEnough) continue;
        const bool is_other =
            best != nullptr &&
            (job.settings.front().at.line != settings.front().at.line || count > most);
        if (is_other && count <= most)
            job.notes.push_back({settings.front().at, "another command that trains: not read"});
        if (count <= most) continue;
        best = &command;
        most = count;
        job.settings = std::move(settings);
    }
    if (best == nullptr) job.settings = settings_of_variables(run, job.notes);
    if (best != nullptr && best->words.size() > 1 && best->words[0].chars == "megatron" &&
        !best->words[1].chars.starts_with('-'))
        job.format = kSwiftFormat;
    add_arguments(surroundings.arguments, job);
    for (const Setting& setting : job.settings) {
        if (setting.name.starts_with("actor_rollout_ref.")) job.format = kVerlFormat;
        if (setting.name.starts_with("parallelism.") || setting.name.starts_with("training."))
            job.dialect = Dialect::torchtitan;
        if (setting.name.starts_with("model.") &&
            setting.name.find("model_parallel") != setting.name.npos)
            job.format = "launch script of Megatron-Bridge";
    }
    job.num_nodes = first_number(run, job.settings, best,
                                 "nnodes actor_num_nodes trainer.nnodes trainer.num_nodes NNODES "
                                 "NUM_NODES SLURM_NNODES SLURM_JOB_NUM_NODES nodes");
    job.gpus_per_node =
        first_number(run, job.settings, best,
                     "nproc_per_node actor_num_gpus_per_node trainer.n_gpus_per_node gpus_per_node "
                     "GPUS_PER_NODE NPROC_PER_NODE "
                     "NUM_GPUS_PER_NODE NPUS_PER_NODE NGPU ntasks-per-node "
                     "gpus-per-node gres");
    // torchrun runs on one node unless it is told otherwise.
    if (!job.num_nodes && job.gpus_per_node) {
        const bool is_torchrun = std::any_of(
            job.settings.begin(), job.settings.end(),
            [](const Setting& one) { return canonical_name(one.name) == "nproc_per_node"; });
        // As are tools that take the same from the environment.
        const bool is_env = best != nullptr && best->environment.contains("NPROC_PER_NODE") &&
                            !best->environment.contains("NNODES");
        const bool asks = std::any_of(job.settings.begin(), job.settings.end(),
                                      [](const Setting& one) { return one.name == "nnodes"; });
        if ((is_torchrun || is_env) && !asks) job.num_nodes = 1;
    }
    job.num_ranks = first_number(run, job.settings, best, "WORLD_SIZE NUM_GPUS");
    return job;
}

}  // namespace headway::inline importing
