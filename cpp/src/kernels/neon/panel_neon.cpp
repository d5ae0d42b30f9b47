#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "panel_kernels.h"

/// Runs are packed one by one, each through all rows, in vectors and then halves of them. Where fewer lanes
/// are left than the least step takes, the last step starts early and writes some lanes twice: nothing beyond
/// a run is read.
///
///     run of 15 lanes    |0 . . . . . . 7|8 . . 11|
///                                              |11 . . 14|
namespace gristmill {
namespace {

/// Rows k..k+3 from the first element of a run on; beyond the last row, the last row again.
struct FourRows {
  const std::uint8_t* row[4];

  [[gnu::always_inline]] FourRows(const PackJob& job, const LaneRun& run, std::size_t k) {
    const auto* base = static_cast<const std::uint8_t*>(job.base) + run.source;
    for (std::size_t i = 0; i < 4; ++i)
      row[i] = base + job.row_offset[k + i < job.rows ? k + i : job.rows - 1];
  }
};

/// The first 4 * `vectors` lanes of four rows to quads:
///
///     a0 a1 ..  b0 b1 ..  c0 c1 ..  d0 d1 ..  ->  a0 b0 a1 b1 ..  c0 d0 c1 d1 ..  ->  a0 b0 c0 d0 a1 ..
template <int vectors>
[[gnu::always_inline]] inline void store_quads(uint8x16_t a, uint8x16_t b, uint8x16_t c, uint8x16_t d,
                                               uint8x16_t flip, std::uint8_t* out) {
  const auto quads = [&](uint16x8_t zipped) { return veorq_u8(vreinterpretq_u8_u16(zipped), flip); };
  const uint16x8_t ab = vreinterpretq_u16_u8(vzip1q_u8(a, b)), cd = vreinterpretq_u16_u8(vzip1q_u8(c, d));
  vst1q_u8(out, quads(vzip1q_u16(ab, cd)));
  vst1q_u8(out + 16, quads(vzip2q_u16(ab, cd)));
  if constexpr (vectors == 4) {
    const uint16x8_t ab_high = vreinterpretq_u16_u8(vzip2q_u8(a, b));
    const uint16x8_t cd_high = vreinterpretq_u16_u8(vzip2q_u8(c, d));
    vst1q_u8(out + 32, quads(vzip1q_u16(ab_high, cd_high)));
    vst1q_u8(out + 48, quads(vzip2q_u16(ab_high, cd_high)));
  }
}

[[gnu::always_inline]] inline uint8x16_t load_half(const std::uint8_t* from) {
  return vcombine_u8(vld1_u8(from), vdup_n_u8(0));
}

/// Four lanes of four rows, a transposed 4x4 square of bytes.
[[gnu::always_inline]] inline void store_square(const FourRows& rows, std::size_t lane, uint8x16_t flip,
                                                std::uint8_t* out) {
  static constexpr std::uint8_t kTransposed[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  std::uint32_t words[4];
  for (int i = 0; i < 4; ++i) __builtin_memcpy(&words[i], rows.row[i] + lane, 4);
  const uint8x16_t square = vreinterpretq_u8_u32(uint32x4_t{words[0], words[1], words[2], words[3]});
  vst1q_u8(out, veorq_u8(vqtbl1q_u8(square, vld1q_u8(kTransposed)), flip));
}

[[gnu::always_inline]] inline void pack_run(const FourRows& rows, std::size_t count, uint8x16_t flip,
                                            std::uint8_t* out) {
  const auto at = [&](int i, std::size_t lane) { return rows.row[i] + lane; };
  std::size_t lane = 0;
  for (; lane + 16 <= count; lane += 16) {
    store_quads<4>(vld1q_u8(at(0, lane)), vld1q_u8(at(1, lane)), vld1q_u8(at(2, lane)), vld1q_u8(at(3, lane)),
                   flip, out + 4 * lane);
  }
  if (lane + 8 <= count) {
    store_quads<2>(load_half(at(0, lane)), load_half(at(1, lane)), load_half(at(2, lane)),
                   load_half(at(3, lane)), flip, out + 4 * lane);
    lane += 8;
  }
  if (lane + 4 <= count) {
    store_square(rows, lane, flip, out + 4 * lane);
    lane += 4;
  }
  if (lane == count) return;
  if (count >= 4) return store_square(rows, count - 4, flip, out + 4 * (count - 4));
  for (; lane < count; ++lane) {
    for (int i = 0; i < 4; ++i) {
      out[4 * lane + i] = static_cast<std::uint8_t>(*at(i, lane) ^ vgetq_lane_u8(flip, 0));
    }
  }
}

void pack_quads(const PackJob& job, std::size_t lanes, std::uint8_t* panel) {
  const uint8x16_t flip = vdupq_n_u8(job.flip);
  for (std::size_t r = 0; r < job.run_count; ++r) {
    const LaneRun run = job.runs[r];
    std::uint8_t* out = panel + 4 * run.lane;
    for (std::size_t k = 0; k < job.rows; k += 4, out += 4 * lanes) {
      pack_run(FourRows(job, run, k), run.count, flip, out);
    }
  }
}

/// out[i] = from[i] ^ flip
[[gnu::always_inline]] inline void copy_run(const std::uint8_t* from, std::size_t count, uint8x16_t flip,
                                            std::uint8_t* out) {
  const auto copy_half = [&](std::size_t i) {
    vst1_u8(out + i, veor_u8(vld1_u8(from + i), vget_low_u8(flip)));
  };
  std::size_t i = 0;
  for (; i + 16 <= count; i += 16) vst1q_u8(out + i, veorq_u8(vld1q_u8(from + i), flip));
  if (i + 8 <= count) {
    copy_half(i);
    i += 8;
  }
  if (i == count) return;
  if (count >= 8) return copy_half(count - 8);
  for (; i < count; ++i) out[i] = static_cast<std::uint8_t>(from[i] ^ vgetq_lane_u8(flip, 0));
}

[[gnu::always_inline]] inline void copy_run(const float* from, std::size_t count, float* out) {
  std::size_t i = 0;
  for (; i + 4 <= count; i += 4) vst1q_f32(out + i, vld1q_f32(from + i));
  if (i == count) return;
  if (count >= 4) return vst1q_f32(out + count - 4, vld1q_f32(from + count - 4));
  for (; i < count; ++i) out[i] = from[i];
}

/// copy(source, count, out) for every run of every row.
template <class T, class Copy>
[[gnu::always_inline]] inline void pack_planar(const PackJob& job, std::size_t lanes, T* panel, Copy copy) {
  const auto* base = static_cast<const T*>(job.base);
  for (std::size_t r = 0; r < job.run_count; ++r) {
    const LaneRun run = job.runs[r];
    T* out = panel + run.lane;
    for (std::size_t k = 0; k < job.rows; ++k, out += lanes) {
      copy(base + job.row_offset[k] + run.source, run.count, out);
    }
  }
}

void pack_planar_u8(const PackJob& job, std::size_t lanes, std::uint8_t* panel) {
  const uint8x16_t flip = vdupq_n_u8(job.flip);
  pack_planar(job, lanes, panel, [=](const std::uint8_t* from, std::size_t count, std::uint8_t* out) {
    copy_run(from, count, flip, out);
  });
}

void pack_planar_f32(const PackJob& job, std::size_t lanes, float* panel) {
  pack_planar(job, lanes, panel,
              [](const float* from, std::size_t count, float* out) { copy_run(from, count, out); });
}

/// select(from, mask, out) for each row that may be read as a whole.
template <class T, class Select>
[[gnu::always_inline]] inline void shift(const ShiftJob& job, std::size_t lanes, T flip, T* panel,
                                         Select select) {
  const auto* base = static_cast<const T*>(job.base);
  for_each_shifted_row(job, lanes, panel, [&](std::ptrdiff_t at, const std::uint8_t* mask, T* out) {
    if (!is_readable(job, at, lanes)) return pack_shifted_row(job, at, mask, lanes, flip, out);
    select(base + at, mask, out);
  });
}

void shift_u8(const ShiftJob& job, std::size_t lanes, std::uint8_t* panel) {
  const uint8x16_t fill = vdupq_n_u8(static_cast<std::uint8_t>(job.fill)), flip = vdupq_n_u8(job.flip);
  shift(job, lanes, job.flip, panel,
        [&](const std::uint8_t* from, const std::uint8_t* mask, std::uint8_t* out) {
          std::size_t lane = 0;
          for (; lane + 16 <= lanes; lane += 16)
            vst1q_u8(out + lane,
                     veorq_u8(vbslq_u8(vld1q_u8(mask + lane), vld1q_u8(from + lane), fill), flip));
          for (; lane < lanes; ++lane)
            out[lane] = static_cast<std::uint8_t>((mask[lane] != 0 ? from[lane] : job.fill) ^ job.flip);
        });
}

void shift_u32(const ShiftJob& job, std::size_t lanes, std::uint32_t* panel) {
  const uint32x4_t fill = vdupq_n_u32(job.fill);
  shift(job, lanes, std::uint32_t{0}, panel,
        [&](const std::uint32_t* from, const std::uint8_t* mask, std::uint32_t* out) {
          for (std::size_t lane = 0; lane < lanes; lane += 4) {
            std::uint32_t four;
            __builtin_memcpy(&four, mask + lane, 4);
            const uint32x4_t inside = vreinterpretq_u32_s32(
                vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(four))))));
            vst1q_u32(out + lane, vbslq_u32(inside, vld1q_u32(from + lane), fill));
          }
        });
}

void interleave_planes(const std::uint8_t* planes, std::size_t plane_step, std::size_t count,
                       std::uint8_t flip, std::uint8_t* quads) {
  const uint8x16_t flips = vdupq_n_u8(flip);
  std::size_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const auto row = [&](std::size_t j) { return vld1q_u8(planes + j * plane_step + i); };
    store_quads<4>(row(0), row(1), row(2), row(3), flips, quads + 4 * i);
  }
  for (; i < count; ++i) {
    for (std::size_t j = 0; j < 4; ++j)
      quads[4 * i + j] = static_cast<std::uint8_t>(planes[j * plane_step + i] ^ flip);
  }
}

}  // namespace

void install_panel_neon(PanelKernels& slots) {
  slots.pack_quads = pack_quads;
  slots.pack_planar_u8 = pack_planar_u8;
  slots.pack_planar_f32 = pack_planar_f32;
  slots.shift_u8 = shift_u8;
  slots.shift_u32 = shift_u32;
  slots.interleave = interleave_planes;
}

}  // namespace gristmill
