#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace gristmill {

/// Element types of tensors. Layers take and yield the first four; the others serve shapes, indices and
/// masks.
enum class DType : std::uint8_t { u8, s8, s32, f32, s64, boolean };

/// As numpy names them, in the order of DType.
inline constexpr std::array<const char*, 6> kDTypeNames{"uint8", "int8", "int32", "float32", "int64", "bool"};

constexpr const char* dtype_name(DType type) { return kDTypeNames[static_cast<std::size_t>(type)]; }

constexpr std::optional<DType> parse_dtype(std::string_view name) {
  for (std::size_t i = 0; i < kDTypeNames.size(); ++i)
    if (name == kDTypeNames[i]) return static_cast<DType>(i);
  return std::nullopt;
}

constexpr std::size_t element_size(DType type) {
  switch (type) {
    case DType::u8:
    case DType::s8:
    case DType::boolean:
      return 1;
    case DType::s64:
      return 8;
    default:
      return 4;
  }
}

/// Whether it is an 8-bit integer, the type of quantized data.
constexpr bool is_byte(DType type) { return type == DType::u8 || type == DType::s8; }

}  // namespace gristmill
