// Strict map reader: a Fields that fills values from YAML. Every key must be declared and every
// required key must be there; types, units and ranges are checked; all problems of all files are
// collected with file:line:column. A map with `preset: name` is read over that preset: the keys it
// has replace the preset's, key by key.
#pragma once

#include <deque>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "models/scenario/fields.hpp"
#include "models/scenario/source_files.hpp"

namespace headway::inline scenario {

class YamlReader : public Fields {
  public:
    explicit YamlReader(const ReadOptions& options) : options_(options) {}

    // A file, or a folder with a config.json in it.
    const SourceFile& load(const std::filesystem::path& given, const std::string& where = "");
    const SourceFile& load_text(std::string_view text, const std::string& name,
                                const std::filesystem::path& base_dir);

    // Reads a whole file; with a `kind` its map may itself begin with a preset.
    template <class T>
    void read_file(const SourceFile& file, std::optional<ReferenceKind> kind, T& value) {
        root_ = &file;
        std::vector<Layer> layers;
        if (kind) {
            if (!resolve(file.root, file, *kind, 0, layers)) return;
        } else {
            layers.push_back({&file.root, &file, false});
        }
        for (const Layer& layer : layers) {
            push_layer(layer);
            if (is_map(*layer.node)) describe(*this, value);
            leave_layer();
        }
    }

    // Where the key with this path ("plans[1].group_size") stands, or its nearest parent.
    std::string where(std::string_view path) const;
    // No problem so far at this path, below it, or in a whole map above it.
    bool is_clean(std::string_view path) const;
    // Adds problems of a later check, whose `where` is a path below `prefix`.
    void add_check(const std::string& prefix, const std::vector<InputProblem>& problems);
    void throw_if_any() const;
    // What was found in files beyond the keys of headway.
    const std::vector<std::string>& notes() const { return notes_; }

    void exactly_one_of(const std::vector<std::string_view>& names) override;
    void at_most_one_of(std::string_view a, std::string_view b) override;
    void contradiction(std::string_view name, std::string_view found,
                       std::string_view accepted) override;

  protected:
    bool scalar(const Key& key, const Rule& rule, ScalarValue& value) override;
    bool text_list(const Key& key, const Rule& rule, std::vector<std::string>& values) override;
    bool number_list(const Key& key, const Rule& rule, std::vector<double>& values) override;
    bool number_rows(const Key& key, const Rule& rule,
                     std::vector<std::vector<double>>& rows) override;
    bool table(const Key& key, const Rule& rule, std::vector<std::vector<double>>& rows) override;
    bool enter_map(const Key& key) override;
    void leave_map() override;
    std::optional<std::size_t> enter_list(const Key& key, std::size_t size) override;
    bool enter_item(std::size_t index) override;
    void leave_item() override;
    void leave_list() override;
    bool replaces_lists() const override { return true; }
    bool is_reading() const override { return true; }
    bool enter_condition(std::string_view when, bool holds) override;
    int enter_reference(const Key& key, ReferenceKind kind) override;
    void enter_layer(int index) override;
    void leave_layer() override;
    void leave_reference() override;

  private:
    struct Layer {
        const YamlNode* node = nullptr;
        const SourceFile* file = nullptr;
        bool is_overlay = false;
    };
    struct Frame {
        const YamlNode* node = nullptr;
        const SourceFile* file = nullptr;
        bool is_overlay = false;  // keys left out keep the value they have
        std::size_t path_size = 0;
        std::vector<std::string_view> declared;
        std::string_view depends_on;  // the key that decides which others there are
    };
    struct Place {
        const SourceFile* file = nullptr;
        Position at;
    };

    Frame& frame() { return frames_.back(); }
    // The value of `key`, declared hereby; a missing required key is a problem.
    const YamlNode* find(const Key& key, const Rule* rule, std::string_view noun);
    bool is_map(const YamlNode& node);
    void push_layer(const Layer& layer);
    void push(const YamlNode& node, bool is_overlay, std::string_view path_part);
    void pop();
    void report_unknown_keys();
    bool parse_list(const YamlNode& node, const Key& key, const Rule& rule,
                    std::vector<double>& values);
    // A problem of `key` in the current map, or of the map itself when `key` is empty.
    void problem(std::string_view key, Position at, std::string found, std::string accepted,
                 std::string hint = "");
    void wrong_kind(const YamlNode& node, std::string_view wanted, std::string_view key);
    void adopt(const InputError& error);
    std::string path_of(std::string_view key) const;
    bool resolve(const YamlNode& node, const SourceFile& file, ReferenceKind kind, int depth,
                 std::vector<Layer>& layers);
    bool resolve_preset(const YamlNode& node, const SourceFile& file, ReferenceKind kind, int depth,
                        std::vector<Layer>& layers);
    bool load_and_resolve(const std::filesystem::path& path, const std::string& where_named,
                          ReferenceKind kind, int depth, std::vector<Layer>& layers);

    const ReadOptions& options_;
    const SourceFile* root_ = nullptr;
    std::deque<SourceFile> files_;
    std::vector<Frame> frames_;
    std::vector<std::vector<Layer>> references_;
    std::vector<std::size_t> reference_path_sizes_;
    std::string path_;                               // of the current frame
    std::unordered_map<std::string, Place> places_;  // of every key read
    std::vector<std::string> dirty_;                 // paths with problems
    std::vector<InputProblem> problems_;
    std::vector<std::string> notes_;
};

}  // namespace headway::inline scenario
