#pragma once

#include <cstdint>

#include "gristmill/epilogue.h"

namespace gristmill {

/// How an int8 kernel wants its activations: the XOR that makes them so, and the zero point they then have.
struct ActivationForm {
  std::uint8_t flip;
  std::int32_t zero_point;
};

/// `kernel_flip` is what the kernel wants of u8: 0 leaves them unsigned, 0x80 makes them signed. Throws
/// Error(argument) if the zero point is out of the type's range.
ActivationForm activation_form(DType type, std::int32_t zero_point, std::uint8_t kernel_flip);

}  // namespace gristmill
