#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "array_views.h"
#include "gristmill/conv.h"
#include "gristmill/epilogue.h"
#include "gristmill/linear.h"

/// Arguments of dense layers at the boundary: what array_views.h is for conversions.
namespace gristmill {

/// An epilogue as Python states it, and the stage made of it for the layer that last used it.
class EpilogueSpec {
 public:
  Epilogue epilogue;  ///< its spans refer to the vectors below
  std::vector<std::int32_t> bias;
  std::vector<float> bias_f32, scale;

  /// The prepared stage; made anew when the layer differs from the last.
  std::shared_ptr<const OutputStage> stage(std::size_t channels, bool f32_layer);

 private:
  std::shared_ptr<const OutputStage> stage_;
};

/// The array in C order, copied if it is not; Error(dtype) if it is none.
pybind11::array contiguous(pybind11::handle object, const char* name);

/// s8 or f32, Error(dtype) naming `weights` otherwise.
DType weight_type(const pybind11::array& array);

/// u8, s8 or f32, Error(dtype) naming `x` otherwise.
DType activation_type(const pybind11::array& array);

/// A whole number in [least, most]; Error(argument) otherwise.
long parse_bounded(pybind11::handle object, long least, long most, const char* name);

/// One whole number for both axes, or two.
std::pair<long, long> parse_pair(pybind11::handle object, const char* name);

/// One, two (rows, columns) or four (top, left, bottom, right) whole numbers, as four.
std::array<long, 4> parse_padding(pybind11::handle object);

/// The stage of `spec`, or for none the plain one: int32 or float32 output, nothing else.
std::shared_ptr<const OutputStage> stage_for(EpilogueSpec* spec, std::size_t channels, bool f32_layer);

/// The residual that the stage wants, checked; Error if it is missing or not wanted.
std::optional<pybind11::array> residual_for(pybind11::handle residual, const OutputStage& stage,
                                            const std::vector<std::size_t>& shape);

/// `out` after all checks, or a new array. It must be in C order and share no memory with the inputs, of
/// which some may be null.
pybind11::array output_for(pybind11::handle out, const std::vector<std::size_t>& shape, DType type,
                           std::initializer_list<const pybind11::array*> inputs);

/// The weights that an object of a packed class holds; Error(dtype) for any other object.
std::shared_ptr<const PackedConv> packed_conv(pybind11::handle object);
std::shared_ptr<const PackedLinear> packed_linear(pybind11::handle object);

/// Classes that differ from others in nothing that type checkers see.
inline pybind11::metaclass plain_metaclass() {
  return pybind11::metaclass(reinterpret_cast<PyObject*>(&PyType_Type));
}

void bind_epilogue(pybind11::module_& m);

}  // namespace gristmill
