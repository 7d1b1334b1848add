// A launch script is followed as a shell would run it, and every word keeps its place.
#include <gtest/gtest.h>

#include "models/import/shell_script.hpp"
#include "models/vocab/error.hpp"

namespace headway {
namespace {

ShellRun run(std::string_view script, ShellSurroundings surroundings = {}) {
    return follow_script(script, "run.sh", surroundings);
}

// The words of the last command, apart by '|'.
std::string last(const ShellRun& done) {
    std::string text;
    if (done.commands.empty()) return "(none)";
    for (const Text& word : done.commands.back().words)
        text += (text.empty() ? "" : "|") + shown(word.chars);
    return text;
}

std::string last(std::string_view script, ShellSurroundings surroundings = {}) {
    return last(run(script, std::move(surroundings)));
}

TEST(Shell, PutsVariablesIn) {
    EXPECT_EQ(last("A=2\nB=\"x ${A} y\"\nrun $B \"$B\" '$B'"), "run|x|2|y|x 2 y|$B");
    EXPECT_EQ(last("A=1\nA=${A}2\nA+=3\nrun ${A} $A"), "run|123|123");
    EXPECT_EQ(last("run ${N:-4} ${N:-\"a b\"} ${N-5} ${N:+6}"), "run|4|a b|5");
    EXPECT_EQ(last("N=7\nrun ${N:-4} ${N:+6} ${#N}"), "run|7|6|1");
    EXPECT_EQ(last("run ${N} a"), "run|${N}|a");
    EXPECT_EQ(last("run ${N} a", {{{"N", "9"}}, {}}), "run|9|a");
}

TEST(Shell, KnowsArrays) {
    EXPECT_EQ(last("A=(--a 1\n  --b \"2 3\" # text\n)\nA+=(--c)\nrun ${A[@]} \"${A[@]}\" ${A[1]} "
                   "${#A[@]}"),
              "run|--a|1|--b|2|3|--c|--a|1|--b|2 3|--c|1|5");
    EXPECT_EQ(last("A=(x)\nA=(\"${A[@]}\" y)\nrun ${A[*]}"), "run|x|y");
}

TEST(Shell, Calculates) {
    EXPECT_EQ(last("G=8\nN=4\nrun $(($G*N)) $((1 + 2 * 3 - 8 / 2 % 3)) $(( G > 4 ? 1 : 0 ))"),
              "run|32|6|1");
    EXPECT_EQ(last("run $((2 * M))"), "run|${M}");
    EXPECT_EQ(last("run $((1 / 0))"), "run|$((1 / 0))");
    EXPECT_EQ(last("run $((9223372036854775807 + 1))"), "run|$((9223372036854775807 + 1))");
}

TEST(Shell, TakesTheBranchThatHolds) {
    const std::string_view script =
        "if [ $S = a ]; then\n X=1\nelif [[ $S == b* && -n $S ]]; then\n X=2\nelse X=3; fi\nrun $X";
    EXPECT_EQ(last(script, {{{"S", "a"}}, {}}), "run|1");
    EXPECT_EQ(last(script, {{{"S", "bc"}}, {}}), "run|2");
    EXPECT_EQ(last(script, {{{"S", "d"}}, {}}), "run|3");
    EXPECT_EQ(last("X=1\n[ -z ${V} ] && X=2\nrun $X"), "run|2");
    EXPECT_EQ(last("T=2\nif [ $T -gt 1 ]; then X=sp; fi\nrun $X"), "run|sp");
    EXPECT_EQ(last("case $1 in\n a|b) X=1;;\n *) X=2;;\nesac\nrun $X", {{}, {"b"}}), "run|1");
    EXPECT_EQ(last("case $1 in\n a|b) X=1;;\n *) X=2;;\nesac\nrun $X", {{}, {"q"}}), "run|2");
}

TEST(Shell, SaysWhatItCannotDecide) {
    const ShellRun done = run("X=1\nif [ $S = a ]; then X=2; fi\nrun $X");
    EXPECT_EQ(last(done), "run|1");
    ASSERT_EQ(done.notes.size(), 1u);
    EXPECT_EQ(done.notes[0].at.line, 2);
    EXPECT_EQ(done.notes[0].text,
              "condition [ ${S} = a ] not decided, as S is not known here: taken as false");
    EXPECT_EQ(run("while read x; do A=1; done").notes.size(), 1u);
    EXPECT_EQ(run(". ./other.sh").notes.size(), 1u);
}

TEST(Shell, FollowsFunctionsLoopsAndTheirArguments) {
    EXPECT_EQ(last("f() {\n  run $1 $2\n}\nf a b"), "run|a|b");
    EXPECT_EQ(last("for x in a b c; do A=\"$A$x\"; done\nrun ${A}"), "run|${A}abc");
    EXPECT_EQ(last("A=\nfor x in a b c; do A=$A$x; done\nrun ${A}"), "run|abc");
    EXPECT_EQ(last("run $1 ${2} $# \"$@\"", {{}, {"a", "b c"}}), "run|a|b|c|2|a|b c");
}

TEST(Shell, ReadsStringsThatAnotherShellRuns) {
    EXPECT_EQ(last("A='--b 1'\nCMD=\"python x.py $A --c '2 3'\"\nbash -c \"$CMD\""),
              "bash|-c|python x.py --b 1 --c '2 3'");
    const ShellRun done = run("A='--b 1'\nsrun bash -c \"python $A --c '2 3'\"");
    ASSERT_EQ(done.commands.size(), 2u);
    EXPECT_EQ(done.commands[0].words.back().chars, "2 3");
    EXPECT_EQ(run("sbatch <<EOF\npython $A --b 1\nEOF\n", {{{"A", "x"}}, {}})
                  .commands.back()
                  .words.size(),
              4u);
}

TEST(Shell, KeepsThePlaceOfEveryWord) {
    const ShellRun done = run("A=(\n  --a 1\n)\nB=\" \\\n   --b 2\"\nrun ${A[@]} $B");
    const std::vector<Text>& words = done.commands.back().words;
    ASSERT_EQ(words.size(), 5u);
    EXPECT_EQ(words[1].where().line, 2);
    EXPECT_EQ(words[1].where().column, 3);
    EXPECT_EQ(words[3].where().line, 5);
    EXPECT_EQ(words[3].where().column, 4);
}

TEST(Shell, ReadsDirectivesOfSlurm) {
    const ShellRun done = run("#SBATCH --nodes=4\n#SBATCH --gpus-per-node 8  # eight\nrun");
    EXPECT_EQ(done.directives.at("nodes"), "4");
    EXPECT_EQ(done.directives.at("gpus-per-node"), "8");
}

TEST(Shell, StopsAtTextThatGrowsWithoutEnd) {
    std::string script = "A=aaaaaaaaaaaaaaaa\n";
    for (int i = 0; i < 40; ++i) script += "A=$A$A\n";
    EXPECT_THROW(run(script), InputError);
    EXPECT_THROW(run("f() { f; }\nf"), InputError);
    EXPECT_THROW(run("for a in 1 2 3 4 5 6 7 8; do for b in 1 2 3 4 5 6 7 8; do for c in 1 2 3 4 5 "
                     "6 7 8; do for d in 1 2 3 4 5 6 7 8; do for e in 1 2 3 4 5 6 7 8; do x; done; "
                     "done; done; done; done"),
                 InputError);
    EXPECT_THROW(run(std::string(5000, '(')), InputError);
    std::string nested = "x";
    for (int i = 0; i < 3000; ++i) nested = "\"$(" + nested;
    EXPECT_THROW(run(nested), InputError);
}

}  // namespace
}  // namespace headway
