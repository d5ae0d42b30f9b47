#include "panel_kernels.h"

namespace gristmill {
namespace {

/// store(lane, element) for every lane of the tile in one row.
template <class T, class Store>
void gather_row(const PackJob& job, std::size_t row, Store store) {
  const T* source = static_cast<const T*>(job.base) + job.row_offset[row];
  for (std::size_t r = 0; r < job.run_count; ++r) {
    const LaneRun& run = job.runs[r];
    for (std::size_t i = 0; i < run.count; ++i) store(run.lane + i, source[run.source + i]);
  }
}

void pack_quads(const PackJob& job, std::size_t lanes, std::uint8_t* panel) {
  for (std::size_t row = 0; row < job.rows; ++row) {
    std::uint8_t* out = panel + row / 4 * lanes * 4 + row % 4;
    gather_row<std::uint8_t>(job, row, [&](std::size_t lane, std::uint8_t value) {
      out[lane * 4] = static_cast<std::uint8_t>(value ^ job.flip);
    });
  }
}

void pack_planar_u8(const PackJob& job, std::size_t lanes, std::uint8_t* panel) {
  for (std::size_t row = 0; row < job.rows; ++row) {
    gather_row<std::uint8_t>(job, row, [&](std::size_t lane, std::uint8_t value) {
      panel[row * lanes + lane] = static_cast<std::uint8_t>(value ^ job.flip);
    });
  }
}

void pack_planar_f32(const PackJob& job, std::size_t lanes, float* panel) {
  for (std::size_t row = 0; row < job.rows; ++row)
    gather_row<float>(job, row, [&](std::size_t lane, float value) { panel[row * lanes + lane] = value; });
}

void shift_u8(const ShiftJob& job, std::size_t lanes, std::uint8_t* panel) {
  for_each_shifted_row(job, lanes, panel,
                       [&](std::ptrdiff_t at, const std::uint8_t* mask, std::uint8_t* out) {
                         pack_shifted_row(job, at, mask, lanes, job.flip, out);
                       });
}

void shift_u32(const ShiftJob& job, std::size_t lanes, std::uint32_t* panel) {
  for_each_shifted_row(job, lanes, panel,
                       [&](std::ptrdiff_t at, const std::uint8_t* mask, std::uint32_t* out) {
                         pack_shifted_row(job, at, mask, lanes, std::uint32_t{0}, out);
                       });
}

void interleave_planes(const std::uint8_t* planes, std::size_t plane_step, std::size_t count,
                       std::uint8_t flip, std::uint8_t* quads) {
  for (std::size_t i = 0; i < 4 * count; ++i)
    quads[i] = static_cast<std::uint8_t>(planes[i % 4 * plane_step + i / 4] ^ flip);
}

template <class T>
void split_rows(const SplitJob<T>& job) {
  for_each_split_row(job, [&](const T* from, T* even, T* odd) { split_columns(job, from, even, odd, 0); });
}

}  // namespace

void install_panel_scalar(PanelKernels& slots) {
  slots.pack_quads = pack_quads;
  slots.pack_planar_u8 = pack_planar_u8;
  slots.pack_planar_f32 = pack_planar_f32;
  slots.shift_u8 = shift_u8;
  slots.shift_u32 = shift_u32;
  slots.interleave = interleave_planes;
  slots.split_u8 = split_rows<std::uint8_t>;
  slots.split_u32 = split_rows<std::uint32_t>;
}

}  // namespace gristmill
