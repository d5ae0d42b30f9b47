#pragma once

#include <cstddef>
#include <cstdint>

/// Slots that drive one unit of the core at its limit, for calibration: what they reach is the bound that
/// kernels of the level are measured against.
///
/// The arithmetic slots keep every operand in registers and run kChains independent chains of dependent
/// steps, enough to hide the latency of any step. A step takes its chain's own value as an operand, and each
/// chain starts elsewhere, so a compiler can neither hoist a step out of the loop nor merge two chains.
namespace gristmill {

struct CalibrateKernels {
  /// Runs `rounds` rounds of exact multiply-adds of 8-bit integers into 32 bits; returns how many. `sink` is
  /// where the chains start and end: it is read, and receives something that depends on all of them.
  std::uint64_t (*int8_macs)(std::uint64_t rounds, std::uint32_t* sink) = nullptr;
  /// The same for instructions that are faster but saturate, with as many additions in few bits as weights in
  /// a suitable order allow; null where the level has none.
  std::uint64_t (*int8_saturating_macs)(std::uint64_t rounds, std::uint32_t* sink) = nullptr;
  /// The same for f32 multiply-adds.
  std::uint64_t (*f32_fmas)(std::uint64_t rounds, std::uint32_t* sink) = nullptr;

  /// Reads `blocks` blocks of 512 bytes, all of them `passes` times; returns the exclusive or of the 64-bit
  /// words of all passes.
  std::uint64_t (*read)(const void* data, std::size_t blocks, std::uint64_t passes) = nullptr;

  /// Moves what a quantization f32 -> 8 bits must move, 4 bytes in and 1 out, and hardly computes: of each
  /// 256 bytes of `in` the exclusive or of the four 64-byte quarters goes to 64 bytes of `out`.
  void (*narrow)(const void* in, void* out, std::size_t blocks) = nullptr;
  /// The same past the caches; `out` is aligned to 64 bytes. Null where the level cannot.
  void (*narrow_streaming)(const void* in, void* out, std::size_t blocks) = nullptr;
  /// Moves what a dequantization must move, 1 byte in and 4 out: each 64 bytes of `in` go four times to
  /// `out`.
  void (*widen)(const void* in, void* out, std::size_t blocks) = nullptr;
  /// The same past the caches; `out` is aligned to 64 bytes. Null where the level cannot.
  void (*widen_streaming)(const void* in, void* out, std::size_t blocks) = nullptr;
};

inline constexpr std::size_t kReadBlock = 512;    ///< bytes that CalibrateKernels::read reads per block
inline constexpr std::size_t kNarrowBlock = 256;  ///< bytes that narrow reads, and widen writes, per block
inline constexpr std::size_t kByteBlock = 64;     ///< bytes that narrow writes, and widen reads, per block

}  // namespace gristmill
