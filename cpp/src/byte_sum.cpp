#include "byte_sum.h"

#include <cmath>

#include "gristmill/error.h"

namespace gristmill {

AddBytesJob byte_sum(const ByteMap& a, const ByteMap& b, const ByteMap& out) {
  const auto zero = [](const ByteMap& x) { return static_cast<float>(x.map.zero_point); };
  const float ratio_a = a.map.scale / out.map.scale, ratio_b = b.map.scale / out.map.scale;
  if (!std::isfinite((ratio_a + ratio_b) * 512.0f))
    throw Error(ErrorKind::limit, "out", "its scale is too small for what is added");
  const float fixed = zero(out) - std::fma(ratio_a, zero(a), ratio_b * zero(b));
  const float low = out.type == DType::s8 ? -128.0f : 0.0f;
  return {nullptr,         nullptr,           nullptr, 1,       0,     0,   sign_of(a.type),
          sign_of(b.type), sign_of(out.type), ratio_a, ratio_b, fixed, low, low + 255.0f};
}

}  // namespace gristmill
