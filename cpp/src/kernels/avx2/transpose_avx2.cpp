#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "kernels/unroll.h"
#include "transpose_kernels.h"

/// Square tiles are transposed in registers, 16 x 16 bytes or 8 x 8 words. Each step interleaves row i with
/// row i + half; as many steps as it takes to bring every element to its place make the transpose. Tiles at
/// the edges go through a buffer.
namespace gristmill {
namespace {

struct Bytes {
  using Element = std::uint8_t;
  using Vector = __m128i;
  static constexpr std::size_t kSide = 16;
  static constexpr bool kTakesFewRows = false;

  static Vector load(const char* p) { return _mm_loadu_si128(reinterpret_cast<const Vector*>(p)); }
  static void store(char* p, Vector v) { _mm_storeu_si128(reinterpret_cast<Vector*>(p), v); }
  static Vector broadcast(Element value) { return _mm_set1_epi8(static_cast<char>(value)); }
  static Vector flip(Vector v, Vector with) { return _mm_xor_si128(v, with); }

  [[gnu::always_inline]] static void transpose(Vector (&row)[16]) {
    unroll<4>([&](auto) GRISTMILL_INLINE {
      Vector mixed[16];
      unroll<8>([&](auto i) GRISTMILL_INLINE {
        mixed[2 * i] = _mm_unpacklo_epi8(row[i], row[i + 8]);
        mixed[2 * i + 1] = _mm_unpackhi_epi8(row[i], row[i + 8]);
      });
      unroll<16>([&](auto i) GRISTMILL_INLINE { row[i] = mixed[i]; });
    });
  }
};

struct Words {
  using Element = std::uint32_t;
  using Vector = __m256i;
  static constexpr std::size_t kSide = 8;
  static constexpr bool kTakesFewRows = true;

  static Vector load(const char* p) { return _mm256_loadu_si256(reinterpret_cast<const Vector*>(p)); }
  static void store(char* p, Vector v) { _mm256_storeu_si256(reinterpret_cast<Vector*>(p), v); }
  static Vector broadcast(Element value) { return _mm256_set1_epi32(static_cast<int>(value)); }
  static Vector flip(Vector v, Vector with) { return _mm256_xor_si256(v, with); }

  /// Unpacking works within 128-bit parts; the last step exchanges those.
  [[gnu::always_inline]] static void transpose(Vector (&row)[8]) {
    Vector part[8];
    transpose_four(row, part);
    transpose_four(row + 4, part + 4);
    unroll<4>([&](auto i) GRISTMILL_INLINE {
      row[i] = _mm256_permute2x128_si256(part[i], part[i + 4], 0x20);
      row[i + 4] = _mm256_permute2x128_si256(part[i], part[i + 4], 0x31);
    });
  }

  /// A tile of fewer rows, such as the row blocks of weights have.
  [[gnu::always_inline]] static void few_rows(const char* from, std::size_t from_stride, char* to,
                                              std::size_t to_stride, std::size_t rows, Vector flip) {
    for (std::size_t first = 0; first < rows; first += 4, from += 4 * from_stride, to += 16) {
      const std::size_t count = rows - first;
      Vector row[4], part[4];
      unroll<4>([&](auto i) GRISTMILL_INLINE {
        row[i] = i < count ? load(from + i * from_stride) : _mm256_setzero_si256();
      });
      transpose_four(row, part);
      unroll<4>([&](auto i) GRISTMILL_INLINE {
        part[i] = Words::flip(part[i], flip);
        store_few(to + i * to_stride, _mm256_castsi256_si128(part[i]), count);
        store_few(to + (i + 4) * to_stride, _mm256_extracti128_si256(part[i], 1), count);
      });
    }
  }

 private:
  /// Columns i and i + 4 of four rows, in the two halves of column[i].
  [[gnu::always_inline]] static void transpose_four(const Vector* r, Vector* column) {
    const Vector low02 = _mm256_unpacklo_epi32(r[0], r[2]), low13 = _mm256_unpacklo_epi32(r[1], r[3]);
    const Vector high02 = _mm256_unpackhi_epi32(r[0], r[2]), high13 = _mm256_unpackhi_epi32(r[1], r[3]);
    column[0] = _mm256_unpacklo_epi32(low02, low13);
    column[1] = _mm256_unpackhi_epi32(low02, low13);
    column[2] = _mm256_unpacklo_epi32(high02, high13);
    column[3] = _mm256_unpackhi_epi32(high02, high13);
  }

  /// The first words of four, or all of them.
  [[gnu::always_inline]] static void store_few(char* p, __m128i words, std::size_t count) {
    if (count >= 4) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(p), words);
      return;
    }
    if (count >= 2) _mm_storel_epi64(reinterpret_cast<__m128i*>(p), words);
    if (count == 1) _mm_storeu_si32(p, words);
    if (count == 3) _mm_storeu_si32(p + 8, _mm_unpackhi_epi64(words, words));
  }
};

/// Addresses are of bytes.
template <class Form>
struct Tiles {
  using Element = typename Form::Element;
  using Vector = typename Form::Vector;
  static constexpr std::size_t kSide = Form::kSide, kSize = sizeof(Element), kLine = kSide * kSize;

  [[gnu::always_inline]] static void tile(const char* from, std::size_t from_stride, char* to,
                                          std::size_t to_stride, Vector flip) {
    Vector row[kSide];
    unroll<kSide>([&](auto i) GRISTMILL_INLINE { row[i] = Form::load(from + i * from_stride); });
    Form::transpose(row);
    unroll<kSide>([&](auto i)
                      GRISTMILL_INLINE { Form::store(to + i * to_stride, Form::flip(row[i], flip)); });
  }

  /// A tile of which only some rows or columns are there.
  static void part_of_tile(const char* from, std::size_t from_stride, char* to, std::size_t to_stride,
                           std::size_t rows, std::size_t columns, Vector flip) {
    if constexpr (Form::kTakesFewRows)
      if (columns == kSide) return Form::few_rows(from, from_stride, to, to_stride, rows, flip);
    char in[kSide * kLine] = {}, out[kSide * kLine];
    for (std::size_t r = 0; r < rows; ++r) copy(from + r * from_stride, in + r * kLine, columns);
    tile(in, kLine, out, kLine, flip);
    for (std::size_t c = 0; c < columns; ++c) copy(out + c * kLine, to + c * to_stride, rows);
  }

  static void transpose(const TransposeJob<Element>& job) {
    const Vector flip = Form::broadcast(job.flip);
    for (std::size_t column = 0; column < job.columns; column += kSide) {
      for (std::size_t row = 0; row < job.rows; row += kSide) {
        const char* from = static_cast<const char*>(job.from) + row * job.from_stride + column * kSize;
        char* to = static_cast<char*>(job.to) + column * job.to_stride + row * kSize;
        const std::size_t rows = job.rows - row, columns = job.columns - column;
        if (rows >= kSide && columns >= kSide)
          tile(from, job.from_stride, to, job.to_stride, flip);
        else
          part_of_tile(from, job.from_stride, to, job.to_stride, rows < kSide ? rows : kSide,
                       columns < kSide ? columns : kSide, flip);
      }
    }
  }

 private:
  static void copy(const char* from, char* to, std::size_t count) {
    if (count == kSide)
      Form::store(to, Form::load(from));
    else
      for (std::size_t i = 0; i < count * kSize; ++i) to[i] = from[i];
  }
};

}  // namespace

void install_transpose_avx2(TransposeKernels& slots) {
  slots.bytes = Tiles<Bytes>::transpose;
  slots.words = Tiles<Words>::transpose;
}

}  // namespace gristmill
