// YAML that takes in other files and values: `extends` and `defaults` (Hydra, NeMo-RL), experiments
// of Primus, whose modules name a model, ${NAME:default} of the surroundings and ${a.b} of the file
// itself.
#include <fmt/format.h>

#include <algorithm>

#include "models/import/settings.hpp"

namespace headway::inline importing {
namespace {

using Kind = YamlNode::Kind;
constexpr int kMaxDepth = 12;
constexpr std::size_t kMaxFiles = 40;

const YamlNode* item(const YamlNode& map, std::string_view key) {
    const int index = map.kind == Kind::map ? map.index_of(key) : -1;
    return index < 0 ? nullptr : &map.items[static_cast<std::size_t>(index)];
}

void add(YamlNode& map, const std::string& key, Position at, const YamlNode& value) {
    map.keys.push_back(key);
    map.key_at.push_back(at);
    map.items.push_back(value);
}

// What `over` says counts.
void merge(YamlNode& base, const YamlNode& over, int depth = 0) {
    if (base.kind != Kind::map || over.kind != Kind::map || depth > kMaxDepth) {
        base = over;
        return;
    }
    for (std::size_t i = 0; i < over.items.size(); ++i) {
        const int index = base.index_of(over.keys[i]);
        if (index < 0) {
            add(base, over.keys[i], over.key_at[i], over.items[i]);
            continue;
        }
        const auto at = static_cast<std::size_t>(index);
        merge(base.items[at], over.items[i], depth + 1);
        base.key_at[at] = over.key_at[i];
    }
}

void erase(YamlNode& map, std::initializer_list<std::string_view> keys) {
    for (const std::string_view key : keys) {
        const int index = map.index_of(key);
        if (index < 0) continue;
        map.keys.erase(map.keys.begin() + index);
        map.key_at.erase(map.key_at.begin() + index);
        map.items.erase(map.items.begin() + index);
    }
}

void set_file(YamlNode& node, int file) {
    node.at.file = file;
    for (Position& at : node.key_at) at.file = file;
    for (YamlNode& one : node.items) set_file(one, file);
}

class Includes {
  public:
    Includes(const ShellSurroundings& surroundings, JobFile& job)
        : surroundings_(surroundings), job_(job) {}

    // `folder` ends with '/', or is empty: the file's own.
    YamlNode whole(const YamlNode& node, const std::string& folder, int depth = 0) {
        YamlNode result = node;
        result.keys.clear();
        result.key_at.clear();
        result.items.clear();
        for (const std::string& name : files_of(node)) {
            if (auto other = read(folder + name, node.at, depth)) merge(result, *other);
        }
        YamlNode own = node;
        if (const YamlNode* modules = item(node, "modules"); modules && modules->kind == Kind::map)
            own = with_modules(node, *modules, depth);
        erase(own, {"extends", "defaults"});
        merge(result, own);
        return result;
    }

  private:
    static std::string with_extension(const std::string& name) {
        return name.ends_with(".yaml") || name.ends_with(".yml") ? name : name + ".yaml";
    }

    // In their order: a name, or names, or a Hydra list of names and {group: name}.
    static std::vector<std::string> files_of(const YamlNode& node) {
        std::vector<std::string> files;
        for (const char* key : {"extends", "defaults"}) {
            const YamlNode* list = item(node, key);
            if (list == nullptr) continue;
            const auto put = [&](const YamlNode& one) {
                if (one.kind == Kind::scalar && one.scalar != "_self_")
                    files.push_back(with_extension(one.scalar));
                for (std::size_t i = 0; one.kind == Kind::map && i < one.items.size(); ++i) {
                    if (one.items[i].kind == Kind::scalar)
                        files.push_back(with_extension(one.keys[i] + "/" + one.items[i].scalar));
                }
            };
            if (list->kind != Kind::list) put(*list);
            for (const YamlNode& one : list->items) {
                if (list->kind == Kind::list) put(one);
            }
        }
        return files;
    }

    std::optional<YamlNode> read(const std::string& path, Position at, int depth,
                                 bool is_asked_for = true) {
        std::optional<std::string> text;
        if (surroundings_.file_beside && depth < kMaxDepth && job_.sources.size() < kMaxFiles)
            text = surroundings_.file_beside(path);
        if (!text) {
            if (is_asked_for) job_.notes.push_back({at, path + ": not found, not read"});
            return std::nullopt;
        }
        std::vector<InputProblem> problems;
        YamlNode node = parse_yaml(*text, path, problems);
        if (!problems.empty()) throw InputError(std::move(problems));
        if (node.kind != Kind::map) return std::nullopt;
        job_.sources.push_back(path);
        set_file(node, static_cast<int>(job_.sources.size()));
        const std::size_t slash = path.rfind('/');
        return whole(node, slash == std::string::npos ? "" : path.substr(0, slash + 1), depth + 1);
    }

