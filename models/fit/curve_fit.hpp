// Curves from samples.
//   Time by bytes: samples are pooled where their sizes are within 10 %, each pool gives its
//   median, and isotonic regression makes the medians non-decreasing. A line t = a + b x, fitted
//   with relative weights, takes their place when it predicts better: every pool is left out in
//   turn and predicted from the others, once by the points and once by the line.
//   Rate by size and width: the same pools for every width; the rate between pools is interpolated.
// The residual of a time curve is that of the samples left out, so that 90 % of new samples are to
// be expected within 1.645 of it; of a rate curve, the relative standard deviation of its samples
// against it, estimated from the median deviation, as a busy machine gives outliers.
#pragma once

#include <string>
#include <vector>

#include "models/vocab/profile.hpp"

namespace headway::inline fit {

struct TimeSample {
    double bytes = 0.0;  // of the busiest rank
    double seconds = 0.0;
    double mean_bytes = bytes;  // of the mean rank
};

struct RateSample {
    double size = 0.0;
    double width = 1.0;
    double rate = 0.0;
};

struct Line {
    double a = 0.0, b = 0.0;  // t = a + b x, both >= 0
};
// Least squares of the relative error (a + b x) / t - 1.
Line fit_line(const std::vector<TimeSample>& samples);

// `curve` names collective, path, ranks, link and source; points and residual are filled in, and
// mean_share where samples are skewed: of its tenths, the one whose samples left out are predicted
// best.
TimeCurve fit_time_curve(TimeCurve curve, std::vector<TimeSample> samples);

// The points alone, one for each size; the residual is that of sizes left out, or the spread of a
// size's repeats where that is more.
TimeCurve fit_points(TimeCurve curve, const std::vector<TimeSample>& samples);

// In the place of the profile's own curve of this collective, path and number of ranks.
void replace_curve(Profile& profile, TimeCurve curve);

// Widths further apart than 1 % are different widths.
RateCurve fit_rate_curve(Kernel kernel, std::vector<RateSample> samples, std::string source);

}  // namespace headway::inline fit
