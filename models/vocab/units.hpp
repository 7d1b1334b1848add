// Strong unit types: bytes, seconds, FLOP and their quotients. Mixing them does not compile.
// A Quantity is made from a number and a named unit (450 * GB / second) and read back with
// in(unit): the unit is visible wherever a number enters or leaves. GB is 1e9 bytes, GiB is 2^30
// bytes, Gbit is 1e9 / 8 bytes. Doubles hold whole byte counts exactly up to 9 PB (2^53).
#pragma once

#include <cmath>
#include <compare>
#include <type_traits>

namespace headway {

template <int Information, int Time, int Work>
class Quantity {
  public:
    constexpr Quantity() = default;

    // The number of `unit`s in this quantity: Seconds.in(ms) is milliseconds.
    constexpr double in(Quantity unit) const { return base_ / unit.base_; }

    friend constexpr auto operator<=>(Quantity, Quantity) = default;
    friend constexpr Quantity operator+(Quantity a, Quantity b) {
        return Quantity(a.base_ + b.base_);
    }
    friend constexpr Quantity operator-(Quantity a, Quantity b) {
        return Quantity(a.base_ - b.base_);
    }
    friend constexpr Quantity operator*(double s, Quantity q) { return Quantity(s * q.base_); }
    friend constexpr Quantity operator*(Quantity q, double s) { return Quantity(s * q.base_); }
    friend constexpr Quantity operator/(Quantity q, double s) { return Quantity(q.base_ / s); }
    constexpr Quantity& operator+=(Quantity q) { return *this = *this + q; }
    constexpr Quantity& operator-=(Quantity q) { return *this = *this - q; }
    constexpr Quantity& operator*=(double s) { return *this = *this * s; }

    constexpr bool is_finite() const { return base_ - base_ == 0.0; }

  private:
    constexpr explicit Quantity(double base) : base_(base) {}

    double base_ = 0.0;

    template <int, int, int>
    friend class Quantity;
    friend struct UnitMaker;
    template <int I, int T, int W, int J, int U, int V>
    friend constexpr auto operator*(Quantity<I, T, W>, Quantity<J, U, V>);
    template <int I, int T, int W, int J, int U, int V>
    friend constexpr auto operator/(Quantity<I, T, W>, Quantity<J, U, V>);
    template <int I, int T, int W>
    friend constexpr auto operator/(double, Quantity<I, T, W>);
};

// A quotient without dimension is a plain number.
template <int I, int T, int W, int J, int U, int V>
constexpr auto operator*(Quantity<I, T, W> a, Quantity<J, U, V> b) {
    if constexpr (I + J == 0 && T + U == 0 && W + V == 0) {
        return a.base_ * b.base_;
    } else {
        return Quantity<I + J, T + U, W + V>(a.base_ * b.base_);
    }
}

template <int I, int T, int W, int J, int U, int V>
constexpr auto operator/(Quantity<I, T, W> a, Quantity<J, U, V> b) {
    if constexpr (I == J && T == U && W == V) {
        return a.base_ / b.base_;
    } else {
        return Quantity<I - J, T - U, W - V>(a.base_ / b.base_);
    }
}

template <int I, int T, int W>
constexpr auto operator/(double s, Quantity<I, T, W> q) {
    return Quantity<-I, -T, -W>(s / q.base_);
}

using Bytes = Quantity<1, 0, 0>;
using Seconds = Quantity<0, 1, 0>;
using Flops = Quantity<0, 0, 1>;       // a count of floating-point operations, not a rate
using Bandwidth = Quantity<1, -1, 0>;  // bytes per second
using FlopRate = Quantity<0, -1, 1>;   // FLOP per second

// The only door from a bare number to a Quantity; used for the unit constants below.
struct UnitMaker {
    template <class Q>
    static constexpr Q make(double base) {
        return Q(base);
    }
};

inline constexpr Bytes byte = UnitMaker::make<Bytes>(1.0);
inline constexpr Bytes KB = 1e3 * byte, MB = 1e6 * byte, GB = 1e9 * byte, TB = 1e12 * byte;
inline constexpr Bytes KiB = 1024.0 * byte, MiB = 1024.0 * KiB, GiB = 1024.0 * MiB,
                       TiB = 1024.0 * GiB;
inline constexpr Bytes bit = 0.125 * byte, Gbit = 1e9 * bit;
inline constexpr Seconds second = UnitMaker::make<Seconds>(1.0);
inline constexpr Seconds ms = 1e-3 * second, us = 1e-6 * second, ns = 1e-9 * second,
                         ps = 1e-12 * second;
inline constexpr Flops flop = UnitMaker::make<Flops>(1.0);
inline constexpr Flops GFLOP = 1e9 * flop, TFLOP = 1e12 * flop;

template <int I, int T, int W>
constexpr Quantity<I, T, W> max(Quantity<I, T, W> a, Quantity<I, T, W> b) {
    return a < b ? b : a;
}

template <int I, int T, int W>
constexpr Quantity<I, T, W> min(Quantity<I, T, W> a, Quantity<I, T, W> b) {
    return b < a ? b : a;
}

}  // namespace headway
