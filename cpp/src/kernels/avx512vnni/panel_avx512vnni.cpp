#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/unroll.h"
#include "panel_kernels.h"

/// A row of lanes is one vector of bytes, or four of floats, gathered from its runs by masked loads. These
/// read the elements named and no others, so each is loaded from where the vector's lane 0 would be:
///
///     run 0  a b c d - - - -   mask 11110000
///     run 1  - - - - p q r s   mask 00001111   ->   a b c d p q r s
namespace gristmill {
namespace {

constexpr std::size_t kMostLanes = 64;
constexpr __mmask16 kAll = 0xFFFF;

/// The `count` bits from bit `first` on.
std::uint64_t bits(std::size_t first, std::size_t count) {
  return (count >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1) << first;
}

/// The stretches of the lanes of one vector.
struct Group {
  std::size_t count = 0;
  std::ptrdiff_t source[kMostLanes];
  std::uint64_t mask[kMostLanes];

  Group(const PackJob& job, std::size_t lane, std::size_t width) {
    for_each_stretch(job, lane, lane + width, [&](std::size_t from, std::size_t begin, std::size_t end) {
      source[count] = static_cast<std::ptrdiff_t>(from) - static_cast<std::ptrdiff_t>(begin - lane);
      mask[count++] = bits(begin - lane, end - begin);
    });
  }
};

/// Gathers a group whose stretches number `kCount`, or any number if that is 0.
template <std::size_t kCount>
class Gather {
 public:
  explicit Gather(const Group& group) : group_(group) {
    for (std::size_t i = 0; i < kCount; ++i) {
      source_[i] = group.source[i];
      mask_[i] = group.mask[i];
    }
  }

  [[gnu::always_inline]] __m512i operator()(const std::uint8_t* row) const {
    if constexpr (kCount == 0) {
      __m512i v = _mm512_maskz_loadu_epi8(group_.mask[0], row + group_.source[0]);
      for (std::size_t i = 1; i < group_.count; ++i)
        v = _mm512_mask_loadu_epi8(v, group_.mask[i], row + group_.source[i]);
      return v;
    } else {
      __m512i v = _mm512_maskz_loadu_epi8(mask_[0], row + source_[0]);
      for (std::size_t i = 1; i < kCount; ++i) v = _mm512_mask_loadu_epi8(v, mask_[i], row + source_[i]);
      return v;
    }
  }

  [[gnu::always_inline]] __m512 operator()(const float* row) const {
    if constexpr (kCount == 0) {
      __m512 v = _mm512_maskz_loadu_ps(static_cast<__mmask16>(group_.mask[0]), row + group_.source[0]);
      for (std::size_t i = 1; i < group_.count; ++i)
        v = _mm512_mask_loadu_ps(v, static_cast<__mmask16>(group_.mask[i]), row + group_.source[i]);
      return v;
    } else {
      __m512 v = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask_[0]), row + source_[0]);
      for (std::size_t i = 1; i < kCount; ++i)
        v = _mm512_mask_loadu_ps(v, static_cast<__mmask16>(mask_[i]), row + source_[i]);
      return v;
    }
  }

 private:
  const Group& group_;
  std::ptrdiff_t source_[kCount == 0 ? 1 : kCount];
  std::uint64_t mask_[kCount == 0 ? 1 : kCount];
};

/// pack(Gather) with the number of stretches as a constant where it is small.
template <class Pack>
[[gnu::always_inline]] inline void with_gather(const Group& group, Pack pack) {
  switch (group.count) {
    case 0:
      return;
    case 1:
      return pack(Gather<1>(group));
    case 2:
      return pack(Gather<2>(group));
    case 3:
      return pack(Gather<3>(group));
    default:
      return pack(Gather<0>(group));
  }
}

