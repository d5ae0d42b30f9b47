#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "gristmill/array_view.h"
#include "gristmill/dtype.h"
#include "gristmill/error.h"

/// numpy arrays at the boundary: everything is checked here, nothing is converted.
///
/// An argument must be an array of exactly the element type asked for, in native byte order; any layout is
/// taken. An output must in addition be writeable, hold no element twice and share no memory with an input.
/// Each error names the argument, what was expected and what came.
namespace gristmill {

/// The object as an array; Error(dtype) if it is none.
pybind11::array require_array(pybind11::handle object, const char* name);

/// An element type as numpy describes it.
struct ElementType {
  const char* name;
  char kind;
  pybind11::ssize_t bytes;
  pybind11::dtype (*make)();
};

inline constexpr ElementType kFloat32{"float32", 'f', 4, pybind11::dtype::of<float>};
inline constexpr ElementType kInt32{"int32", 'i', 4, pybind11::dtype::of<std::int32_t>};
inline constexpr ElementType kInt8{"int8", 'i', 1, pybind11::dtype::of<std::int8_t>};
inline constexpr ElementType kUInt8{"uint8", 'u', 1, pybind11::dtype::of<std::uint8_t>};
inline constexpr ElementType kInt64{"int64", 'i', 8, pybind11::dtype::of<std::int64_t>};
inline constexpr ElementType kBool{"bool", 'b', 1, pybind11::dtype::of<bool>};

const ElementType& element_type(DType type);

/// True if a type is this one in native byte order.
bool is_element_type(const pybind11::dtype& dtype, const ElementType& type);

/// True if the array has this type in native byte order.
bool has_dtype(const pybind11::array& array, const ElementType& type);

/// Error(dtype) unless has_dtype.
void require_dtype(const pybind11::array& array, const ElementType& type, const char* name);

/// Error(shape) unless the array has this rank.
void require_rank(const pybind11::array& array, pybind11::ssize_t rank, const char* name);

/// The given output after all checks (dtype, shape of `like`, writeable, no overlap), or for None a new array
/// with the shape and memory order of `like`.
pybind11::array require_output(pybind11::handle out, const pybind11::array& like, const ElementType& type);

/// Any whole number, as Python's operator.index takes it; Error(dtype) if it is none, Error(argument) beyond
/// 64 bits.
long parse_integer(pybind11::handle object, const char* name);

/// `axis` counted from the front; Error(shape) if the array has no such axis. None stays none.
std::optional<std::size_t> parse_axis(pybind11::handle axis, const pybind11::array& array);

/// `threads` for parallel_for: None is 0; Error(argument) outside 1..kMaxThreads.
int parse_threads(pybind11::handle threads);

/// The array's memory. T is the element type or a byte type of the same size.
template <class T>
ArrayView<T> view_of(const pybind11::array& array) {
  const auto rank = array.ndim();
  return {static_cast<T*>(const_cast<void*>(array.data())),
          {array.shape(), array.shape() + rank},
          {array.strides(), array.strides() + rank}};
}

}  // namespace gristmill
