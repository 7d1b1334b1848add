// Files that a job takes in, and shell that puts text together: by hand, each with what it must
// give.
#include <gtest/gtest.h>

#include <map>

#include "models/import/import_job.hpp"
#include "models/import/shell_script.hpp"

namespace headway {
namespace {

using Files = std::map<std::string, std::string>;

ShellSurroundings around(const Files& files) {
    ShellSurroundings around;
    around.file_beside = [files](const std::string& name) -> std::optional<std::string> {
        const auto found = files.find(name);
        return found == files.end() ? std::nullopt : std::optional(found->second);
    };
    return around;
}

// The value of a variable at the end of a script.
std::string value(const ShellRun& run, const std::string& name) {
    const auto found = run.variables.find(name);
    return found == run.variables.end() ? "" : shown(found->second.items.front().chars);
}

TEST(Includes, AScriptTakesInWhatStandsBesideIt) {
    const ShellRun run = follow_script(
        "HERE=\"$(cd -- \"$(dirname -- \"${BASH_SOURCE[0]}\")\" &>/dev/null && pwd)\"\n"
        "source \"${HERE}/parts/a.sh\"\n"
        "set_more 7\n",
        "run.sh",
        around({{"./parts/a.sh",
                 "A=4\nset_more() { MORE=$(( A + $1 )); }\n. $(dirname "
                 "$BASH_SOURCE)/b.sh\n"},
                {"./parts/b.sh", "B=$(basename ${BASH_SOURCE[0]} )\n"}}));
    EXPECT_EQ(value(run, "A"), "4");
    EXPECT_EQ(value(run, "B"), "b.sh");
    EXPECT_EQ(value(run, "MORE"), "11");  // the function of a file that was taken in: 4 + 7
    EXPECT_EQ(run.sources, (std::vector<std::string>{"./parts/a.sh", "./parts/b.sh"}));
    EXPECT_TRUE(run.notes.empty());
}

TEST(Includes, AFileThatIsNotThereIsNamed) {
    const ShellRun run = follow_script("source a.sh\n", "run.sh", around({}));
    ASSERT_EQ(run.notes.size(), 1u);
    EXPECT_EQ(run.notes[0].text, "source a.sh: not followed; --set gives its variables");
}

TEST(Includes, AScriptThatTakesInItselfEnds) {
    EXPECT_FALSE(follow_script("source a.sh\n", "run.sh", around({{"a.sh", "source a.sh\n"}}))
                     .notes.empty());
}

TEST(Shell, CountsAndJoins) {
    const ShellRun run = follow_script(
        "items=()\n"
        "for ((i=0; i<4; i++)); do\n"
        "  if (( i < 1 )); then items+=(0); else items+=(1); fi\n"
        "done\n"
        "printf -v LIST \"[%s]\" \"$(IFS=', '; echo \"${items[*]}\")\"\n"
        "(( i += 2 ))\n",
        "run.sh", around({}));
    EXPECT_EQ(value(run, "LIST"), "[0,1,1,1]");
    EXPECT_EQ(value(run, "i"), "6");
    EXPECT_EQ(value(run, "IFS"), "");  // set in a subshell
}

TEST(Shell, OutputOfOtherCommandsStaysOpen) {
    const ShellRun run = follow_script("N=$(nproc)\nM=$(echo 4 | wc -l)\nK=$(echo $(nproc))\n",
                                       "run.sh", around({}));
    EXPECT_EQ(value(run, "N"), "$(nproc)");
    EXPECT_EQ(value(run, "M"), "$(echo 4 | wc -l)");
    EXPECT_EQ(value(run, "K"), "$(nproc)");
    EXPECT_TRUE(run.commands.empty());
}

TEST(Shell, EndlessLoopsAreRefused) {
    EXPECT_THROW(follow_script("for ((i=0; 1; i++)); do A=1; done\n", "run.sh", around({})),
                 InputError);
}

std::string refusal(const std::string& text, const std::string& file, const Files& files) {
    ImportOptions options;
    options.machine = Cluster{};
    options.surroundings = around(files);
    try {
        import_job_text(text, file, options);
    } catch (const InputError& error) {
        return error.what();
    }
    return "";
}

TEST(Includes, AProblemIsPlacedInTheFileThatHasIt) {
    const std::string broken = refusal("defaults:\n  - train: small\n  - _self_\n", "job.yaml",
                                       {{"train/small.yaml", "num_layers: x\nhidden_size: 64\n"}});
    EXPECT_NE(broken.find("train/small.yaml:1:1: num_layers 'x'"), std::string::npos) << broken;
}

TEST(Includes, ValuesOfTheFileAndOfTheSurroundings) {
    const std::string broken =
        refusal("a: {b: x}\nnum_layers: ${a.b}\nhidden_size: ${WIDTH:y}\nnum_experts: ${OPEN}\n",
                "job.yaml", {});
    EXPECT_NE(broken.find("num_layers 'x'"), std::string::npos) << broken;
    EXPECT_NE(broken.find("hidden_size 'y'"), std::string::npos) << broken;
    EXPECT_NE(broken.find("--set OPEN=VALUE"), std::string::npos) << broken;
}

TEST(Includes, PythonIsNotAScript) {
    EXPECT_NE(refusal("def job():\n", "config_registry.py", {}).find("Python"), std::string::npos);
}

}  // namespace
}  // namespace headway
