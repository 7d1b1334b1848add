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

// residual -= rate row, on [first, last).
void take_row(const std::int32_t* row, double rate, int first, int last, double* residual);

// The first index with value < share * whole, or -1; `size` is a multiple of kRowWidth.
int first_below(const double* value, const double* whole, double share, int size);

// The first index of the least value; `size` is a multiple of 2 kRowWidth.
int argmin(const double* value, int size);

// Ports of one side of a crossbar, `size` a multiple of kRowWidth.
struct PortSide {
    int size = 0;
    double* residual = nullptr;   // capacity that is not given away yet
    double* unfrozen = nullptr;   // flows that still grow; far below zero for a frozen port
    double* candidate = nullptr;  // residual / unfrozen, or kNoCandidate
    double* level = nullptr;      // result, where the port is a bottleneck
};

// Max-min levels of a crossbar by progressive filling, from the capacities and flows of its ports;
// by_up and by_down count the flows of each pair, [up, down] and [down, up]. The ups share no flow,
// so all of them with a candidate of at most the least one of the downs are the next to freeze,
// whatever their order, and the same the other way round. Returns the highest level.
double fill_crossbar(const PortSide& up, const PortSide& down, const std::int32_t* by_up,
                     const std::int32_t* by_down);

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