/// Interleaves four rows of up to 64 lanes. Unpacking works within 128-bit quarters, so the dwords of each
/// row are transposed first; number 4i + j of the row goes to place 4j + i:
///
///     row       quarter i:  lanes 16i .. 16i + 15
///     transposed            lanes 4i .. 4i + 3, 16 + 4i .., 32 + 4i .., 48 + 4i ..
///     unpacked 0            quads of lanes 4i .. 4i + 3     = quads 0 .. 15 in order
///     unpacked 1            quads of lanes 16 + 4i ..       = quads 16 .. 31, and so on
template <int kVectors>
[[gnu::always_inline]] inline void interleave(const __m512i (&row)[4], __m512i (&quads)[4]) {
  const __m512i transpose = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  __m512i r[4];
  unroll<4>([&](auto i) GRISTMILL_INLINE { r[i] = _mm512_maskz_permutexvar_epi32(kAll, transpose, row[i]); });
  const __m512i ab = _mm512_unpacklo_epi8(r[0], r[1]), cd = _mm512_unpacklo_epi8(r[2], r[3]);
  quads[0] = _mm512_unpacklo_epi16(ab, cd);
  quads[1] = _mm512_unpackhi_epi16(ab, cd);
  if constexpr (kVectors > 2) {
    const __m512i ab_high = _mm512_unpackhi_epi8(r[0], r[1]), cd_high = _mm512_unpackhi_epi8(r[2], r[3]);
    quads[2] = _mm512_unpacklo_epi16(ab_high, cd_high);
    quads[3] = _mm512_unpackhi_epi16(ab_high, cd_high);
  }
}

template <int kVectors, class GatherRow>
void pack_quad_rows(const PackJob& job, std::size_t lanes, std::uint8_t* panel, const GatherRow gather) {
  const auto* base = static_cast<const std::uint8_t*>(job.base);
  const std::size_t *offset = job.row_offset, rows = job.rows;
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(job.flip));
  const auto last_vector = static_cast<__mmask16>(bits(0, lanes - 16 * (kVectors - 1)));
  for (std::size_t k = 0; k < rows; k += 4, panel += lanes * 4) {
    __m512i row[4], quads[4];
    unroll<4>([&](auto i)
                  GRISTMILL_INLINE { row[i] = gather(base + offset[k + i < rows ? k + i : rows - 1]); });
    interleave<kVectors>(row, quads);
    unroll<kVectors>([&](auto v) GRISTMILL_INLINE {
      const __m512i out = _mm512_xor_si512(quads[v], flip);
      if constexpr (v + 1 < kVectors) {
        _mm512_storeu_si512(panel + 64 * v, out);
      } else {
        _mm512_mask_storeu_epi32(panel + 64 * v, last_vector, out);
      }
    });
  }
}

void pack_quads(const PackJob& job, std::size_t lanes, std::uint8_t* panel) {
  const Group group(job, 0, kMostLanes);
  with_gather(group, [&](const auto& gather) {
    switch ((lanes + 15) / 16) {
      case 1:
        return pack_quad_rows<1>(job, lanes, panel, gather);
      case 2:
        return pack_quad_rows<2>(job, lanes, panel, gather);
      case 3:
        return pack_quad_rows<3>(job, lanes, panel, gather);
      default:
        return pack_quad_rows<4>(job, lanes, panel, gather);
    }
  });
}

void pack_planar_u8(const PackJob& job, std::size_t lanes, std::uint8_t* panel) {
  const Group group(job, 0, kMostLanes);
  with_gather(group, [&](const auto gather) {
    const auto* base = static_cast<const std::uint8_t*>(job.base);
    const std::size_t *offset = job.row_offset, *end = offset + job.rows;
    const __m512i flip = _mm512_set1_epi8(static_cast<char>(job.flip));
    const __mmask64 used = bits(0, lanes);
    for (std::uint8_t* out = panel; offset != end; ++offset, out += lanes)
      _mm512_mask_storeu_epi8(out, used, _mm512_xor_si512(gather(base + *offset), flip));
  });
}

