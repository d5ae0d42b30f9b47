#pragma once

/// Inlines a lambda before arrays are split into registers, which is too early for the compiler to do
/// unasked.
#define GRISTMILL_INLINE __attribute__((always_inline))

namespace gristmill {
namespace {

/// A number that is both a compile-time constant and an int.
template <int I>
struct Index {
  static constexpr int value = I;
  constexpr operator int() const { return I; }
};

/// f(Index<0>), ..., f(Index<N - 1>). Arrays of vectors stay in registers only where every index is a
/// constant.
template <int N, int I = 0, class Body>
[[gnu::always_inline]] inline void unroll(Body&& body) {
  if constexpr (I < N) {
    body(Index<I>{});
    unroll<N, I + 1>(body);
  }
}

}  // namespace
}  // namespace gristmill
