// Whatever a spreadsheet or a script puts around a table, the numbers are those in it; what could
// be read in two ways is refused.
#include "models/vocab/number_table.hpp"

#include <gtest/gtest.h>

#include "models/vocab/error.hpp"

namespace headway {
namespace {

std::string numbers_of(std::string_view text) {
    std::string joined;
    try {
        for (const std::vector<NumberCell>& row : parse_number_table(text, "t.csv")) {
            for (const NumberCell& cell : row) joined += std::string(cell.text) + ' ';
            joined += "/ ";
        }
    } catch (const InputError& error) {
        return error.what();
    }
    return joined;
}

constexpr const char* kNumbers = "90 132 40 / 20 107 104 / ";

TEST(NumberTable, TheNumbersAreThoseOfThePlainTable) {
    for (const char* text : {
             "90,132,40\n20,107,104\n",  // plain
             "\xef\xbb\xbf"
             "90,132,40\n20,107,104\n",                            // byte order mark
             "90,132,40\r\n20,107,104\r\n",                        // Windows
             "90, 132 ,40\n\n  \n20,\t107,104",                    // blanks, empty lines
             "# counts\n90 132 40\n20 107 104\n",                  // blanks alone
             "90;132;40\n20;107;104\n",                            // semicolons
             "90\t132\t40\n20\t107\t104\n",                        // tabs
             "90,132,40,\n20,107,104,\n",                          // open end
             "expert_0,expert_1,expert_2\n90,132,40\n20,107,104",  // header
             "e1,e2,e3\n90,132,40\n20,107,104",                    // from one
             "\"e0\",\"e1\",\"e2\"\n\"90\",132,40\n20,107,104",    // quotes
             "layer,expert_0,expert_1,expert_2\n0,90,132,40\n1,20,107,104\n",  // index
             "layer,0,1,2\n3,90,132,40\n4,20,107,104\n",                       // numbered columns
             ",0,1,2\n0,90,132,40\n1,20,107,104\n",  // as pandas writes it
             "layer expert_0 expert_1 expert_2\n0 90 132 40\n1 20 107 104\n",
             "e0 e1 e2\n0 90 132 40\n1 20 107 104\n",  // as R writes it
             "layer0,90,132,40\nlayer1,20,107,104\n",  // names of rows alone
             "src\\dst,rank0,rank1,rank2\nrank0,90,132,40\nrank1,20,107,104\n",
         }) {
        EXPECT_EQ(numbers_of(text), kNumbers) << text;
    }
}

TEST(NumberTable, AWrongCellIsNoHeader) {
    EXPECT_EQ(numbers_of("90,x,40\n20,107,104\n"), "90 x 40 / 20 107 104 / ");
    EXPECT_EQ(numbers_of("x,132,40\n20,107,104\n"), "x 132 40 / 20 107 104 / ");
    EXPECT_EQ(numbers_of("nan,inf\n1,2\n"), "nan inf / 1 2 / ");
}

TEST(NumberTable, AnotherOrderIsRefused) {
    EXPECT_EQ(numbers_of("e1,e0,e2\n1,2,3\n"),
              "t.csv:1:1: columns named 'e1', 'e0', ... that do not count up by one; accepted: "
              "columns in order");
    EXPECT_EQ(numbers_of("layer,e0,e1\n1,2,3\n0,4,5\n"),
              "t.csv:2:1: rows named '1', '0', ... that do not count up by one; accepted: rows in "
              "order");
}

TEST(NumberTable, OtherEncodingsAreRefusedAtTheirPlace) {
    EXPECT_NE(numbers_of("1,2\n# caf\xe9\n").find("t.csv:2:6: the byte 0xe9, which is not UTF-8"),
              std::string::npos);
    EXPECT_NE(numbers_of("\xff\xfe"
                         "1,2")
                  .find("t.csv:1:1: text in UTF-16"),
              std::string::npos);
    EXPECT_EQ(numbers_of("# caf\xc3\xa9 \xf0\x9f\x98\x80\n1,2\n"), "1 2 / ");
}

}  // namespace
}  // namespace headway