/// Rows whose lanes are one run.
void copy_rows(const PackJob& job, float* panel) {
  const float* base = static_cast<const float*>(job.base) + job.runs[0].source;
  for (std::size_t k = 0; k < job.rows; ++k, panel += kMostLanes) {
    const float* row = base + job.row_offset[k];
    unroll<4>([&](auto i)
                  GRISTMILL_INLINE { _mm512_storeu_ps(panel + 16 * i, _mm512_loadu_ps(row + 16 * i)); });
  }
}

/// In strips of rows, so that what one group has brought into the first-level cache is there for the others.
void pack_planar_f32(const PackJob& job, std::size_t lanes, float* panel) {
  if (job.run_count == 1 && lanes == kMostLanes && job.runs[0].count == kMostLanes)
    return copy_rows(job, panel);
  constexpr std::size_t kStrip = 32;
  const Group groups[] = {{job, 0, 16}, {job, 16, 16}, {job, 32, 16}, {job, 48, 16}};
  const auto* base = static_cast<const float*>(job.base);
  for (std::size_t first = 0; first < job.rows; first += kStrip) {
    const std::size_t *offset = job.row_offset + first,
                      *end = offset + (job.rows - first < kStrip ? job.rows - first : kStrip);
    for (std::size_t lane = 0; lane < lanes; lane += 16) {
      with_gather(groups[lane / 16], [&](const auto gather) {
        const auto used = static_cast<__mmask16>(bits(0, lanes - lane < 16 ? lanes - lane : 16));
        float* out = panel + first * lanes + lane;
        for (const std::size_t* row = offset; row != end; ++row, out += lanes)
          _mm512_mask_storeu_ps(out, used, gather(base + *row));
      });
    }
  }
}

/// Masked loads read no lane that the mask leaves out, so that rows at the edges need no care.
void shift_u8(const ShiftJob& job, std::size_t lanes, std::uint8_t* panel) {
  const auto* base = static_cast<const std::uint8_t*>(job.base);
  const __m512i fill = _mm512_set1_epi8(static_cast<char>(job.fill));
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(job.flip));
  const std::size_t step = job.taps * lanes;
  const __mmask64 used = bits(0, lanes);
  const auto row = [&](__mmask64 inside, const std::uint8_t* from) GRISTMILL_INLINE {
    return _mm512_xor_si512(_mm512_mask_loadu_epi8(fill, inside, from), flip);
  };
  for_each_tap(job, lanes, panel,
               [&](std::ptrdiff_t at, const std::uint8_t* mask, std::uint8_t* out, std::size_t count) {
                 const __mmask64 inside = _mm512_movepi8_mask(_mm512_load_si512(mask));
                 const std::uint8_t* from = base + at;
                 if (lanes == kMostLanes) {
                   for (; count > 0; --count, from += job.plane_step, out += step)
                     _mm512_storeu_si512(out, row(inside, from));
                 } else {
                   for (; count > 0; --count, from += job.plane_step, out += step)
                     _mm512_mask_storeu_epi8(out, used, row(inside, from));
                 }
               });
}

/// Fetches what the same tap of the next plane reads.
template <int kVectors>
void shift_vectors(const ShiftJob& job, std::size_t lanes, std::uint32_t* panel) {
  const auto* base = static_cast<const std::uint32_t*>(job.base);
  const __m512i fill = _mm512_set1_epi32(static_cast<int>(job.fill));
  const auto last_vector = static_cast<__mmask16>(bits(0, lanes - 16 * (kVectors - 1)));
  std::uint64_t inside[kMostShiftTaps];
  for (std::size_t tap = 0; tap < job.taps; ++tap)
    inside[tap] = _mm512_movepi8_mask(_mm512_load_si512(job.masks + kMaskStep * tap));
  for_each_shifted_row(job, lanes, panel,
                       [&](std::ptrdiff_t at, const std::uint8_t* mask, std::uint32_t* out) GRISTMILL_INLINE {
                         const std::uint32_t* from = base + at;
                         const std::uint64_t bits_inside = inside[(mask - job.masks) / kMaskStep];
                         unroll<kVectors>([&](auto v) GRISTMILL_INLINE {
                           __builtin_prefetch(from + job.plane_step + 16 * v);
                           const auto read = static_cast<__mmask16>(bits_inside >> 16 * v);
                           const __m512i row = _mm512_mask_loadu_epi32(fill, read, from + 16 * v);
                           if (v + 1 < kVectors || last_vector == kAll) {
                             _mm512_storeu_si512(out + 16 * v, row);
                           } else {
                             _mm512_mask_storeu_epi32(out + 16 * v, last_vector, row);
                           }
                         });
                       });
}

