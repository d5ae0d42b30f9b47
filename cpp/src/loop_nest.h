#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "gristmill/array_view.h"
#include "gristmill/parallel.h"

/// Visiting the elements of one or two arrays of equal shape in the order that memory likes.
///
/// An elementwise operation may visit its elements in any order, so a nest of loops over the dimensions is
/// first *normalized*: dimensions of extent 1 vanish, negative directions are reversed, loops are sorted by
/// stride and neighbours that run through memory without a gap are fused, except that the *channel* axis
/// stays a loop of its own. What remains has one of two forms:
///
///     direct    outer loops around a dense tail [repeats][channels][inner], contiguous in both arrays;
///               kernels work on the arrays themselves
///     staged    anything else (gaps, broadcasts, reversals, transpositions, misaligned data): boxes small
///               enough for the caches are copied to a dense [channels][rest] buffer, worked on, copied back
///
/// Offsets and strides are in bytes.
namespace gristmill {

struct Loop {
  std::size_t extent;
  std::ptrdiff_t in_step, out_step;
  bool channel;
};

/// The dense tail of a direct nest. With channels > 1 element i has channel i / inner % channels.
struct Tail {
  std::size_t count = 1, channels = 1, inner = 1;
};

struct LoopNest {
  std::vector<Loop> loops;  ///< outermost first; in a direct nest without those of the tail
  const std::byte* in = nullptr;
  std::byte* out = nullptr;
  bool direct = false;
  Tail tail;
  std::size_t total = 0;  ///< elements
};

/// Describes two arrays for normalization; a reduction passes its input twice.
struct NestOperand {
  const std::byte* data;
  const std::vector<std::ptrdiff_t>* strides;
  std::size_t item_bytes;
};

LoopNest normalize(const std::vector<std::size_t>& shape, const NestOperand& in, const NestOperand& out,
                   std::optional<std::size_t> axis);

/// Where a piece of a nest begins.
struct NestPosition {
  const std::byte* in;
  std::byte* out;
  std::size_t channel;  ///< index along the channel loop, 0 if it is in the tail or absent
};

/// The position of the given iteration of a direct nest's outer loops.
NestPosition outer_position(const LoopNest& nest, std::size_t iteration);

/// A box of a staged nest: loop ranges, the channel loop moved to the front.
struct Box {
  NestPosition start;
  std::vector<Loop> loops;  ///< extents of this box; loops[0] is the channel's, or of extent 1
  std::size_t rest = 1;     ///< elements per channel
};

/// How a staged nest is cut into boxes of at most kBoxElements.
class Boxes {
 public:
  explicit Boxes(const LoopNest& nest);
  std::size_t count() const { return count_; }
  Box box(std::size_t index) const;

 private:
  const LoopNest& nest_;
  std::vector<std::size_t> extents_;
  std::size_t count_ = 1;
};

inline constexpr std::size_t kBoxElements = 16384;
inline constexpr std::size_t kTaskElements = 262144;
/// Channels with fewer contiguous elements than this go through the per-lane kernels.
inline constexpr std::size_t kShortRun = 32;

/// Copies a box from the array to dense storage (`in`) or back (`out`); elements of 1 or 4 bytes.
void gather_box(const Box& box, std::byte* dense, std::size_t item_bytes);
void scatter_box(const Box& box, const std::byte* dense, std::size_t item_bytes);

/// Cuts elements [begin, end) of a direct nest into dense segments within one tail each:
/// body(position, first, count), where `first` is the offset of the segment in its tail.
template <class Body>
void for_each_segment(const LoopNest& nest, std::size_t begin, std::size_t end, const Body& body) {
  while (begin < end) {
    const std::size_t first = begin % nest.tail.count;
    const std::size_t count = std::min(nest.tail.count - first, end - begin);
    body(outer_position(nest, begin / nest.tail.count), first, count);
    begin += count;
  }
}

/// Cuts [first, first + count) of a tail into runs of one channel: body(channel, first, count).
template <class Body>
void for_each_run(const Tail& tail, std::size_t first, std::size_t count, const Body& body) {
  if (tail.channels == 1) return body(std::size_t{0}, first, count);
  const std::size_t end = first + count;
  std::size_t channel = first / tail.inner % tail.channels, length = tail.inner - first % tail.inner;
  for (; first < end; first += length, length = tail.inner) {
    length = std::min(length, end - first);
    body(channel, first, length);
    channel = channel + 1 < tail.channels ? channel + 1 : 0;
  }
}

}  // namespace gristmill
