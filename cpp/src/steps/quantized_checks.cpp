#include "quantized_checks.h"

#include "affine_table.h"
#include "step_checks.h"

namespace gristmill {

ByteMap checked_map(const QuantizedTensor& x, const char* name) {
  require_dtype(name, x.tensor, {DType::u8, DType::s8});
  try {
    AffineTable({{&x.map.scale, 1}, {&x.map.zero_point, 1}, std::nullopt},
                x.tensor.dtype() == DType::u8 ? QuantType::u8 : QuantType::s8, 1);
  } catch (const Error& error) {
    throw Error(error.kind(), name, error.where() + " " + error.reason());
  }
  return {x.tensor.dtype(), x.map};
}

}  // namespace gristmill
