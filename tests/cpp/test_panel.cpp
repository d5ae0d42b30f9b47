#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "guarded_buffer.h"
#include "harness.h"
#include "kernel_table.h"

using namespace gristmill;
using harness::Edge;
using harness::GuardedBuffer;
using harness::Random;

namespace {

constexpr Edge kEdges[] = {Edge::low, Edge::high};

constexpr std::size_t kOneRun = 0;

struct Shape {
  std::size_t rows, lanes, used;
  std::size_t longest_run;  ///< or kOneRun
  std::size_t slack;
  Edge edge;

  std::string label() const {
    return "rows " + std::to_string(rows) + " lanes " + std::to_string(lanes) + " used " +
           std::to_string(used) + " longest run " + std::to_string(longest_run) + " slack " +
           std::to_string(slack) + (edge == Edge::low ? " low" : " high");
  }
};

std::size_t up_to(Random& random, std::size_t most) {
  return static_cast<std::size_t>(random.integer(0, static_cast<std::int64_t>(most)));
}

/// The most lanes of a level's panels.
std::size_t most_lanes(Isa isa) { return isa == Isa::avx512vnni || isa == Isa::amx ? 64 : kMaskStep; }

Shape random_shape(Isa isa, Random& random) {
  const std::size_t lanes = 8 + 8 * up_to(random, most_lanes(isa) / 8 - 1);
  return {up_to(random, 40),
          lanes,
          up_to(random, lanes),
          1 + up_to(random, kMaskStep - 1),
          up_to(random, 1) == 0 ? 0 : up_to(random, 80),
          kEdges[up_to(random, 1)]};
}

/// Cuts `used` lanes into runs of at most `longest` lanes, or not at all, whose sources are anywhere; one
/// source is 0.
std::vector<LaneRun> random_runs(Random& random, std::size_t used, std::size_t longest) {
  std::vector<LaneRun> runs;
  for (std::size_t lane = 0; lane < used;) {
    const std::size_t count =
        longest == kOneRun ? used : 1 + up_to(random, std::min(longest, used - lane) - 1);
    runs.push_back({up_to(random, 100), static_cast<std::uint32_t>(lane), static_cast<std::uint32_t>(count)});
    lane += count;
  }
  if (!runs.empty()) runs[up_to(random, runs.size() - 1)].source = 0;
  return runs;
}

/// Row offsets in any order, or ascending as those of a convolution; one is 0.
std::vector<std::size_t> random_offsets(Random& random, std::size_t rows) {
  std::vector<std::size_t> offsets(rows);
  for (std::size_t& offset : offsets) offset = up_to(random, 300);
  if (rows > 0) offsets[up_to(random, rows - 1)] = 0;
  if (up_to(random, 1) == 0) std::sort(offsets.begin(), offsets.end());
  return offsets;
}

/// A tile to pack in storage that ends `slack` elements after the last one named, with a guard page at one
/// edge. Elements have any bit pattern, NaN too: packing moves and does not compute.
template <class T>
class Tile {
 public:
  Tile(const Shape& shape, Random& random)
      : runs_(random_runs(random, shape.used, shape.longest_run)),
        offsets_(random_offsets(random, shape.rows)),
        storage_(last_element() + shape.slack, shape.edge) {
    for (std::size_t i = 0; i < storage_.size(); ++i) {
      const std::uint64_t bits = random.next();
      std::memcpy(&storage_[i], &bits, sizeof(T));
    }
    slack_ = shape.slack;
  }

  PackJob job(std::uint8_t flip) const {
    return {storage_.data(), offsets_.data(), offsets_.size(), runs_.data(), runs_.size(), slack_, flip};
  }

  T at(std::size_t row, std::size_t lane) const {
    const auto run = std::ranges::find_if(
        runs_, [&](const LaneRun& r) { return lane >= r.lane && lane < std::size_t{r.lane} + r.count; });
    return storage_[offsets_[row] + run->source + lane - run->lane];
  }

 private:
  std::size_t last_element() const {
    std::size_t last = 0;
    for (const LaneRun& run : runs_) last = std::max(last, run.source + run.count);
    return offsets_.empty() ? 0 : last + *std::ranges::max_element(offsets_);
  }