void shift_u32(const ShiftJob& job, std::size_t lanes, std::uint32_t* panel) {
  switch ((lanes + 15) / 16) {
    case 1:
      return shift_vectors<1>(job, lanes, panel);
    case 2:
      return shift_vectors<2>(job, lanes, panel);
    case 3:
      return shift_vectors<3>(job, lanes, panel);
    default:
      return shift_vectors<4>(job, lanes, panel);
  }
}

void interleave_planes(const std::uint8_t* planes, std::size_t plane_step, std::size_t count,
                       std::uint8_t flip, std::uint8_t* quads) {
  const __m512i flips = _mm512_set1_epi8(static_cast<char>(flip));
  for (std::size_t i = 0; i < count; i += 64) {
    const std::size_t now = count - i < 64 ? count - i : 64;
    __m512i row[4], out[4];
    unroll<4>([&](auto j) GRISTMILL_INLINE {
      row[j] = _mm512_maskz_loadu_epi8(bits(0, now), planes + j * plane_step + i);
    });
    interleave<4>(row, out);
    unroll<4>([&](auto v) GRISTMILL_INLINE {
      const std::size_t first = 16 * v, stored = now <= first ? 0 : now - first < 16 ? now - first : 16;
      _mm512_mask_storeu_epi32(quads + 4 * (i + first), static_cast<__mmask16>(bits(0, stored)),
                               _mm512_xor_si512(out[v], flips));
    });
  }
}

/// The first or second byte of every word is all that is left of it.
void split_u8(const SplitJob<std::uint8_t>& job) {
  const std::size_t last_even = job.evens == 0 ? 0 : 2 * job.evens - 1;
  const std::size_t columns = last_even > 2 * job.odds ? last_even : 2 * job.odds;
  const auto left = [](std::size_t count, std::size_t done) {
    return static_cast<__mmask32>(bits(0, count <= done ? 0 : count - done < 32 ? count - done : 32));
  };
  for (std::size_t c = 0; c < columns; c += 64) {
    const __mmask64 read = bits(0, columns - c < 64 ? columns - c : 64);
    const __mmask32 evens = left(job.evens, c / 2), odds = left(job.odds, c / 2);
    const std::uint8_t* from = job.source + c;
    std::uint8_t *even = job.even + c / 2, *odd = job.odd + c / 2;
    for (std::size_t r = 0; r < job.rows; ++r, from += job.source_step) {
      const __m512i words = _mm512_maskz_loadu_epi8(read, from);
      if (evens != 0) _mm256_mask_storeu_epi8(even, evens, _mm512_cvtepi16_epi8(words));
      if (odds != 0) _mm256_mask_storeu_epi8(odd, odds, _mm512_cvtepi16_epi8(_mm512_srli_epi16(words, 8)));
      even += job.out_step, odd += job.out_step;
    }
  }
}

}  // namespace

void install_panel_avx512vnni(PanelKernels& slots) {
  slots.pack_quads = pack_quads;
  slots.pack_planar_u8 = pack_planar_u8;
  slots.pack_planar_f32 = pack_planar_f32;
  slots.shift_u8 = shift_u8;
  slots.shift_u32 = shift_u32;
  slots.interleave = interleave_planes;
  slots.split_u8 = split_u8;
}

}  // namespace gristmill
