// YAML and JSON files of jobs. MODEL_ARGS: Megatron's functional tests and the MoE ModelZoo, whose
// launcher puts in ${VAR} and leaves out what is false. Sections with `model`: run_config.yaml of
// Megatron-Bridge. `parallelism`: torchtitan. Else names of Megatron, as --yaml-cfg reads them.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "models/import/known_arguments.hpp"
#include "models/import/settings.hpp"
#include "models/scenario/quantity_text.hpp"

namespace headway::inline importing {
namespace {

using Kind = YamlNode::Kind;

const YamlNode* map_in(const YamlNode& map, std::string_view key) {
    const int index = map.index_of(key);
    if (index < 0) return nullptr;
    const YamlNode& node = map.items[static_cast<std::size_t>(index)];
    return node.kind == Kind::map ? &node : nullptr;
}

std::vector<std::string> yaml_values(const YamlNode& node) {
    if (node.kind == Kind::null) return {"null"};
    if (node.kind == Kind::scalar) return {node.scalar};
    std::vector<std::string> values;
    for (const YamlNode& item : node.items) {
        if (item.kind == Kind::scalar) values.push_back(item.scalar);
    }
    if (node.items.empty()) values.emplace_back("[]");
    return values;
}

// {_target_: torch.bfloat16} is the name of a value.
std::optional<std::string> target_of(const YamlNode& map) {
    const int index = map.index_of("_target_");
    if (index < 0) return std::nullopt;
    return map.items[static_cast<std::size_t>(index)].scalar;
}

// ---- MODEL_ARGS

void read_model_args(const YamlNode& args, const ShellSurroundings& surroundings, JobFile& job) {
    for (std::size_t i = 0; i < args.items.size(); ++i) {
        const YamlNode& node = args.items[i];
        std::string value;
        for (const std::string& part : yaml_values(node))
            value += (value.empty() ? "" : " ") + with_values(part, args, surroundings);
        if (value == "false" || value == "False" || node.kind == Kind::null) continue;
        Setting setting{setting_name(args.keys[i]), args.keys[i], {}, args.key_at[i]};
        if (value != "true" && value != "True") {
            for (const Text& word : split_command(text_at(value, node.at)))
                setting.values.push_back(word.chars);
        }
        job.settings.push_back(std::move(setting));
    }
}

// ---- Sections of Megatron-Bridge

constexpr std::array<std::string_view, 8> kBridgeSections = {
    "model", "train", "ddp", "optimizer", "comm_overlap", "mixed_precision", "dist", "dataset"};

int count_of(const YamlNode& node) {
    int count = 0;
    for (const YamlNode& item : node.items) count += count_of(item);
    return node.items.empty() ? 1 : count;
}

void read_bridge(const YamlNode& root, JobFile& job) {
    for (std::size_t i = 0; i < root.items.size(); ++i) {
        const std::string& section = root.keys[i];
        const YamlNode& map = root.items[i];
        const bool is_read = std::find(kBridgeSections.begin(), kBridgeSections.end(), section) !=
                             kBridgeSections.end();
        if (section == "peft" && map.kind == Kind::map) {
            job.settings.push_back({"peft", "peft", {target_of(map).value_or("")}, map.at});
        } else if (!is_read) {
            job.sections += section.starts_with('_') ? 0 : count_of(map);
        } else if (map.kind == Kind::scalar) {
            job.settings.push_back({section, section, {map.scalar}, root.key_at[i]});
        } else if (map.kind == Kind::map) {
            for (std::size_t k = 0; k < map.items.size(); ++k) {
                const YamlNode& node = map.items[k];
                const auto target = node.kind == Kind::map ? target_of(node) : std::nullopt;
                if (map.keys[k].starts_with('_')) continue;
                std::vector<std::string> values = yaml_values(node);
                if (target) values = {*target};
                // Lists of lists (layouts) keep their cells only.
                const std::string name = section + '.' + map.keys[k];
                job.settings.push_back({name, name, std::move(values), map.key_at[k]});
            }
        }
    }
}

// Any depth, by the last name: Megatron's --yaml-cfg groups names without meaning by it.
void read_flat(const YamlNode& map, const std::string& path, bool keeps_path, JobFile& job) {
    for (std::size_t i = 0; i < map.items.size(); ++i) {
        const std::string full = path.empty() ? map.keys[i] : path + '.' + map.keys[i];
        if (map.items[i].kind == Kind::map && !map.items[i].items.empty()) {
            read_flat(map.items[i], full, keeps_path, job);
            continue;
        }
        const std::string& name = keeps_path ? full : map.keys[i];
        job.settings.push_back(
            {setting_name(name), full, yaml_values(map.items[i]), map.key_at[i]});
    }
}

std::optional<int> whole_number_at(const YamlNode& root,
                                   std::initializer_list<std::string_view> paths) {
    for (std::string_view path : paths) {
        const YamlNode* node = &root;
        const std::size_t dot = path.find('.');
        if (dot != std::string_view::npos) {
            node = map_in(root, path.substr(0, dot));
            path.remove_prefix(dot + 1);
        }
        const int index = node == nullptr ? -1 : node->index_of(path);
        if (index < 0) continue;
        const auto value = parse_integer(node->items[static_cast<std::size_t>(index)].scalar);
        if (value && *value > 0 && *value < 1 << 20) return static_cast<int>(*value);
    }
    return std::nullopt;
}

}  // namespace

JobFile read_job_yaml(std::string_view text, const std::string& file,
                      const ShellSurroundings& surroundings) {
    std::vector<InputProblem> problems;
    YamlNode root = parse_yaml(text, file, problems);
    if (!problems.empty()) throw InputError(std::move(problems));
    if (root.kind != Kind::map) {
        throw InputError({to_string(file, root.at), "no map of names and values",
                          "MODEL_ARGS, the sections of a run_config.yaml or of torchtitan, or "
                          "Megatron's names",
                          ""});
    }
    JobFile job{file, ""};
    if (const YamlNode* args = map_in(root, "MODEL_ARGS")) {
        job.format = "YAML with MODEL_ARGS";
        read_model_args(*args, surroundings, job);
        return job;
    }
    if (map_in(root, "parallelism") != nullptr) {
        job.format = "configuration of torchtitan";
        job.dialect = Dialect::torchtitan;
        read_flat(root, "", true, job);
        return job;
    }
    root = with_includes(root, surroundings, job);
    const YamlNode* model = map_in(root, "model");
    if (model != nullptr && (map_in(root, "train") || map_in(root, "ddp"))) {
        job.format = "run_config.yaml of Megatron-Bridge";
        read_bridge(root, job);
        return job;
    }
    job.format = "YAML with Megatron's names";
    const YamlNode* policy = map_in(root, "policy");
    const bool has_others =
        map_in(root, "actor_train") || (policy && map_in(*policy, "megatron_cfg"));
    read_flat(root, "", has_others, job);
    if (has_others) {
        // The model that trains; others of the job generate and judge.
        job.format = "YAML of reinforcement learning";
        job.sections += static_cast<int>(std::erase_if(job.settings, [](const Setting& one) {
            return canonical_name(one.name).find('.') != std::string::npos;
        }));
    }
    job.num_nodes = whole_number_at(root, {"cluster.num_nodes", "num_nodes"});
    job.gpus_per_node = whole_number_at(root, {"cluster.gpus_per_node", "num_gpus_per_node"});
    return job;
}

}  // namespace headway::inline importing