  std::vector<LaneRun> runs_;
  std::vector<std::size_t> offsets_;
  GuardedBuffer<T> storage_;
  std::size_t slack_;
};

/// Packs with one level's slot into guarded memory and compares every lane in use with the definition and
/// with the scalar level. place(row, lane) is where an element of the panel belongs.
template <class T, class Slot, class Place>
void check_pack(Slot slot, Isa isa, const Tile<T>& tile, const Shape& shape, std::size_t panel_rows,
                std::uint8_t flip, Place place) {
  GuardedBuffer<T> panel(panel_rows * shape.lanes, shape.edge), scalar(panel_rows * shape.lanes, shape.edge);
  (kernel_table(isa).panel.*slot)(tile.job(flip), shape.lanes, panel.data());
  (kernel_table(Isa::scalar).panel.*slot)(tile.job(flip), shape.lanes, scalar.data());
  for (std::size_t row = 0; row < shape.rows; ++row) {
    for (std::size_t lane = 0; lane < shape.used; ++lane) {
      T expected = tile.at(row, lane);
      if constexpr (sizeof(T) == 1) expected = static_cast<T>(expected ^ flip);
      const T* values[] = {&panel[place(row, lane)], &scalar[place(row, lane)]};
      for (const T* value : values) {
        if (std::memcmp(value, &expected, sizeof(T)) == 0) continue;
        harness::fail(__FILE__, __LINE__,
                      shape.label() + (value == values[1] ? ", scalar" : "") + ": row " +
                          std::to_string(row) + " lane " + std::to_string(lane) + " is " +
                          std::to_string(*value) + ", expected " + std::to_string(expected));
      }
    }
  }
}

void check_all_slots(Isa isa, const Shape& shape, Random& random) {
  const Tile<std::uint8_t> bytes(shape, random);
  const Tile<float> floats(shape, random);
  const std::uint8_t flip = up_to(random, 1) == 0 ? 0 : 0x80;
  const auto planar = [&](std::size_t row, std::size_t lane) { return row * shape.lanes + lane; };
  const auto quads = [&](std::size_t row, std::size_t lane) {
    return (row / 4 * shape.lanes + lane) * 4 + row % 4;
  };
  check_pack(&PanelKernels::pack_quads, isa, bytes, shape, (shape.rows + 3) / 4 * 4, flip, quads);
  check_pack(&PanelKernels::pack_planar_u8, isa, bytes, shape, shape.rows, flip, planar);
  check_pack(&PanelKernels::pack_planar_f32, isa, floats, shape, shape.rows, 0, planar);
}

}  // namespace

ISA_TEST(panel_every_lane_count) {
  Random random(1);
  for (std::size_t lanes = 8; lanes <= most_lanes(isa); lanes += 8) {
    for (std::size_t used = 0; used <= lanes; used += harness::quick() ? 7 : 1) {
      for (std::size_t slack : {0, 63}) {
        for (Edge edge : kEdges) {
          check_all_slots(isa, {9, lanes, used, 64, slack, edge}, random);
          check_all_slots(isa, {6, lanes, used, 7, slack, edge}, random);
        }
      }
    }
  }
}

ISA_TEST(panel_every_row_count) {
  Random random(2);
  for (std::size_t rows : {0, 1, 2, 3, 4, 5, 7, 8, 27, 64, 147}) {
    for (std::size_t lanes : {8, 16, 24, 64}) {
      for (std::size_t slack : {0, 1, 14, 15, 62, 63, 64}) {
        for (Edge edge : kEdges) check_all_slots(isa, {rows, lanes, lanes, 20, slack, edge}, random);
      }
    }
  }
}

ISA_TEST(panel_one_run) {
  Random random(8);
  for (std::size_t lanes = 8; lanes <= most_lanes(isa); lanes += harness::quick() ? 24 : 8) {
    for (std::size_t used = 1; used <= lanes; used += harness::quick() ? 7 : 1) {
      for (std::size_t rows : {1, 6, 7, 20}) {
        for (std::size_t slack : {0, 6, 7, 63}) {
          for (Edge edge : kEdges) check_all_slots(isa, {rows, lanes, used, kOneRun, slack, edge}, random);
        }
      }
    }
  }
}

