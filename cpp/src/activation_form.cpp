#include "activation_form.h"

#include <string>

#include "gristmill/error.h"

namespace gristmill {

ActivationForm activation_form(DType type, std::int32_t zero_point, std::uint8_t kernel_flip) {
  if (type == DType::f32) {
    if (zero_point != 0) throw Error(ErrorKind::argument, "x_zero_point", "float32 has none");
    return {0, 0};
  }
  const bool is_signed = type == DType::s8;
  const std::int32_t least = is_signed ? -128 : 0;
  if (zero_point < least || zero_point > least + 255)
    throw Error(ErrorKind::argument, "x_zero_point",
                "expected " + std::to_string(least) + " to " + std::to_string(least + 255) + ", got " +
                    std::to_string(zero_point));
  const bool wants_signed = kernel_flip != 0;
  if (is_signed == wants_signed) return {0, zero_point};
  return {0x80, is_signed ? zero_point + 128 : zero_point - 128};
}

}  // namespace gristmill
