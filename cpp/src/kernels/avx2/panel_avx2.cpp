#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/unroll.h"
#include "panel_kernels.h"

/// Quads are made in registers, 16 lanes at a time. A group of lanes that lies in one run is one load.
/// Otherwise each stretch of it is loaded by itself and moved to its lanes, where all others are zero:
///
///     run 0  a b c d e f ...   ->   a b c d 0 0 0 0
///     run 1  p q r s t u ...   ->   0 0 0 0 p q r s    or   a b c d p q r s
namespace gristmill {
namespace {

constexpr std::size_t kGroup = 16;

[[gnu::always_inline]] inline __m128i load(const std::uint8_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}

[[gnu::always_inline]] inline void store(std::uint8_t* p, __m128i v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), v);
}

/// The stretches of a group of 16 lanes.
struct Group {
  std::size_t count = 0;
  std::size_t source[kGroup];
  __m128i to_lanes[kGroup];  // shuffle
  std::uint8_t first[kGroup], last[kGroup];

  Group(const PackJob& job, std::size_t group) {
    const __m128i lane = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for_each_stretch(job, group, group + kGroup, [&](std::size_t from, std::size_t begin, std::size_t end) {
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
struct Gather {
  std::size_t count;
  std::size_t source[kCount == 0 ? kGroup : kCount];
  __m128i to_lanes[kCount == 0 ? kGroup : kCount];

  explicit Gather(const Group& group) : count(group.count) {
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
struct GatherExact {
  const Group& group;

  __m128i operator()(const std::uint8_t* row) const {
    alignas(16) std::uint8_t lanes[kGroup] = {};
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

/// Leading rows, in whole quads, after whose runs `reach` more elements may be read.
std::size_t rows_with_slack(const PackJob& job, std::size_t reach) {
  if (job.readable_slack >= reach) return job.rows;
  std::size_t greatest = 0;
  for (std::size_t k = 0; k < job.rows; ++k)
    greatest = job.row_offset[k] > greatest ? job.row_offset[k] : greatest;
  std::size_t k = 0;
  while (k < job.rows && job.row_offset[k] + reach - job.readable_slack <= greatest) ++k;
  return k / 4 * 4;
}

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
  static constexpr std::size_t kBytesPerLane = 4;

  template <class GatherRow>
  static void pack(const GroupRows& rows, const GatherRow gather) {
    const auto* base = static_cast<const std::uint8_t*>(rows.job.base);
    const std::size_t* offset = rows.job.row_offset;
    const __m128i flip = _mm_set1_epi8(static_cast<char>(rows.job.flip));
    const std::size_t width = rows.width, last = rows.last, quad_step = rows.lanes * 4;
    std::uint8_t* out = rows.panel + rows.first * rows.lanes;
    const auto row = [&](std::size_t k) { return _mm_xor_si128(gather(base + offset[k]), flip); };
    std::size_t k = rows.first;
    for (; k + 4 <= last; k += 4, out += quad_step)
      store_quads(row(k), row(k + 1), row(k + 2), row(k + 3), width, out);
    if (k == last) return;
    const std::size_t end = last - 1;
    store_quads(row(k), row(k + 1 < end ? k + 1 : end), row(k + 2 < end ? k + 2 : end), flip, width, out);
  }
};

struct Planar {
  static constexpr std::size_t kBytesPerLane = 1;

  template <class GatherRow>
  static void pack(const GroupRows& rows, const GatherRow gather) {
    const auto* base = static_cast<const std::uint8_t*>(rows.job.base);
    const __m128i flip = _mm_set1_epi8(static_cast<char>(rows.job.flip));
    const std::size_t width = rows.width, lanes = rows.lanes;
    const std::size_t *offset = rows.job.row_offset + rows.first, *end = rows.job.row_offset + rows.last;
    std::uint8_t* out = rows.panel + rows.first * lanes;
    for (; offset != end; ++offset, out += lanes) {
      const __m128i v = _mm_xor_si128(gather(base + *offset), flip);
      if (width == 8) {
        _mm_storel_epi64(reinterpret_cast<__m128i*>(out), v);
      } else {
        store(out, v);
      }
    }
  }
};

template <class Form>
void pack_loads(const GroupRows& rows, const Group& group) {
  switch (group.count) {
    case 1:
      return Form::pack(rows, Gather<1>(group));
    case 2:
      return Form::pack(rows, Gather<2>(group));
    case 3:
      return Form::pack(rows, Gather<3>(group));
    default:
      return Form::pack(rows, Gather<0>(group));
  }
}

template <class Form>
void pack_bytes(const PackJob& job, std::size_t lanes, std::uint8_t* panel) {
  const std::size_t fast = rows_with_slack(job, kGroup - 1);
  for (std::size_t lane = 0; lane < lanes; lane += kGroup) {
    const Group group(job, lane);
    if (group.count == 0) return;
    const std::size_t width = lanes - lane < kGroup ? lanes - lane : kGroup;
    std::uint8_t* out = panel + lane * Form::kBytesPerLane;
    pack_loads<Form>({job, 0, fast, lanes, width, out}, group);
    if (fast < job.rows) Form::pack(GroupRows{job, fast, job.rows, lanes, width, out}, GatherExact{group});
  }
}

/// The stretches of a group of 8 floats. A stretch is loaded from where its group would start, and other
/// lanes of it are masked: by the load, which then reads the elements named and no others but is many times
/// slower on some processors, or after it, where none of them is before the first stretch.
struct FloatGroup {
  static constexpr std::size_t kLanes = 8;
  std::size_t count = 0;
  bool ascending = true;  ///< whether no stretch starts before the first one
  std::ptrdiff_t source[kLanes];
  __m256i mask[kLanes];  ///< none of the lanes beyond the count

  FloatGroup(const PackJob& job, std::size_t group) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for_each_stretch(job, group, group + kLanes, [&](std::size_t from, std::size_t begin, std::size_t end) {
      source[count] = static_cast<std::ptrdiff_t>(from) - static_cast<std::ptrdiff_t>(begin - group);
      ascending = ascending && source[count] >= source[0];
      const __m256i first = _mm256_set1_epi32(static_cast<int>(begin - group));
      const __m256i last = _mm256_set1_epi32(static_cast<int>(end - group));
      mask[count++] = _mm256_andnot_si256(_mm256_cmpgt_epi32(first, lane), _mm256_cmpgt_epi32(last, lane));
    });
    for (std::size_t i = count; i < kLanes; ++i) {
      source[i] = source[0];
      mask[i] = _mm256_setzero_si256();
    }
  }
};

template <bool kWhole>
[[gnu::always_inline]] inline __m256 load_floats(const float* from, __m256i mask) {
  if constexpr (kWhole) return _mm256_and_ps(_mm256_loadu_ps(from), _mm256_castsi256_ps(mask));
  return _mm256_maskload_ps(from, mask);
}

/// Packs rows first .. last of a group of floats whose stretches number `kCount`.
template <std::size_t kCount, bool kWhole>
void pack_floats(const PackJob& job, const FloatGroup& group, std::size_t first, std::size_t last,
                 std::size_t lanes, float* panel) {
  std::ptrdiff_t source[kCount];
  __m256i mask[kCount];
  for (std::size_t i = 0; i < kCount; ++i) {
    source[i] = group.source[i];
    mask[i] = group.mask[i];
  }
  const auto* base = static_cast<const float*>(job.base);
  const std::size_t *offset = job.row_offset + first, *end = job.row_offset + last;
  for (panel += first * lanes; offset != end; ++offset, panel += lanes) {
    const float* row = base + *offset;
    __m256 v = load_floats<kWhole>(row + source[0], mask[0]);
    for (std::size_t i = 1; i < kCount; ++i)
      v = _mm256_or_ps(v, load_floats<kWhole>(row + source[i], mask[i]));
    _mm256_storeu_ps(panel, v);
  }
}

template <std::size_t kCount>
void pack_group(const PackJob& job, const FloatGroup& group, std::size_t first, std::size_t fast,
                std::size_t lanes, float* panel) {
  pack_floats<kCount, true>(job, group, first, fast, lanes, panel);
  pack_floats<kCount, false>(job, group, fast, job.rows, lanes, panel);
}

/// Copies the rows of a job of one run, each at a time, with no more vectors than the run fills. Processors
/// do not foresee where the next rows are, for they lie apart; so these are fetched ahead.
template <std::size_t kVectors>
void copy_rows(const PackJob& job, std::size_t rows, std::size_t lanes, float* panel) {
  constexpr std::size_t kAhead = 6, kLine = 16;
  if constexpr (kVectors > 1) {
    if (job.runs->count <= (kVectors - 1) * FloatGroup::kLanes)
      return copy_rows<kVectors - 1>(job, rows, lanes, panel);
  }
  const float* base = static_cast<const float*>(job.base) + job.runs->source;
  for (std::size_t k = 0; k < rows; ++k, panel += lanes) {
    const float *row = base + job.row_offset[k],
                *ahead = base + job.row_offset[k + kAhead < rows ? k + kAhead : rows - 1];
    for (std::size_t lane = 0; lane < kVectors * FloatGroup::kLanes; lane += kLine)
      __builtin_prefetch(ahead + lane);
    unroll<kVectors>([&](auto v) GRISTMILL_INLINE {
      _mm256_storeu_ps(panel + v * FloatGroup::kLanes, _mm256_loadu_ps(row + v * FloatGroup::kLanes));
    });
  }
}

void pack_planar_f32(const PackJob& job, std::size_t lanes, float* panel) {
  const std::size_t with_slack = rows_with_slack(job, FloatGroup::kLanes - 1);
  const std::size_t copied = job.run_count == 1 ? with_slack : 0;
  if (copied > 0) copy_rows<kMaskStep / FloatGroup::kLanes>(job, copied, lanes, panel);
  if (copied == job.rows) return;
  for (std::size_t lane = 0; lane < lanes; lane += FloatGroup::kLanes) {
    const FloatGroup group(job, lane);
    const std::size_t fast = group.ascending ? with_slack : 0;
    switch (group.count) {
      case 0:
        return;
      case 1:
        pack_group<1>(job, group, copied, fast, lanes, panel + lane);
        break;
      case 2:
        pack_group<2>(job, group, copied, fast, lanes, panel + lane);
        break;
      case 3:
        pack_group<3>(job, group, copied, fast, lanes, panel + lane);
        break;
      default:
        pack_group<FloatGroup::kLanes>(job, group, copied, fast, lanes, panel + lane);
    }
  }
}

void interleave_planes(const std::uint8_t* planes, std::size_t plane_step, std::size_t count,
                       std::uint8_t flip, std::uint8_t* quads) {
  const __m128i flips = _mm_set1_epi8(static_cast<char>(flip));
  std::size_t i = 0;
  for (; i + 16 <= count; i += 16) {
    const auto row = [&](std::size_t j) {
      return _mm_xor_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(planes + j * plane_step + i)),
                           flips);
    };
    store_quads(row(0), row(1), row(2), row(3), 16, quads + 4 * i);
  }
  for (; i < count; ++i) {
    for (std::size_t j = 0; j < 4; ++j)
      quads[4 * i + j] = static_cast<std::uint8_t>(planes[j * plane_step + i] ^ flip);
  }
}

}  // namespace

void install_panel_avx2(PanelKernels& slots) {
  slots.pack_quads = pack_bytes<Quads>;
  slots.pack_planar_u8 = pack_bytes<Planar>;
  slots.pack_planar_f32 = pack_planar_f32;
  slots.interleave = interleave_planes;
}

}  // namespace gristmill
