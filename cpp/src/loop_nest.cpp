#include "loop_nest.h"

#include "gristmill/error.h"

namespace gristmill {
namespace {

std::size_t magnitude(std::ptrdiff_t step) {
  return step < 0 ? std::size_t{0} - static_cast<std::size_t>(step) : static_cast<std::size_t>(step);
}

std::size_t count_elements(const std::vector<std::size_t>& shape) {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  std::size_t total = 1;
  for (std::size_t extent : shape) {
    if (total > SIZE_MAX / extent)
      throw Error(ErrorKind::limit, "", "the array has more elements than can be counted");
    total *= extent;
  }
  return total;
}

std::vector<Loop> collect(const std::vector<std::size_t>& shape, const NestOperand& in,
                          const NestOperand& out, std::optional<std::size_t> axis) {
  std::vector<Loop> loops;
  for (std::size_t d = 0; d < shape.size(); ++d)
    if (shape[d] != 1) loops.push_back({shape[d], (*in.strides)[d], (*out.strides)[d], axis == d});
  return loops;
}

/// Runs loops upward through the output; the channel loop keeps its direction, which numbers the channels.
void reverse_downward(LoopNest& nest) {
  for (Loop& loop : nest.loops) {
    if (loop.channel || loop.out_step >= 0) continue;
    nest.in += static_cast<std::ptrdiff_t>(loop.extent - 1) * loop.in_step;
    nest.out += static_cast<std::ptrdiff_t>(loop.extent - 1) * loop.out_step;
    loop.in_step = -loop.in_step;
    loop.out_step = -loop.out_step;
  }
}

void fuse_neighbours(std::vector<Loop>& loops) {
  for (std::size_t i = loops.size(); i-- > 1;) {
    const Loop& inner = loops[i];
    Loop& outer = loops[i - 1];
    const std::ptrdiff_t extent = static_cast<std::ptrdiff_t>(inner.extent);
    if (inner.channel || outer.channel || outer.in_step != inner.in_step * extent ||
        outer.out_step != inner.out_step * extent)
      continue;
    outer = {outer.extent * inner.extent, inner.in_step, inner.out_step, false};
    loops.erase(loops.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

bool is_aligned(const LoopNest& nest, std::size_t in_bytes, std::size_t out_bytes) {
  std::size_t in_bits = reinterpret_cast<std::uintptr_t>(nest.in);
  std::size_t out_bits = reinterpret_cast<std::uintptr_t>(nest.out);
  for (const Loop& loop : nest.loops) {
    in_bits |= magnitude(loop.in_step);
    out_bits |= magnitude(loop.out_step);
  }
  return in_bits % in_bytes == 0 && out_bits % out_bytes == 0;
}

/// Moves the innermost loops that are dense in both arrays into the tail.
void split_tail(LoopNest& nest, std::size_t in_bytes, std::size_t out_bytes) {
  constexpr std::size_t kWorthwhile = 64;
  Tail tail;
  std::size_t kept = nest.loops.size();
  for (; kept > 0; --kept) {
    const Loop& loop = nest.loops[kept - 1];
    if (loop.in_step != static_cast<std::ptrdiff_t>(tail.count * in_bytes) ||
        loop.out_step != static_cast<std::ptrdiff_t>(tail.count * out_bytes))
      break;
    if (loop.channel) {
      tail.channels = loop.extent;
      tail.inner = tail.count;
    }
    tail.count *= loop.extent;
  }
  nest.direct = kept == 0 || tail.count >= kWorthwhile;
  if (!nest.direct) return;
  nest.tail = tail;
  nest.loops.resize(kept);
}

template <class Item>
void copy_strided(const std::byte* from, std::ptrdiff_t from_step, std::byte* to, std::ptrdiff_t to_step,
                  std::size_t count) {
  for (std::size_t i = 0; i < count; ++i, from += from_step, to += to_step)
    std::memcpy(to, from, sizeof(Item));
}

void copy_line(const std::byte* from, std::ptrdiff_t from_step, std::byte* to, std::ptrdiff_t to_step,
               std::size_t count, std::size_t item_bytes) {
  if (item_bytes == 1)
    copy_strided<std::uint8_t>(from, from_step, to, to_step, count);
  else
    copy_strided<std::uint32_t>(from, from_step, to, to_step, count);
}

/// Copies loops[depth...] and advances `dense` past them.
template <class Dense, class CopyLine>
void walk(const std::vector<Loop>& loops, std::size_t depth, std::ptrdiff_t offset,
          std::ptrdiff_t Loop::*step, Dense*& dense, std::size_t item_bytes, const CopyLine& copy) {
  const Loop& loop = loops[depth];
  if (depth + 1 == loops.size()) {
    copy(offset, loop.*step, dense, loop.extent);
    dense += loop.extent * item_bytes;
    return;
  }
  for (std::size_t i = 0; i < loop.extent; ++i)
    walk(loops, depth + 1, offset + static_cast<std::ptrdiff_t>(i) * (loop.*step), step, dense, item_bytes,
         copy);
}

}  // namespace

LoopNest normalize(const std::vector<std::size_t>& shape, const NestOperand& in, const NestOperand& out,
                   std::optional<std::size_t> axis) {
  LoopNest nest;
  nest.in = in.data;
  nest.out = const_cast<std::byte*>(out.data);
  nest.total = count_elements(shape);
  if (nest.total == 0) return nest;
  nest.loops = collect(shape, in, out, axis);
  reverse_downward(nest);
  std::stable_sort(nest.loops.begin(), nest.loops.end(), [](const Loop& a, const Loop& b) {
    const std::size_t a_out = magnitude(a.out_step), b_out = magnitude(b.out_step);
    return a_out != b_out ? a_out > b_out : magnitude(a.in_step) > magnitude(b.in_step);
  });
  fuse_neighbours(nest.loops);
  if (is_aligned(nest, in.item_bytes, out.item_bytes)) split_tail(nest, in.item_bytes, out.item_bytes);
  return nest;
}

NestPosition outer_position(const LoopNest& nest, std::size_t iteration) {
  NestPosition at{nest.in, nest.out, 0};
  for (std::size_t d = nest.loops.size(); d-- > 0;) {
    const Loop& loop = nest.loops[d];
    const std::size_t index = iteration % loop.extent;
    iteration /= loop.extent;
    at.in += static_cast<std::ptrdiff_t>(index) * loop.in_step;
    at.out += static_cast<std::ptrdiff_t>(index) * loop.out_step;
    if (loop.channel) at.channel = index;
  }
  return at;
}

Boxes::Boxes(const LoopNest& nest) : nest_(nest), extents_(nest.loops.size(), 1) {
  const auto& loops = nest.loops;
  std::size_t elements = 1;
  const auto grow = [&](std::size_t d, std::size_t limit) {
    const std::size_t room = std::min(limit, kBoxElements / (elements / extents_[d]));
    const std::size_t grown = std::max(extents_[d], std::min(loops[d].extent, room));
    elements = elements / extents_[d] * grown;
    extents_[d] = grown;
  };
  if (!loops.empty()) {
    // The loops with the smallest step of either array first, so that both are touched by whole cache lines.
    const std::size_t along_out = loops.size() - 1;
    std::size_t along_in = along_out;
    for (std::size_t d = 0; d < loops.size(); ++d)
      if (magnitude(loops[d].in_step) < magnitude(loops[along_in].in_step)) along_in = d;
    constexpr std::size_t kSquare = 128;
    grow(along_out, kSquare);
    grow(along_in, kSquare);
    for (std::size_t d = loops.size(); d-- > 0;)
      if (!loops[d].channel) grow(d, kBoxElements);
    for (std::size_t d = loops.size(); d-- > 0;) grow(d, kBoxElements);
  }
  for (std::size_t d = 0; d < loops.size(); ++d) count_ *= (loops[d].extent + extents_[d] - 1) / extents_[d];
}

Box Boxes::box(std::size_t index) const {
  Box box{{nest_.in, nest_.out, 0}, {{1, 0, 0, true}}, 1};
  std::vector<Loop> others;
  for (std::size_t d = nest_.loops.size(); d-- > 0;) {
    Loop loop = nest_.loops[d];
    const std::size_t blocks = (loop.extent + extents_[d] - 1) / extents_[d];
    const std::size_t first = index % blocks * extents_[d];
    index /= blocks;
    box.start.in += static_cast<std::ptrdiff_t>(first) * loop.in_step;
    box.start.out += static_cast<std::ptrdiff_t>(first) * loop.out_step;
    loop.extent = std::min(extents_[d], loop.extent - first);
    if (loop.channel) {
      box.start.channel = first;
      box.loops[0] = loop;
    } else {
      others.insert(others.begin(), loop);
      box.rest *= loop.extent;
    }
  }
  box.loops.insert(box.loops.end(), others.begin(), others.end());
  return box;
}

void gather_box(const Box& box, std::byte* dense, std::size_t item_bytes) {
  walk(box.loops, 0, 0, &Loop::in_step, dense, item_bytes,
       [&](std::ptrdiff_t offset, std::ptrdiff_t step, std::byte* to, std::size_t count) {
         copy_line(box.start.in + offset, step, to, static_cast<std::ptrdiff_t>(item_bytes), count,
                   item_bytes);
       });
}

void scatter_box(const Box& box, const std::byte* dense, std::size_t item_bytes) {
  walk(box.loops, 0, 0, &Loop::out_step, dense, item_bytes,
       [&](std::ptrdiff_t offset, std::ptrdiff_t step, const std::byte* from, std::size_t count) {
         copy_line(from, static_cast<std::ptrdiff_t>(item_bytes), box.start.out + offset, step, count,
                   item_bytes);
       });
}

}  // namespace gristmill
