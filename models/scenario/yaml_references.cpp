// The part of YamlReader that follows references: files and presets become layers of maps, the
// deepest preset first, each later layer replacing the keys that it has.
#include <fmt/format.h>

#include <algorithm>

#include "models/scenario/hugging_face.hpp"
#include "models/scenario/yaml_reader.hpp"

namespace headway::inline scenario {
namespace {

constexpr int kMaxReferences = 4;  // a preset on a preset on a file ...

// A preset is a name without folder and ending; anything else is a file.
bool is_path(const std::string& preset) {
    return preset.find('/') != std::string::npos || preset.ends_with(".json") ||
           preset.ends_with(".yaml");
}

std::string preset_folder(ReferenceKind kind) {
    return std::string(kReferenceNames[static_cast<std::size_t>(kind)]) + 's';
}

// The folders searched for a preset: near the file that names it, then the caller's.
ReadOptions search_path(const std::filesystem::path& base_dir, const ReadOptions& options) {
    ReadOptions all;
    all.preset_dirs = {base_dir, base_dir / ".."};
    all.preset_dirs.insert(all.preset_dirs.end(), options.preset_dirs.begin(),
                           options.preset_dirs.end());
    return all;
}

}  // namespace

const SourceFile& YamlReader::load_text(std::string_view text, const std::string& name,
                                        const std::filesystem::path& base_dir) {
    std::vector<InputProblem> problems;
    YamlNode root = parse_yaml(text, name, problems);
    if (!problems.empty()) adopt(InputError(std::move(problems)));
    files_.push_back({name, base_dir, std::move(root)});
    return files_.back();
}

const SourceFile& YamlReader::load(const std::filesystem::path& given, const std::string& where) {
    std::error_code error;
    const std::filesystem::path inside = given / "config.json";
    const std::filesystem::path path = std::filesystem::exists(inside, error) ? inside : given;
    const std::string name = path.lexically_normal().string();
    const std::string text = read_text_file(path, where);
    if (options_.read != nullptr) options_.read->push_back(path);
    const bool is_config = path.extension() == ".json";
    if (is_config) expect_json_text(text, name);
    const SourceFile& file = load_text(text, name, path.parent_path());
    if (!is_config) return file;
    std::vector<InputProblem> problems;
    std::vector<std::string> notes;
    YamlNode root = model_from_hugging_face(file.root, name, problems, notes);
    if (!problems.empty()) throw InputError(std::move(problems));
    notes_.insert(notes_.end(), notes.begin(), notes.end());
    files_.push_back({name, path.parent_path(), std::move(root)});
    return files_.back();
}

int YamlReader::enter_reference(const Key& key, ReferenceKind kind) {
    const std::string_view noun = kReferenceNames[static_cast<std::size_t>(kind)];
    const YamlNode* node =
        find(key, nullptr, fmt::format("a {0} (a map), a path, or {{preset: name}}", noun));
    if (!node) return 0;
    const std::size_t size = path_.size();
    path_ = path_of(key.name);
    std::vector<Layer> layers;
    const bool is_resolved = resolve(*node, *frame().file, kind, 0, layers);
    if (!is_resolved) {
        path_.resize(size);
        return 0;
    }
    references_.push_back(std::move(layers));
    reference_path_sizes_.push_back(size);
    return static_cast<int>(references_.back().size());
}

void YamlReader::enter_layer(int index) {
    push_layer(references_.back()[static_cast<std::size_t>(index)]);
}

void YamlReader::leave_layer() {
    pop();
}

void YamlReader::leave_reference() {
    references_.pop_back();
    path_.resize(reference_path_sizes_.back());
    reference_path_sizes_.pop_back();
}

bool YamlReader::resolve(const YamlNode& node, const SourceFile& file, ReferenceKind kind,
                         int depth, std::vector<Layer>& layers) {
    const std::string_view noun = kReferenceNames[static_cast<std::size_t>(kind)];
    const auto refuse = [&](Position at, std::string found, std::string accepted) {
        dirty_.push_back(path_);
        problems_.push_back({to_string(file.name, at), std::move(found), std::move(accepted), ""});
        return false;
    };
    if (depth > kMaxReferences) {
        return refuse(node.at, "references nested too deeply, or in a circle",
                      fmt::format("{} levels", kMaxReferences));
    }
    if (node.kind == YamlNode::Kind::scalar && depth == 0) {
        return load_and_resolve(file.base_dir / node.scalar, to_string(file.name, node.at), kind,
                                depth + 1, layers);
    }
    if (node.kind != YamlNode::Kind::map) {
        return refuse(node.at,
                      fmt::format("{} for '{}'",
                                  node.kind == YamlNode::Kind::list     ? "a list"
                                  : node.kind == YamlNode::Kind::scalar ? "a single value"
                                                                        : "no value",
                                  noun),
                      fmt::format("a {} (a map), a path, or {{preset: name}}", noun));
    }
    const int preset = node.index_of("preset");
    if (preset >= 0 &&
        !resolve_preset(node.items[static_cast<std::size_t>(preset)], file, kind, depth, layers)) {
        return false;
    }
    layers.push_back({&node, &file, preset >= 0});
    return true;
}

bool YamlReader::resolve_preset(const YamlNode& name, const SourceFile& file, ReferenceKind kind,
                                int depth, std::vector<Layer>& layers) {
    const std::string where_named = to_string(file.name, name.at);
    if (is_path(name.scalar)) {
        return load_and_resolve(file.base_dir / name.scalar, where_named, kind, depth + 1, layers);
    }
    try {
        const std::filesystem::path path =
            find_preset(preset_folder(kind), name.scalar, search_path(file.base_dir, options_));
        return load_and_resolve(path, where_named, kind, depth + 1, layers);
    } catch (const InputError& error) {
        dirty_.push_back(path_);
        for (InputProblem problem : error.problems()) {
            if (problem.where.empty()) problem.where = where_named;
            problems_.push_back(std::move(problem));
        }
        return false;
    }
}

bool YamlReader::load_and_resolve(const std::filesystem::path& path, const std::string& where_named,
                                  ReferenceKind kind, int depth, std::vector<Layer>& layers) {
    try {
        const SourceFile& file = load(path, where_named);
        return resolve(file.root, file, kind, depth, layers);
    } catch (const InputError& error) {
        adopt(error);
        return false;
    }
}

std::string YamlReader::where(std::string_view path) const {
    std::string key(path);
    while (!key.empty()) {
        const auto place = places_.find(key);
        if (place != places_.end()) return to_string(place->second.file->name, place->second.at);
        const std::size_t cut = key.find_last_of(".[");
        key.resize(cut == std::string::npos ? 0 : cut);
    }
    return root_->name;
}

bool YamlReader::is_clean(std::string_view path) const {
    // A problem above a path spoils it too: the map may not have been read at all.
    const auto is_above = [](std::string_view upper, std::string_view lower) {
        return lower.starts_with(upper) &&
               (upper.empty() || lower.size() == upper.size() || lower[upper.size()] == '.' ||
                lower[upper.size()] == '[');
    };
    return std::none_of(dirty_.begin(), dirty_.end(), [&](const std::string& dirty) {
        return is_above(dirty, path) || is_above(path, dirty);
    });
}

void YamlReader::add_check(const std::string& prefix, const std::vector<InputProblem>& problems) {
    for (InputProblem problem : problems) {
        const std::string path = prefix.empty() || problem.where.empty()
                                     ? prefix + problem.where
                                     : prefix + '.' + problem.where;
        dirty_.push_back(path);
        problem.where = where(path);
        problems_.push_back(std::move(problem));
    }
}

void YamlReader::throw_if_any() const {
    if (!problems_.empty()) throw InputError(problems_);
}

}  // namespace headway::inline scenario
