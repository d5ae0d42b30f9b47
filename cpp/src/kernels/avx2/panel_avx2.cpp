#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "panel_kernels.h"

/// Lanes are gathered in groups of one vector: 16 bytes or 8 floats. A group that lies in one run is one
/// load. Otherwise each stretch is loaded by itself and moved to its lanes, where all others are zero:
///
///     run 0  a b c d e f ...   ->   a b c d 0 0 0 0
///     run 1  p q r s t u ...   ->   0 0 0 0 p q r s    or   a b c d p q r s
namespace gristmill {
namespace {

constexpr std::size_t kByteGroup = 16;
constexpr std::size_t kFloatGroup = 8;

[[gnu::always_inline]] inline __m128i load(const std::uint8_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}

[[gnu::always_inline]] inline void store(std::uint8_t* p, __m128i v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), v);
}

/// The stretches of a group of 16 bytes.
struct ByteGroup {
  std::size_t count = 0;
  std::size_t source[kByteGroup];
  __m128i to_lanes[kByteGroup];  // shuffle
  std::uint8_t first[kByteGroup], last[kByteGroup];

  ByteGroup(const PackJob& job, std::size_t group) {
    const __m128i lane = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for_each_stretch(
        job, group, group + kByteGroup, [&](std::size_t from, std::size_t begin, std::size_t end) {
          source[count] = from;
          first[count] = static_cast<std::uint8_t>(begin - group);
          last[count] = static_cast<std::uint8_t>(end - group);
          // Lanes before the stretch become negative, lanes after it all ones: both select zero.
          const __m128i moved = _mm_sub_epi8(lane, _mm_set1_epi8(static_cast<char>(first[count])));
          const __m128i after = _mm_cmpgt_epi8(lane, _mm_set1_epi8(static_cast<char>(last[count] - 1)));
          to_lanes[count++] = _mm_or_si128(moved, after);
        });
  }
};

/// Gathers a group whose stretches number `kCount`, or any number if that is 0.
template <std::size_t kCount>
struct GatherBytes {
  std::size_t count;
  std::size_t source[kCount == 0 ? kByteGroup : kCount];
  __m128i to_lanes[kCount == 0 ? kByteGroup : kCount];

  explicit GatherBytes(const ByteGroup& group) : count(group.count) {
    for (std::size_t i = 0; i < (kCount == 0 ? count : kCount); ++i) {
      source[i] = group.source[i];
      to_lanes[i] = group.to_lanes[i];
    }
  }

  [[gnu::always_inline]] __m128i operator()(const std::uint8_t* row) const {
    if constexpr (kCount == 1) return load(row + source[0]);
    __m128i v = _mm_shuffle_epi8(load(row + source[0]), to_lanes[0]);
    for (std::size_t i = 1; i < (kCount == 0 ? count : kCount); ++i)
      v = _mm_or_si128(v, _mm_shuffle_epi8(load(row + source[i]), to_lanes[i]));
    return v;
  }
};

/// Reads the bytes named and no others.
struct GatherExactBytes {
  const ByteGroup& group;

  __m128i operator()(const std::uint8_t* row) const {
    alignas(16) std::uint8_t lanes[kByteGroup] = {};
    for (std::size_t i = 0; i < group.count; ++i) {
      for (std::size_t lane = group.first[i]; lane < group.last[i]; ++lane)
        lanes[lane] = row[group.source[i] + lane - group.first[i]];
    }
    return load(lanes);
  }
};

/// A range of the rows of one group.
struct GroupRows {
  const PackJob& job;
  std::size_t first, last;
  std::size_t lanes;    // of the panel
  std::size_t width;    // 16, or 8 for the last half group
  std::uint8_t* panel;  // at the group's first lane
};

/// Four rows to quads, 16 lanes:
///
///     a0 a1 ..  b0 b1 ..  c0 c1 ..  d0 d1 ..  ->  a0 b0 a1 b1 ..  c0 d0 c1 d1 ..  ->  a0 b0 c0 d0 a1 ..
[[gnu::always_inline]] inline void store_quads(__m128i a, __m128i b, __m128i c, __m128i d, std::size_t width,
                                               std::uint8_t* out) {
  const __m128i ab = _mm_unpacklo_epi8(a, b), cd = _mm_unpacklo_epi8(c, d);
  store(out, _mm_unpacklo_epi16(ab, cd));
  store(out + 16, _mm_unpackhi_epi16(ab, cd));
  if (width == 8) return;
  const __m128i ab_high = _mm_unpackhi_epi8(a, b), cd_high = _mm_unpackhi_epi8(c, d);
  store(out + 32, _mm_unpacklo_epi16(ab_high, cd_high));
  store(out + 48, _mm_unpackhi_epi16(ab_high, cd_high));
}

