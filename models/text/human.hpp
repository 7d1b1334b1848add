// Numbers as people read them: three significant digits and a unit. Times in decimal steps (ns, us,
// ms, s), bytes in binary ones (KiB, MiB, GiB, TiB).
#pragma once

#include <string>

#include "models/vocab/units.hpp"

namespace headway::inline texts {

std::string human(Seconds time);         // "1.23 ms"
std::string human(Bytes bytes);          // "4.50 GiB"
std::string human(FlopRate rate);        // "312 TFLOP/s"
std::string human(Flops work);           // "1.25 TFLOP"
std::string human(Bandwidth bandwidth);  // "46.5 GB/s"
std::string human_count(double count);   // "4.07 B", "671 B", "1.20 T": decimal
// Cut in the middle: what tells names apart is as often the last of them as the first.
std::string clipped(const std::string& text, std::size_t width);
std::string grouped(double value);                      // "1,234,567": rounded to a whole number
std::string signed_percent(double ratio);               // 0.123 -> "+12.3 %"
std::string significant(double value, int digits = 3);  // 0.01234 -> "0.0123", 123.4 -> "123"

}  // namespace headway::inline texts