ISA_TEST(panel_random_tiles) {
  Random random(3);
  for (int i = 0; i < (harness::quick() ? 100 : 2000); ++i) {
    check_all_slots(isa, random_shape(isa, random), random);
  }
}

/// The lane blocks that the level's own kernels ask for, whole and cut off.
ISA_TEST(panel_blocks_of_the_level) {
  Random random(4);
  const KernelTable& kernels = kernel_table(isa);
  for (std::size_t lanes : {kernels.dense.general.channels_in_rows.lane_block,
                            kernels.dense.no_saturation.channels_in_rows.lane_block,
                            kernels.dense.f32_channels_in_rows.lane_block, kernels.sparse.quads.lane_block,
                            kernels.sparse.blocks.lane_block, kernels.sparse.singles.lane_block}) {
    for (std::size_t used = 0; used <= lanes; used += harness::quick() ? 5 : 1) {
      for (std::size_t longest : {1, 3, 7, 64}) {
        for (Edge edge : kEdges)
          check_all_slots(isa, {10, lanes, used, longest, used % 2 * 63, edge}, random);
      }
    }
  }
}

namespace {

/// Planes in storage that begins and ends with the first and the last element that a mask names, `slack`
/// elements apart from the pages around it.
template <class T>
class ShiftedTile {
 public:
  ShiftedTile(const Shape& shape, Random& random)
      : taps_(up_to(random, 7) == 0 ? kMostShiftTaps : 1 + up_to(random, 10)),
        step_(up_to(random, 60)),
        shape_(shape),
        masks_(taps_ * kMaskStep, Edge::high) {
    for (std::size_t tap = 0; tap < taps_; ++tap) {
      offsets_.push_back(static_cast<std::ptrdiff_t>(up_to(random, 200)) - 100);
      const bool all = up_to(random, 2) == 0;
      for (std::size_t lane = 0; lane < kMaskStep; ++lane)
        masks_[kMaskStep * tap + lane] = lane < shape.used && (all || up_to(random, 4) > 0) ? 0xFF : 0;
    }
    first_row_ = up_to(random, 30);
    std::ptrdiff_t first = 0, last = 0;
    bool any = false;
    for (std::size_t row = 0; row < shape.rows; ++row) {
      for (std::size_t lane = 0; lane < kMaskStep; ++lane) {
        if (!inside(row, lane)) continue;
        first = any ? std::min(first, at(row, lane)) : at(row, lane);
        last = any ? std::max(last, at(row, lane) + 1) : at(row, lane) + 1;
        any = true;
      }
    }
    first_ = first - static_cast<std::ptrdiff_t>(shape.slack);
    last_ = last + static_cast<std::ptrdiff_t>(shape.slack);
    storage_ = std::make_unique<GuardedBuffer<T>>(static_cast<std::size_t>(last_ - first_), shape.edge);
    for (T& element : storage_->span()) element = static_cast<T>(random.next());
    fill_ = static_cast<T>(random.next());
  }

  ShiftJob job(std::uint8_t flip) const {
    return {storage_->data() - first_,
            step_,
            offsets_.data(),
            masks_.data(),
            taps_,
            first_row_,
            shape_.rows,
            first_,
            last_,
            fill_,
            flip};
  }
  T expected(std::size_t row, std::size_t lane) const {
    return inside(row, lane) ? (*storage_)[static_cast<std::size_t>(at(row, lane) - first_)] : fill_;
  }

 private:
  bool inside(std::size_t row, std::size_t lane) const {
    return masks_[kMaskStep * ((first_row_ + row) % taps_) + lane] != 0;
  }
  std::ptrdiff_t at(std::size_t row, std::size_t lane) const {
    const std::size_t k = first_row_ + row;
    return static_cast<std::ptrdiff_t>(k / taps_ * step_ + lane) + offsets_[k % taps_];
  }

