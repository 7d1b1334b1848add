#include "models/report/matrix_file.hpp"

#include <gtest/gtest.h>

#include "models/vocab/error.hpp"

namespace headway {
namespace {

TrafficMatrix example() {
    TrafficMatrix m(3);
    m.bytes = {100, 200, 150, 50, 100, 75, 300, 150, 9007199254740992};
    return m;
}

TEST(MatrixFile, BothFormatsComeBackEqual) {
    for (const MatrixFormat format : {MatrixFormat::csv, MatrixFormat::nccl_tests}) {
        EXPECT_EQ(parse_matrix(to_text(example(), format), "m"), example());
    }
}

TEST(MatrixFile, CsvText) {
    TrafficMatrix m(2);
    m.bytes = {0, 16, 32, 0};
    EXPECT_EQ(to_text(m, MatrixFormat::csv), "0,16\n32,0\n");
    EXPECT_EQ(to_text(m, MatrixFormat::nccl_tests), "0 16\n32 0\n");
}

// The example of nccl-tests' alltoallv.cu: columns aligned with blanks, strtod numbers.
TEST(MatrixFile, ReadsWhatNcclTestsReads) {
    const TrafficMatrix m = parse_matrix("  100  200\n\t50\t1e6  \r\n\n", "m");
    ASSERT_EQ(m.num_ranks, 2);
    EXPECT_EQ(m.at(0, 1), 200);
    EXPECT_EQ(m.at(1, 1), 1000000);
}

TEST(MatrixFile, CsvMayHaveCommentsAndBlanks) {
    EXPECT_EQ(parse_matrix("# bytes\n0, 5\n7 ,0\n", "m").at(1, 0), 7);
}

std::string error_of(std::string_view text) {
    try {
        (void)parse_matrix(text, "m.csv");
    } catch (const InputError& e) {
        return e.what();
    }
    return "no error";
}

TEST(MatrixFile, ErrorsNameLineAndColumn) {
    EXPECT_EQ(error_of("0,1\n2,x\n"), "m.csv:2:3: 'x'; accepted: a whole number of bytes >= 0");
    EXPECT_EQ(error_of("0,-1\n2,0\n"), "m.csv:1:3: '-1'; accepted: a whole number of bytes >= 0");
    EXPECT_EQ(error_of("0,1.5\n2,0\n"), "m.csv:1:3: '1.5'; accepted: a whole number of bytes >= 0");
    EXPECT_EQ(error_of("0,\n2,0\n"), "m.csv:1:3: ''; accepted: a whole number of bytes >= 0");
    EXPECT_EQ(error_of("0 nan\n2 0\n"), "m.csv:1:3: 'nan'; accepted: a whole number of bytes >= 0");
    EXPECT_EQ(error_of("0,1\n2,0,3\n"), "m.csv:2:1: 3 numbers; accepted: 2, as in the first row");
}

TEST(MatrixFile, OnlySquaresAreMatrices) {
    EXPECT_NE(error_of("0,1\n2,0\n3,4\n").find("m.csv:3:1: a row more than the 2 columns"),
              std::string::npos);
    EXPECT_NE(error_of("0,1,2\n2,0,1\n").find("2 rows, 3 columns"), std::string::npos);
    EXPECT_NE(error_of("").find("0 rows, 0 columns"), std::string::npos);
}

}  // namespace
}  // namespace headway
