// A table of numbers as spreadsheets and scripts write it: cells apart by commas, semicolons or
// blanks; a byte order mark, empty lines and '#' lines; a header line, and a column that names the
// rows. What names columns or rows must count up by one, as a table in another order would be
// read wrongly.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace headway {

struct NumberCell {
    std::string_view text;  // of the text that was parsed
    int line = 1, column = 1;
};

// The rows of cells without header and names. The cells may still be no numbers, and the rows of
// any length: whoever reads them knows what is accepted. Throws InputError for names out of order.
std::vector<std::vector<NumberCell>> parse_number_table(std::string_view text,
                                                        const std::string& file);

// UTF-8 text without its byte order mark. InputError names the first byte that is not UTF-8.
std::string_view utf8_text(std::string_view text, const std::string& file);

}  // namespace headway
