#pragma once

#include <span>
#include <string>
#include <string_view>

#include "gristmill/error.h"
#include "gristmill/tensor.h"

namespace gristmill {

/// The row of a table of {name, in, ...} for a function and an element type. Throws Error(argument) if no row
/// has the name, and Error(dtype) naming `operand` if none with the name takes the type.
template <class Row>
const Row& find_function(std::span<const Row> rows, std::string_view name, DType type, const char* operand) {
  std::string names, types;
  for (const Row& row : rows) {
    if (names.empty() || !names.ends_with(row.name))
      names += (names.empty() ? "" : ", ") + std::string(row.name);
    if (row.name != name) continue;
    if (row.in == type) return row;
    types += (types.empty() ? "" : " or ") + std::string(dtype_name(row.in));
  }
  if (types.empty())
    throw Error(ErrorKind::argument, "function",
                "unknown name '" + std::string(name) + "'; choose one of: " + names);
  throw Error(ErrorKind::dtype, operand, std::string(name) + " takes " + types + ", got " + dtype_name(type));
}

}  // namespace gristmill
