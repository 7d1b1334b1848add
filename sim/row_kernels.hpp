// The inner loops of the fair-share solvers, on rows of counts by link. They round the same on
// every machine: no fused multiply-add, whatever the width of its vectors.
#pragma once

#include <cstdint>

namespace headway::sim {

inline constexpr int kRowWidth = 8;            // rows are padded to multiples of it
inline constexpr double kNoCandidate = 1e300;  // level of a link without unfrozen flows

// frozen[m] = row[m] flows stop growing at `level`: unfrozen -= frozen, residual -= level frozen,
// candidate = residual / unfrozen; on [first, last), multiples of kRowWidth.
void freeze_row(const std::int32_t* row, double level, int first, int last, double* residual,
                double* unfrozen, double* candidate);

// The first index of the least value; `size` is a multiple of 2 kRowWidth.
int argmin(const double* value, int size);

// Bundles of messages, one for each (up, down) pair of ports, [rows, stride].
struct Grid {
    int rows = 0, stride = 0;
    double* served = nullptr;      // bytes that each message of the bundle has got
    const double* next = nullptr;  // the value of `served` at which the bundle's next one ends
    const double* up = nullptr;    // [rows] of a port: level, or its inverse
    const double* down = nullptr;  // [stride]
};

// min over bundles of (next - served) max(up, down), with inverse levels; and of each row.
double earliest(const Grid& grid, double* row_least);
// The columns of `row` with (next - served) max(up, down) <= last, ascending; returns their number.
int due(const Grid& grid, int row, double last, std::int32_t* columns);
// served += min(up, down) elapsed, with levels.
void serve(const Grid& grid, double elapsed);

}  // namespace headway::sim