struct Quads {
  template <class Gather>
  static void pack(const GroupRows& rows, const Gather gather) {
    const auto* base = static_cast<const std::uint8_t*>(rows.job.base);
    const std::size_t* offset = rows.job.row_offset;
    const __m128i flip = _mm_set1_epi8(static_cast<char>(rows.job.flip));
    const std::size_t width = rows.width;
    std::uint8_t* out = rows.panel + rows.first * rows.lanes;
    const auto row = [&](std::size_t k) { return _mm_xor_si128(gather(base + offset[k]), flip); };
    std::size_t k = rows.first;
    for (; k + 4 <= rows.last; k += 4, out += rows.lanes * 4)
      store_quads(row(k), row(k + 1), row(k + 2), row(k + 3), width, out);
    if (k == rows.last) return;
    const std::size_t end = rows.last - 1;
    store_quads(row(k), row(k + 1 < end ? k + 1 : end), row(k + 2 < end ? k + 2 : end), flip, width, out);
  }
};

struct Planar {
  template <class Gather>
  static void pack(const GroupRows& rows, const Gather gather) {
    const auto* base = static_cast<const std::uint8_t*>(rows.job.base);
    const __m128i flip = _mm_set1_epi8(static_cast<char>(rows.job.flip));
    const std::size_t width = rows.width;
    for (std::size_t k = rows.first; k < rows.last; ++k) {
      const __m128i v = _mm_xor_si128(gather(base + rows.job.row_offset[k]), flip);
      std::uint8_t* out = rows.panel + k * rows.lanes;
      if (width == 8) {
        _mm_storel_epi64(reinterpret_cast<__m128i*>(out), v);
      } else {
        store(out, v);
      }
    }
  }
};

template <class Form>
void pack_loads(const GroupRows& rows, const ByteGroup& group) {
  switch (group.count) {
    case 1:
      return Form::pack(rows, GatherBytes<1>(group));
    case 2:
      return Form::pack(rows, GatherBytes<2>(group));
    case 3:
      return Form::pack(rows, GatherBytes<3>(group));
    default:
      return Form::pack(rows, GatherBytes<0>(group));
  }
}

/// Leading rows, in whole quads, after whose runs a vector's length may be read.
std::size_t rows_with_slack(const PackJob& job) {
  if (job.readable_slack >= kByteGroup - 1) return job.rows;
  std::size_t greatest = 0;
  for (std::size_t k = 0; k < job.rows; ++k)
    greatest = job.row_offset[k] > greatest ? job.row_offset[k] : greatest;
  const std::size_t needed = kByteGroup - 1 - job.readable_slack;
  std::size_t k = 0;
  while (k < job.rows && job.row_offset[k] + needed <= greatest) ++k;
  return k / 4 * 4;
}

template <class Form, std::size_t kPanelBytesPerLane>
void pack_bytes(const PackJob& job, std::size_t lanes, std::uint8_t* panel) {
  const std::size_t fast = rows_with_slack(job);
  for (std::size_t lane = 0; lane < lanes; lane += kByteGroup) {
    const ByteGroup group(job, lane);
    if (group.count == 0) return;
    const std::size_t width = lanes - lane < kByteGroup ? lanes - lane : kByteGroup;
    std::uint8_t* out = panel + lane * kPanelBytesPerLane;
    pack_loads<Form>({job, 0, fast, lanes, width, out}, group);
    if (fast < job.rows)
      Form::pack(GroupRows{job, fast, job.rows, lanes, width, out}, GatherExactBytes{group});
  }
}

/// The stretches of a group of 8 floats. Masked loads read the elements named and no others, so that a
/// stretch is loaded from where its group would start.
struct FloatGroup {
  std::size_t count = 0;
  std::ptrdiff_t source[kFloatGroup];
  __m256i mask[kFloatGroup];

  FloatGroup(const PackJob& job, std::size_t group) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for_each_stretch(
        job, group, group + kFloatGroup, [&](std::size_t from, std::size_t begin, std::size_t end) {
          source[count] = static_cast<std::ptrdiff_t>(from) - static_cast<std::ptrdiff_t>(begin - group);
          mask[count++] = _mm256_andnot_si256(
              _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(begin - group)), lane),
              _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(end - group)), lane));
        });
  }

  bool is_whole() const { return count == 1 && _mm256_movemask_epi8(mask[0]) == -1; }
};

void pack_planar_f32(const PackJob& job, std::size_t lanes, float* panel) {
  const auto* base = static_cast<const float*>(job.base);
  for (std::size_t lane = 0; lane < lanes; lane += kFloatGroup) {
    const FloatGroup group(job, lane);
    if (group.count == 0) return;
    const bool whole = group.is_whole();
    float* out = panel + lane;
    for (std::size_t k = 0; k < job.rows; ++k, out += lanes) {
      const float* row = base + job.row_offset[k];
      if (whole) {
        _mm256_storeu_ps(out, _mm256_loadu_ps(row + group.source[0]));
        continue;
      }
      __m256 v = _mm256_maskload_ps(row + group.source[0], group.mask[0]);
      for (std::size_t i = 1; i < group.count; ++i)
        v = _mm256_or_ps(v, _mm256_maskload_ps(row + group.source[i], group.mask[i]));
      _mm256_storeu_ps(out, v);
    }
  }
}

}  // namespace

void install_panel_avx2(PanelKernels& slots) {
  slots.pack_quads = pack_bytes<Quads, 4>;
  slots.pack_planar_u8 = pack_bytes<Planar, 1>;
  slots.pack_planar_f32 = pack_planar_f32;
}

}  // namespace gristmill
