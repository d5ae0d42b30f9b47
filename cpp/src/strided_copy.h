#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace gristmill {

/// Rows are copied and filled by whole blocks, which compilers turn into vectors. A block may write beyond
/// the end of its run, as far as the plane reaches: what follows there is written later.
inline constexpr std::size_t kCopyBlock = 16;

template <class T>
void fill_run(T fill, T* out, T* out_end, std::size_t count) {
  std::array<T, kCopyBlock> block;
  block.fill(fill);
  std::size_t i = 0;
  for (; i < count && static_cast<std::size_t>(out_end - out) >= i + kCopyBlock; i += kCopyBlock)
    std::memcpy(out + i, block.data(), sizeof block);
  for (; i < count; ++i) out[i] = fill;
}

/// Every step-th element of a block.
template <std::size_t step, class T>
std::array<T, kCopyBlock> load_block(const T* source) {
  std::array<T, kCopyBlock> block;
  for (std::size_t j = 0; j < kCopyBlock; ++j) block[j] = source[j * step];
  return block;
}

/// Every second byte is half of every word, which is an order that compilers vectorize.
template <>
inline std::array<std::uint8_t, kCopyBlock> load_block<2, std::uint8_t>(const std::uint8_t* source) {
  std::array<std::uint16_t, kCopyBlock> words;
  std::memcpy(words.data(), source, sizeof words);
  std::array<std::uint8_t, kCopyBlock> block;
  constexpr int kShift = std::endian::native == std::endian::big ? 8 : 0;
  for (std::size_t j = 0; j < kCopyBlock; ++j) block[j] = static_cast<std::uint8_t>(words[j] >> kShift);
  return block;
}

/// out[i] = map(source[i * step]) for i < count. Nothing at or beyond the ends is read or written.
template <std::size_t step, class T, class Map>
void copy_run(const T* source, const T* source_end, T* out, T* out_end, std::size_t count, Map map) {
  const std::size_t readable = static_cast<std::size_t>(source_end - source) / (kCopyBlock * step);
  const std::size_t writable = static_cast<std::size_t>(out_end - out) / kCopyBlock;
  const std::size_t end = std::min(std::min(readable, writable) * kCopyBlock, count);
  std::size_t i = 0;
  for (; i < end; i += kCopyBlock) {
    std::array<T, kCopyBlock> block = load_block<step>(source + i * step);
    for (T& element : block) element = map(element);
    std::memcpy(out + i, block.data(), sizeof block);
  }
  for (; i < count; ++i) out[i] = map(source[i * step]);
}

/// The same in whole blocks, all of which may be read and written.
template <std::size_t step, class T, class Map>
void copy_blocks(const T* source, T* out, std::size_t count, Map map) {
  for (std::size_t i = 0; i < count; i += kCopyBlock) {
    std::array<T, kCopyBlock> block = load_block<step>(source + i * step);
    for (T& element : block) element = map(element);
    std::memcpy(out + i, block.data(), sizeof block);
  }
}

template <class T>
void fill_blocks(const std::array<T, kCopyBlock>& block, T* out, std::size_t count) {
  for (std::size_t i = 0; i < count; i += kCopyBlock) std::memcpy(out + i, block.data(), sizeof block);
}

}  // namespace gristmill
