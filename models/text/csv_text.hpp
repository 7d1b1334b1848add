// Strict line and field reading for the CSV files that headway writes (RFC 4180 without line breaks
// inside fields). Every error names file and line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <istream>
#include <string>
#include <string_view>
#include <vector>

#include "models/vocab/error.hpp"

namespace headway::inline texts {

std::string one_line(std::string_view text);  // control characters become spaces
std::string csv_field(
    std::string_view text);  // one_line, in quotes where a comma or quote needs it

class LineReader {
  public:
    LineReader(std::istream& stream, std::string file_name);

    // The next line, without its end. False at the end of the file, where a last line that has no
    // line break counts as cut and is dropped.
    bool next();
    const std::string& line() const { return line_; }
    std::string where() const;  // "file:line"

    void expect(std::string_view text, std::string_view what);  // next line is exactly `text`
    void expect_line(std::string_view text, std::string_view what) const;  // this line is
    void expect_end();                                                     // nothing follows
    std::string value_of(std::string_view label);  // next line is label + value
    std::uint64_t whole_number(const std::string& text) const;

  private:
    std::istream& stream_;
    std::string file_name_;
    std::string line_;
    std::size_t number_ = 0;
};

class CsvRow {
  public:
    // `columns` are the column names, comma separated, for the messages.
    CsvRow(std::string_view line, std::string_view columns, std::string where);

    void expect_size(std::size_t num_columns) const;
    std::size_t size() const { return fields_.size(); }
    std::string_view text(std::size_t column) const { return fields_[column]; }
    int integer(std::size_t column, int minimum) const;
    double non_negative(std::size_t column) const;  // finite, >= 0
    InputError error(std::size_t column, const std::string& accepted) const;

  private:
    std::vector<std::string> fields_;
    std::string_view columns_;
    std::string where_;
};

}  // namespace headway::inline texts
