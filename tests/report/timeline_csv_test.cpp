#include "models/report/timeline_csv.hpp"

#include <gtest/gtest.h>

#include <sstream>

#include "models/report/prediction_csv.hpp"
#include "models/vocab/error.hpp"
#include "tests/report/sample.hpp"

namespace headway {
namespace {

std::vector<Timeline> read(const std::string& text) {
    std::istringstream stream(text);
    return read_timelines(stream, "t.csv");
}

std::string error_of(const std::string& text) {
    try {
        read(text);
    } catch (const InputError& error) {
        return error.what();
    }
    return "";
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
    const auto at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
}

TEST(TimelineCsv, ReadingGivesBackWhatWasWritten) {
    const auto timelines = read(prediction_to_csv(sample_prediction()));
    ASSERT_EQ(timelines.size(), 2u);
    EXPECT_EQ(timelines[1].plan, "hp");
    EXPECT_EQ(timelines[1].scenario, "sample");
    EXPECT_EQ(timelines[1].profile, "public");
    EXPECT_EQ(timelines[1].seed, 7u);
    ASSERT_EQ(timelines[1].spans.size(), 1u);
    const Span& span = timelines[1].spans[0];
    EXPECT_EQ(span.phase, Phase::head_scatter);
    EXPECT_EQ(span.count, 12);
    EXPECT_EQ(span.duration, 50.0 * ms / 24.0);  // bit for bit: shortest digits that round-trip
    EXPECT_EQ(span.bytes, 64.0 * MiB);
    EXPECT_EQ(span.bottleneck, "nvlink");
}

TEST(TimelineCsv, WritingWhatWasReadGivesTheSameBytes) {
    const std::string text = prediction_to_csv(sample_prediction());
    EXPECT_EQ(timelines_to_csv(read(text)), text);
}

// How a plan splits its MoE layer is said once a plan; a file that does not say it is read.
TEST(TimelineCsv, PlansSayHowTheySplitTheirLayer) {
    auto both = read(prediction_to_csv(sample_prediction()));
    EXPECT_EQ(both.at(1).layer_split, "head_parallel");
    both.push_back(both[1]);
    both[2].source = Source::measured;
    const std::string text = timelines_to_csv(both), line = "# layer: hp,head_parallel\n";
    EXPECT_EQ(text.find(line), text.rfind(line));
    EXPECT_EQ(read(text).at(2).layer_split, "head_parallel");
    EXPECT_EQ(read(replaced(text, line, "")).at(1).layer_split, "");
    EXPECT_NE(error_of(replaced(text, line, "# layer: hp,hp\n")).find("accepted"),
              std::string::npos);
    EXPECT_NE(error_of(replaced(text, line, "# layer: hp\n")), "");
}

// How a measured run went is kept with its plan, and with no other.
TEST(TimelineCsv, KeepsHowARunWent) {
    std::vector<Timeline> both(2);
    for (Timeline& t : both) {
        t.source = Source::measured;
        t.spans.resize(1);
    }
    both[0].plan = "ep, naive";
    both[1].plan = "hp";
    both[1].run = {.clock_mhz = 1980,
                   .throttle = "power",
                   .memory_peak = 3.0 * GB,
                   .graph = true,
                   .in_flow = true};
    const std::string text = timelines_to_csv(both);
    EXPECT_NE(text.find("\n# run: hp,1980,power,3000000000,1,1\n"), std::string::npos) << text;
    const auto timelines = read(text);
    EXPECT_FALSE(timelines.at(0).run);
    EXPECT_EQ(timelines.at(1).run, both[1].run);
    EXPECT_EQ(timelines_to_csv(timelines), text);
    EXPECT_NE(error_of(replaced(text, "# run: hp,", "# run: none,")), "");
    EXPECT_NE(error_of(replaced(text, ",3000000000,1", ",3000000000,2")), "");
    EXPECT_NE(error_of(replaced(text, ",3000000000,1,1", ",3000000000,1,2")), "");
    // A file that does not say how it was timed is of exchanges one by one.
    const auto old = read(replaced(text, ",3000000000,1,1", ",3000000000,1"));
    EXPECT_FALSE(old.at(1).run->in_flow);
    EXPECT_NE(error_of(replaced(text, "# run: hp,1980", "# run: hp,-1")), "");
}

// A run of whole steps says what a step took; files without the line are of layers.
TEST(TimelineCsv, KeepsTheTimeOfAStep) {
    std::vector<Timeline> both(2);
    for (Timeline& t : both) {
        t.source = Source::measured;
        t.spans.resize(1);
    }
    both[0].plan = "ep";
    both[1].plan = "hp";
    both[1].step = {
        .time = 0.25 * second, .low = 0.125 * second, .high = 0.5 * second, .samples = 15};
    const std::string text = timelines_to_csv(both);
    EXPECT_NE(text.find("\n# step: hp,0.25,0.125,0.5,15\n"), std::string::npos) << text;
    const auto timelines = read(text);
    EXPECT_FALSE(timelines.at(0).step);
    EXPECT_EQ(timelines.at(1).step, both[1].step);
    EXPECT_EQ(timelines_to_csv(timelines), text);
    EXPECT_NE(error_of(replaced(text, "# step: hp,0.25", "# step: hp,-1")), "");
    EXPECT_NE(error_of(replaced(text, ",0.5,15", ",0.5")), "");
    EXPECT_NE(error_of(replaced(text, ",0.5,15", ",0.5,0")), "");
    EXPECT_NE(error_of(replaced(text, "# step: hp", "# step: none")), "");
}

// A measured run says on how many ranks and of how many tokens it was; a prediction does not.
TEST(TimelineCsv, MeasuredRunsSayTheirSize) {
    auto both = read(prediction_to_csv(sample_prediction()));
    both.resize(1);
    both.push_back(both[0]);
    for (Timeline& t : both) t.size = RunSize{.num_ranks = 4, .tokens_per_rank = 8192};
    both[1].source = Source::measured;
    const std::string text = timelines_to_csv(both);
    const auto timelines = read(text);
    EXPECT_FALSE(timelines.at(0).size);
    EXPECT_EQ(timelines.at(1).size, both[1].size);
    EXPECT_EQ(timelines_to_csv(timelines), text);
    EXPECT_NE(error_of(replaced(text, ",4,8192", ",0,8192")), "");
    EXPECT_NE(error_of(replaced(text, ",4,8192", ",4")), "");
}

TEST(TimelineCsv, NamesWithCommasQuotesAndBreaksStayInTheirField) {
    Prediction prediction = sample_prediction();
    prediction.plans[0].name = "ep, \"naive\"";
    prediction.scenario = "two\nlines";
    const auto timelines = read(prediction_to_csv(prediction));
    EXPECT_EQ(timelines[0].plan, "ep, \"naive\"");
    EXPECT_EQ(timelines[0].scenario, "two lines");
}

// Every proper prefix of a file is refused: a part cannot pass for the whole.
TEST(TimelineCsv, EveryTruncationIsRefused) {
    const std::string text = prediction_to_csv(sample_prediction());
    for (std::size_t size = 0; size < text.size(); ++size) {
        EXPECT_NE(error_of(text.substr(0, size)), "") << "prefix of " << size << " bytes";
    }
    EXPECT_EQ(error_of(text), "");
}

TEST(TimelineCsv, ALostRowIsRefused) {
    std::string text = prediction_to_csv(sample_prediction());
    const auto row = text.find("\npredicted,");
    text.erase(row, text.find('\n', row + 1) - row);
    EXPECT_EQ(error_of(text),
              "t.csv:10: '# end: 2 rows'; accepted: '# end: 1 rows' (the number of rows above; the "
              "file was cut or edited)");
}

TEST(TimelineCsv, ErrorsNameFileLineColumnAndWhatIsAccepted) {
    const std::string text = prediction_to_csv(sample_prediction());
    EXPECT_EQ(
        error_of(replaced(text, ",dispatch,", ",dispach,")),
        "t.csv:9: 'dispach' in column phase; accepted: a phase name such as dispatch, expert, "
        "head_scatter");
    EXPECT_EQ(error_of(replaced(text, "predicted,ep,-1,", "predicted,ep,-2,")),
              "t.csv:9: '-2' in column rank; accepted: a whole number of at least -1");
    EXPECT_EQ(error_of(replaced(text, ",67108864,", ",nan,")),
              "t.csv:9: 'nan' in column bytes; accepted: a number of at least 0");
    EXPECT_EQ(error_of(replaced(text, "# seed: 7", "# seed: seven")),
              "t.csv:5: 'seven'; accepted: a whole number");
    EXPECT_EQ(error_of("plan,time\n").substr(0, 20), "t.csv:1: 'plan,time'");
    EXPECT_EQ(error_of(replaced(text, "predicted,ep,", "predicted,")).substr(0, 18),
              "t.csv:9: 15 fields");
    EXPECT_EQ(error_of(text + "more\n"), "t.csv:12: 'more' after the end mark");
}

TEST(TimelineCsv, AnEndlessLineIsRefusedWithoutReadingItAll) {
    EXPECT_EQ(error_of(std::string(1 << 17, 'x')), "t.csv:1: a line of more than 65536 bytes");
}

TEST(TimelineCsv, AMissingFileIsBadInput) {
    EXPECT_THROW(read_timelines(std::filesystem::path("/nonexistent/t.csv")), InputError);
}

TEST(TimelineCsv, TimelinesOfDifferentRunsDoNotShareAFile) {
    const std::vector<Timeline> timelines = {{.scenario = "a"}, {.scenario = "b"}};
    EXPECT_THROW(timelines_to_csv(timelines), std::logic_error);
}

}  // namespace
}  // namespace headway
