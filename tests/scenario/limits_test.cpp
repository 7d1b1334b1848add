// Absurd input costs little and is named: the limits of yaml_tree.hpp and the reader.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "models/scenario/read_scenario.hpp"
#include "models/scenario/yaml_tree.hpp"

namespace headway {
namespace {

namespace fs = std::filesystem;

std::string refusal(const std::string& text) {
    try {
        read_scenario_text(text, "s.yaml", "", {});
    } catch (const InputError& error) {
        return error.what();
    }
    return "read";
}

bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

TEST(Limits, BytesOfAFile) {
    EXPECT_TRUE(contains(refusal(std::string((16u << 20) + 1, '#')), "at most 16777216 bytes"));
}

TEST(Limits, ValuesOfAFile) {
    std::string text = "a: [";
    for (int i = 0; i < 500'001; ++i) text += "1,";
    EXPECT_TRUE(contains(refusal(text + "1]"), "too many values"));
}

TEST(Limits, DepthOfNesting) {
    for (const std::size_t depth : {33, 1000, 100'000}) {
        const std::string message =
            refusal("model: " + std::string(depth, '[') + std::string(depth, ']'));
        EXPECT_TRUE(contains(message, "nested too deeply")) << message.substr(0, 200);
    }
    std::string blocks;
    for (int i = 0; i < 40; ++i) blocks += std::string(static_cast<std::size_t>(i), ' ') + "a:\n";
    EXPECT_TRUE(contains(refusal(blocks), "nested too deeply"));
}

TEST(Limits, ProblemsAreCountedOut) {
    std::string text;
    for (int i = 0; i < 100'000; ++i) text += "k" + std::to_string(i) + ": 1\n";
    const std::string message = refusal(text);
    EXPECT_TRUE(contains(message, "more problems, not shown"));
    EXPECT_LT(message.size(), 100'000u);
}

TEST(Limits, DuplicatesAreCountedOut) {
    std::string text;
    for (int i = 0; i < 10'000; ++i) text += "a: 1\n";
    EXPECT_LT(refusal(text).size(), 20'000u);
}

TEST(Limits, NulBytes) {
    EXPECT_TRUE(contains(refusal(std::string("model: a\0b", 10)), "NUL"));
}

TEST(Limits, OnlyRegularFilesAreRead) {
    for (const char* path : {"/dev/zero", "/", "/nowhere/at/all.yaml"}) {
        EXPECT_THROW(read_scenario(path), InputError) << path;
        EXPECT_THROW(read_model(path), InputError) << path;
    }
}

TEST(Limits, MessagesNameThePlaceOfASyntaxError) {
    EXPECT_EQ(refusal("name: a\nmodel: [1\nbatch: 2\n").rfind("s.yaml:", 0), 0u);
}

TEST(YamlTree, KeepsPositionsKindsAndOrder) {
    std::vector<InputProblem> problems;
    const YamlNode root = parse_yaml("a: 1\nb:\n  - \"x\"\n  - {c: ~}\n", "f", problems);
    ASSERT_TRUE(problems.empty());
    ASSERT_EQ(root.keys, (std::vector<std::string>{"a", "b"}));
    EXPECT_EQ(to_string("f", root.key_at[1]), "f:2:1");
    const YamlNode& list = root.items[1];
    ASSERT_EQ(list.items.size(), 2u);
    EXPECT_TRUE(list.items[0].is_quoted);
    EXPECT_EQ(to_string("f", list.items[0].at), "f:3:5");
    EXPECT_EQ(list.items[1].items[0].kind, YamlNode::Kind::null);
}

TEST(YamlTree, ReadsJson) {
    std::vector<InputProblem> problems;
    const YamlNode root =
        parse_yaml("{\n  \"a\": [1, 2.5e3, null, true],\n  \"b\": {}\n}\n", "f", problems);
    ASSERT_TRUE(problems.empty());
    EXPECT_EQ(root.items[0].items[1].scalar, "2.5e3");
    EXPECT_EQ(root.items[0].items[2].kind, YamlNode::Kind::null);
    EXPECT_EQ(root.items[1].kind, YamlNode::Kind::map);
}

}  // namespace
}  // namespace headway
