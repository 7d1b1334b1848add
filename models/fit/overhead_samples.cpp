#include "models/fit/overhead_samples.hpp"

#include <fstream>

#include "models/report/csv_text.hpp"
#include "models/vocab/error.hpp"

namespace headway {

DeviceFacts add_overheads(const std::filesystem::path& csv, CalibrationSamples& samples) {
    constexpr std::string_view kColumns = "quantity,bytes,value";
    std::ifstream in(csv);
    if (!in) {
        throw InputError({.where = csv.string(),
                          .found = "cannot be opened",
                          .accepted = "a CSV that headway-grid --overheads writes"});
    }
    LineReader lines(in, csv.string());
    lines.expect(kColumns, "the columns of overheads");
    DeviceFacts facts;
    while (lines.next()) {
        const CsvRow row(lines.line(), kColumns, lines.where());
        row.expect_size(3);
        const std::string quantity(row.text(0));
        if (quantity == "launch") {
            samples.launch.push_back(row.non_negative(2));
        } else if (quantity == "host_sync") {
            samples.host_sync.push_back(row.non_negative(2));
        } else if (quantity == "overlap") {
            samples.overlap_slowdown.push_back(row.non_negative(2));
        } else if (quantity == "copy") {
            samples.copies.push_back({row.non_negative(1), row.non_negative(2)});
            if (samples.copies.back().seconds <= 0.0) throw row.error(2, "a time above 0");
        } else {
            facts[quantity] = row.text(2);
        }
    }
    return facts;
}

}  // namespace headway
