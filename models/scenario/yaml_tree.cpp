#include "models/scenario/yaml_tree.hpp"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <sstream>
#include <unordered_set>

#include "models/scenario/quantity_text.hpp"

namespace headway::inline scenario {
namespace {

constexpr std::size_t kMaxDuplicates = 100;

// What most likely caused a message of the parser.
std::string syntax_hint(const std::string& message) {
    if (message == YAML::ErrorMsg::EOF_IN_SCALAR) return "a quote is not closed";
    if (message == YAML::ErrorMsg::END_OF_SEQ_FLOW || message == YAML::ErrorMsg::END_OF_MAP_FLOW) {
        return "a bracket is not closed";
    }
    if (message == YAML::ErrorMsg::MAP_VALUE) {
        return "text that holds ': ' needs quotes; indent with spaces, not tabs";
    }
    return "";
}

// NOTE: yaml-cpp 0.7 takes a quote that is still open at a final line break for closed.
std::string without_trailing_blanks(std::string_view text) {
    const std::size_t last = text.find_last_not_of(" \t\r\n");
    return std::string(text.substr(0, last == std::string_view::npos ? 0 : last + 1));
}

Position to_position(const YAML::Mark& mark) {
    return {std::max(mark.line, 0) + 1, std::max(mark.column, 0) + 1};
}

// Builds the tree from the parser's events; each open map or list is one entry of the stack.
class TreeBuilder : public YAML::EventHandler {
  public:
    TreeBuilder(const std::string& file, std::vector<InputProblem>& problems,
                const YamlLimits& limits)
        : file_(file), problems_(problems), limits_(limits) {}

    YamlNode take_root() { return std::move(root_); }

    void OnDocumentStart(const YAML::Mark&) override {}
    void OnDocumentEnd() override {}

    void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
        refuse_anchor(mark, anchor);
        YamlNode node;
        node.at = to_position(mark);
        add(std::move(node));
    }

    void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
        fail(mark, "an alias (*name)", "values written out", "");
    }

    void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  const std::string& value) override {
        refuse_anchor(mark, anchor);
        if (tag.size() > 1) fail(mark, "a tag " + in_quotes(tag), "plain values", "");
        YamlNode node;
        node.at = to_position(mark);
        node.is_quoted = tag == "!";
        const bool is_null = !node.is_quoted && (value.empty() || value == "~" || value == "null");
        node.kind = is_null ? YamlNode::Kind::null : YamlNode::Kind::scalar;
        node.scalar = value;
        add(std::move(node));
    }

    void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                         YAML::EmitterStyle::value) override {
        open(mark, tag, anchor, YamlNode::Kind::list);
    }
    void OnSequenceEnd() override { close(); }
    void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                    YAML::EmitterStyle::value) override {
        open(mark, tag, anchor, YamlNode::Kind::map);
    }
    void OnMapEnd() override { close(); }

  private:
    struct Open {
        YamlNode node;
        bool has_key = false;  // map: a key waits for its value
        bool is_duplicate = false;
        std::unordered_set<std::string> seen;
    };

    [[noreturn]] void fail(const YAML::Mark& mark, const std::string& found,
                           const std::string& accepted, const std::string& hint) const {
        throw InputError({to_string(file_, to_position(mark)), found, accepted, hint});
    }

    void refuse_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) const {
        if (anchor != YAML::NullAnchor) fail(mark, "an anchor (&name)", "values written out", "");
    }

    void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
              YamlNode::Kind kind) {
        refuse_anchor(mark, anchor);
        if (tag.size() > 1) fail(mark, "a tag " + in_quotes(tag), "plain values", "");
        if (static_cast<int>(stack_.size()) >= limits_.max_depth) {
            fail(mark, "values nested too deeply", fmt::format("{} levels", limits_.max_depth), "");
        }
        if (!stack_.empty() && stack_.back().node.kind == YamlNode::Kind::map &&
            !stack_.back().has_key) {
            fail(mark, "a list or map as a key, or a bracket that is not closed", "a word as a key",
                 "");
        }
        Open entry;
        entry.node.kind = kind;
        entry.node.at = to_position(mark);
        stack_.push_back(std::move(entry));
    }

    void close() {
        YamlNode node = std::move(stack_.back().node);
        stack_.pop_back();
        add(std::move(node));
    }

    void add(YamlNode node) {
        if (++num_nodes_ > limits_.max_nodes) {
            throw InputError({to_string(file_, node.at), "too many values",
                              fmt::format("{} values in a file", limits_.max_nodes), ""});
        }
        if (stack_.empty()) {
            root_ = std::move(node);
            return;
        }
        Open& parent = stack_.back();
        if (parent.node.kind == YamlNode::Kind::list) {
            parent.node.items.push_back(std::move(node));
        } else if (!parent.has_key) {
            add_key(parent, std::move(node));
        } else {
            if (!parent.is_duplicate) parent.node.items.push_back(std::move(node));
            parent.has_key = false;
        }
    }

    void add_key(Open& map, YamlNode key) {
        map.has_key = true;
        map.is_duplicate = !map.seen.insert(key.scalar).second;
        if (map.is_duplicate) {
            if (problems_.size() >= kMaxDuplicates) return;
            problems_.push_back({to_string(file_, key.at), "duplicate key " + in_quotes(key.scalar),
                                 "each key once", ""});
            return;
        }
        map.node.keys.push_back(std::move(key.scalar));
        map.node.key_at.push_back(key.at);
    }

    const std::string& file_;
    std::vector<InputProblem>& problems_;
    const YamlLimits& limits_;
    std::vector<Open> stack_;
    YamlNode root_;
    std::size_t num_nodes_ = 0;
};

}  // namespace

int YamlNode::index_of(std::string_view key) const {
    const auto found = std::find(keys.begin(), keys.end(), key);
    return found == keys.end() ? -1 : static_cast<int>(found - keys.begin());
}

std::string to_string(const std::string& file, Position at) {
    return fmt::format("{}:{}:{}", file, at.line, at.column);
}

YamlNode parse_yaml(std::string_view text, const std::string& file,
                    std::vector<InputProblem>& problems, const YamlLimits& limits) {
    if (text.size() > limits.max_bytes) {
        throw InputError({file, fmt::format("a file of {} bytes", text.size()),
                          fmt::format("at most {} bytes", limits.max_bytes), ""});
    }
    if (text.find('\0') != std::string_view::npos) {
        throw InputError({file, "a NUL byte", "YAML text in UTF-8", ""});
    }
    try {
        std::istringstream stream(without_trailing_blanks(text));
        YAML::Parser parser(stream);
        TreeBuilder builder(file, problems, limits);
        parser.HandleNextDocument(builder);
        YamlNode root = builder.take_root();
        if (parser.HandleNextDocument(builder)) {
            throw InputError({file, "a second document ('---')", "one document in a file", ""});
        }
        return root;
    } catch (const YAML::Exception& error) {
        throw InputError({to_string(file, to_position(error.mark)),
                          fmt::format("not valid YAML ({})", error.msg), "",
                          syntax_hint(error.msg)});
    }
}

}  // namespace headway::inline scenario
