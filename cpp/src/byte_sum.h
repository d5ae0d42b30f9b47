#pragma once

#include "elementwise_kernels.h"
#include "gristmill/dtype.h"
#include "gristmill/quantize.h"

namespace gristmill {

/// The sign of AddBytesJob that an array of bytes has.
constexpr std::uint8_t sign_of(DType type) { return type == DType::s8 ? 0x80 : 0; }

/// A tensor of u8 or s8 with one scale and zero point, both checked.
struct ByteMap {
  DType type;
  ScaleAndZeroPoint map;
};

/// What adds two tensors of bytes, without the tensors, as ONNX Runtime's QLinearAdd does it on x86-64 with
/// AVX2 (its other builds round in other places, and differ by a step where a sum lies between two):
///
///     ratio_x = fl(scale_x / scale_out)
///     fixed   = fl(zero_out - fma(ratio_a, zero_a, fl(ratio_b * zero_b)))
///
/// The bounds of the result are those of its type. Throws Error(limit) naming "out" if a sum could overflow.
AddBytesJob byte_sum(const ByteMap& a, const ByteMap& b, const ByteMap& out);

}  // namespace gristmill