    // Primus: modules.NAME has framework, config, model and overrides; the first two name files in
    // primus/configs of the repository.
    YamlNode with_modules(const YamlNode& node, const YamlNode& modules, int depth) {
        YamlNode result = node;
        erase(result, {"modules"});
        for (std::size_t i = 0; i < modules.items.size(); ++i) {
            const YamlNode& module = modules.items[i];
            const YamlNode* framework = item(module, "framework");
            if (framework == nullptr) continue;
            YamlNode all = module;
            for (const auto& [key, kind] :
                 {std::pair{"config", "modules"}, std::pair{"model", "models"}}) {
                const YamlNode* name = item(module, key);
                if (name == nullptr || name->kind != Kind::scalar) continue;
                const std::string path =
                    fmt::format("primus/configs/{}/{}/{}", kind, framework->scalar,
                                with_values(name->scalar, node, surroundings_));
                if (const auto found = upwards(path, name->at, depth)) merge(all, *found);
            }
            if (const YamlNode* overrides = item(module, "overrides")) merge(all, *overrides);
            erase(all, {"framework", "config", "model", "overrides"});
            merge(result, all);
        }
        return result;
    }

    std::optional<YamlNode> upwards(const std::string& path, Position at, int depth) {
        std::string up;
        for (int i = 0; i < 8; ++i, up += "../") {
            if (auto found = read(up + path, at, depth, false)) return found;
        }
        job_.notes.push_back({at, path + ": not found in a folder above, not read"});
        return std::nullopt;
    }

    const ShellSurroundings& surroundings_;
    JobFile& job_;
};

const YamlNode* node_at(const YamlNode& root, std::string_view path) {
    const YamlNode* node = &root;
    while (node != nullptr && !path.empty()) {
        const std::size_t dot = std::min(path.find('.'), path.size());
        node = item(*node, path.substr(0, dot));
        path.remove_prefix(std::min(dot + 1, path.size()));
    }
    return node;
}

std::string value_of(std::string_view name, const YamlNode& root,
                     const ShellSurroundings& surroundings, int depth) {
    std::string_view otherwise;
    bool has_default = false;
    const bool is_omega = name.starts_with("oc.env:");
    if (is_omega) name.remove_prefix(7);
    const std::size_t cut = name.find(is_omega ? ',' : ':');
    if (cut != std::string_view::npos) {
        has_default = true;
        otherwise = name.substr(cut + 1);
        name = name.substr(0, cut);
    }
    const auto given = surroundings.variables.find(name);
    if (given != surroundings.variables.end()) return given->second;
    if (const YamlNode* node = node_at(root, name);
        node != nullptr && node->kind == Kind::scalar && depth < kMaxDepth)
        return with_values(node->scalar, root, surroundings, depth + 1);
    if (node_at(root, name) != nullptr && node_at(root, name)->kind == Kind::null) return "null";
    return has_default ? std::string(otherwise) : gap(name, {}).chars;
}

void put_values(YamlNode& node, const YamlNode& root, const ShellSurroundings& surroundings) {
    if (node.kind == Kind::scalar && node.scalar.find("${") != std::string::npos)
        node.scalar = with_values(node.scalar, root, surroundings);
    for (YamlNode& one : node.items) put_values(one, root, surroundings);
}

}  // namespace

std::string with_values(const std::string& text, const YamlNode& root,
                        const ShellSurroundings& surroundings, int depth) {
    std::string result;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool begins = text[i] == '$' && i + 1 < text.size() && text[i + 1] == '{';
        const std::size_t close = begins ? text.find('}', i) : std::string::npos;
        if (close == std::string::npos) {
            result += text[i];
            continue;
        }
        result += value_of(std::string_view(text).substr(i + 2, close - i - 2), root, surroundings,
                           depth);
        i = close;
        if (result.size() > kMaxText) return text;
    }
    return result;
}

YamlNode with_includes(const YamlNode& root, const ShellSurroundings& surroundings, JobFile& job) {
    YamlNode all = Includes(surroundings, job).whole(root, "");
    const YamlNode before = all;
    put_values(all, before, surroundings);
    return all;
}

}  // namespace headway::inline importing