  std::size_t taps_, step_, first_row_ = 0;
  Shape shape_;
  GuardedBuffer<std::uint8_t> masks_;
  std::vector<std::ptrdiff_t> offsets_;
  std::ptrdiff_t first_ = 0, last_ = 0;
  std::unique_ptr<GuardedBuffer<T>> storage_;
  T fill_ = 0;
};

template <class T, class Slot>
void check_shift(Slot slot, Isa isa, const Shape& shape, std::uint8_t flip, Random& random) {
  const ShiftedTile<T> tile(shape, random);
  GuardedBuffer<T> panel(shape.rows * shape.lanes, shape.edge);
  (kernel_table(isa).panel.*slot)(tile.job(flip), shape.lanes, panel.data());
  for (std::size_t row = 0; row < shape.rows; ++row) {
    for (std::size_t lane = 0; lane < shape.used; ++lane) {
      const T expected = static_cast<T>(tile.expected(row, lane) ^ (sizeof(T) == 1 ? flip : 0));
      if (panel[row * shape.lanes + lane] == expected) continue;
      harness::fail(__FILE__, __LINE__,
                    shape.label() + ": row " + std::to_string(row) + " lane " + std::to_string(lane));
    }
  }
}

}  // namespace

ISA_TEST(panel_shifts_planes) {
  Random random(6);
  for (int i = 0; i < (harness::quick() ? 200 : 4000); ++i) {
    const Shape shape = random_shape(isa, random);
    check_shift<std::uint8_t>(&PanelKernels::shift_u8, isa, shape, up_to(random, 1) == 0 ? 0 : 0x80, random);
    check_shift<std::uint32_t>(&PanelKernels::shift_u32, isa, shape, 0, random);
  }
}

namespace {

/// Rows of which nothing but the columns named is read or written.
template <class T, class Slot>
void check_split(Slot slot, Isa isa, std::size_t columns, Edge edge, Random& random) {
  const std::size_t rows = columns % 4, source_step = columns + up_to(random, 9);
  const std::size_t kept = columns % 3, more = columns % 5 == 0 ? 3 : 0;
  const std::size_t evens = kept == 1 ? 0 : (columns + 1) / 2 + more, odds = kept == 2 ? 0 : columns / 2;
  const std::size_t step = evens + odds + up_to(random, 9),
                    read = std::max(evens == 0 ? 0 : 2 * evens - 1, 2 * odds);
  const auto length = [&](std::size_t row_step, std::size_t width) {
    return rows == 0 || width == 0 ? 0 : (rows - 1) * row_step + width;
  };
  GuardedBuffer<T> source(length(source_step, read), edge);
  GuardedBuffer<T> even(length(step, evens), edge), odd(length(step, odds), edge);
  for (T& element : source.span()) element = static_cast<T>(random.next());
  (kernel_table(isa).panel.*
   slot)({source.data(), rows, source_step, even.data(), odd.data(), evens, odds, step});
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t i = 0; i < evens; ++i) CHECK_EQ(even[r * step + i], source[r * source_step + 2 * i]);
    for (std::size_t i = 0; i < odds; ++i) CHECK_EQ(odd[r * step + i], source[r * source_step + 2 * i + 1]);
  }
}

}  // namespace

ISA_TEST(panel_splits_rows) {
  Random random(7);
  for (std::size_t columns = 0; columns <= 200; columns += harness::quick() ? 7 : 1) {
    for (Edge edge : kEdges) {
      check_split<std::uint8_t>(&PanelKernels::split_u8, isa, columns, edge, random);
      check_split<std::uint32_t>(&PanelKernels::split_u32, isa, columns, edge, random);
    }
  }
}

ISA_TEST(panel_interleaves_planes) {
  Random random(5);
  for (std::size_t count = 0; count <= 200; count += harness::quick() ? 7 : 1) {
    for (Edge edge : kEdges) {
      const std::size_t step = count + count % 3;
      const std::uint8_t flip = count % 2 == 0 ? 0 : 0x80;
      GuardedBuffer<std::uint8_t> planes(3 * step + count, edge), quads(4 * count, edge);
      for (std::uint8_t& byte : planes.span()) byte = static_cast<std::uint8_t>(random.next());
      kernel_table(isa).panel.interleave(planes.data(), step, count, flip, quads.data());
      std::vector<std::uint8_t> expected;
      for (std::size_t i = 0; i < count; ++i)
        for (std::size_t plane = 0; plane < 4; ++plane)
          expected.push_back(static_cast<std::uint8_t>(planes[plane * step + i] ^ flip));
      CHECK_SAME(quads.view(), std::span<const std::uint8_t>(expected), std::to_string(count));
    }
  }
}
