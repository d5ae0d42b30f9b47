#include <cstring>

#include "transpose_kernels.h"

namespace gristmill {
namespace {

template <class T>
void transpose(const TransposeJob<T>& job) {
  const auto* from = static_cast<const unsigned char*>(job.from);
  auto* to = static_cast<unsigned char*>(job.to);
  for (std::size_t r = 0; r < job.rows; ++r) {
    for (std::size_t c = 0; c < job.columns; ++c) {
      T value;
      std::memcpy(&value, from + r * job.from_stride + c * sizeof(T), sizeof(T));
      value = static_cast<T>(value ^ job.flip);
      std::memcpy(to + c * job.to_stride + r * sizeof(T), &value, sizeof(T));
    }
  }
}

}  // namespace

void install_transpose_scalar(TransposeKernels& slots) {
  slots.bytes = transpose<std::uint8_t>;
  slots.words = transpose<std::uint32_t>;
}

}  // namespace gristmill
