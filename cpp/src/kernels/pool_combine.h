#pragma once

#include <type_traits>

namespace gristmill {
namespace {

/// The operations of pool_kernels.h on numbers T, or on vectors of them.
template <class T>
struct PoolMax {
  template <class V>
  [[gnu::always_inline]] static V combine(V most, V value) {
    if constexpr (std::is_floating_point_v<T>)
      return ((value > most) | (value != value)) ? value : most;
    else
      return value > most ? value : most;
  }
};

template <class T>
struct PoolSum {
  template <class V>
  [[gnu::always_inline]] static V combine(V sum, V value) {
    return sum + value;
  }
};

}  // namespace
}  // namespace gristmill
