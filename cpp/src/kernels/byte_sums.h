#pragma once

#include <cstddef>
#include <cstdint>

#include "elementwise_kernels.h"
#include "kernels/unroll.h"

/// Sums of bytes (AddBytesJob) on the x86 levels, as templates over the level's vectors. `Level` names
///
///     Bytes, Floats       vectors; kBytes is the number of the former's bytes
///     load, store, load_first, store_first     bytes, or the first few
///     all, all_bytes, all_words                the same number in all elements
///     number<k, is_signed, plain>              byte k of every dword as a float times 2^kExponent<the same>
///     fma, cap            a * b + c rounded once, and min, which yields its second operand if either is NaN
///     rounded             to the nearest s32, ties to even; the least s32 for what does not fit
///     narrow_words, narrow_bytes               saturated, s16 and u8, within 128-bit parts
///     add_words           saturated
///     max, min, flip      of bytes, unsigned
///     order               undoes what taking every fourth byte and narrowing does to the order
///
/// Bytes stay where they are in their dwords: masked instead of moved, byte k is 2^8k times too great, and
/// its ratio that much smaller, which is exact unless it underflows.
///
/// The order of rounding and clamping does not matter but for what does not fit s32: plain sums do fit.
/// Others are capped first; below, what does not fit becomes the least s32, which saturates.
///
/// Sums are `bounded` unless the bounds are those of u8, to which narrowing saturates.
namespace gristmill {
namespace {

template <class Level, bool signed_a, bool signed_b, bool plain, bool bounded>
class ByteSums {
 public:
  explicit ByteSums(const AddBytesJob& job)
      : job_(job),
        fixed_(Level::all(job.fixed)),
        high_(Level::all(job.high)),
        raise_(Level::all_words(job.sign_out)),
        flip_(Level::all_bytes(job.sign_out)),
        low_byte_(Level::all_bytes(static_cast<std::int32_t>(job.low) + job.sign_out)),
        high_byte_(Level::all_bytes(static_cast<std::int32_t>(job.high) + job.sign_out)) {
    unroll<4>([&](auto k) GRISTMILL_INLINE {
      ratio_a_[k] = Level::all(scaled<k.value, signed_a>(job.ratio_a));
      ratio_b_[k] = Level::all(scaled<k.value, signed_b>(job.ratio_b));
    });
  }

  void run() const {
    for (std::size_t row = 0; row < job_.rows; ++row) {
      const std::size_t first = row * job_.stride, end = first + job_.count;
      if (job_.count >= Level::kBytes) {
        add_row(first, end - Level::kBytes);
      } else {
        const auto a = Level::load_first(job_.a + first, job_.count);
        const auto b = Level::load_first(job_.b + first, job_.count);
        Level::store_first(job_.out + first, sum(a, b), job_.count);
      }
    }
  }

 private:
  using Bytes = typename Level::Bytes;
  using Floats = typename Level::Floats;

  /// A row whose last vector, at `last`, may overlap the one before: it is read before sums take the place of
  /// an operand. Each vector fetches what the next row will read in its place: processors foresee neither
  /// where rows end nor where the next begins.
  void add_row(std::size_t first, std::size_t last) const {
    const Bytes last_a = Level::load(job_.a + last), last_b = Level::load(job_.b + last);
    for (std::size_t i = first; i < last; i += Level::kBytes) {
      __builtin_prefetch(job_.a + i + job_.stride);
      __builtin_prefetch(job_.b + i + job_.stride);
      Level::store(job_.out + i, sum(Level::load(job_.a + i), Level::load(job_.b + i)));
    }
    Level::store(job_.out + last, sum(last_a, last_b));
  }

  template <int k, bool is_signed>
  static float scaled(float ratio) {
    return ratio / static_cast<float>(1 << Level::template kExponent<k, is_signed, plain>);
  }

  [[gnu::always_inline]] Bytes sum(Bytes a, Bytes b) const {
    Bytes q[4];
    unroll<4>([&](auto k) GRISTMILL_INLINE {
      const Floats real_a = Level::template number<k.value, signed_a, plain>(a);
      const Floats real_b = Level::template number<k.value, signed_b, plain>(b);
      const Floats value = Level::fma(real_a, ratio_a_[k], Level::fma(real_b, ratio_b_[k], fixed_));
      q[k] = Level::rounded(plain ? value : Level::cap(high_, value));
    });
    Bytes low = Level::narrow_words(q[0], q[1]), high = Level::narrow_words(q[2], q[3]);
    if (bounded) {
      low = Level::add_words(low, raise_);
      high = Level::add_words(high, raise_);
    }
    const Bytes bytes = Level::order(Level::narrow_bytes(low, high));
    return bounded ? Level::flip(Level::min(Level::max(bytes, low_byte_), high_byte_), flip_) : bytes;
  }

  const AddBytesJob& job_;
  Floats ratio_a_[4], ratio_b_[4], fixed_, high_;
  Bytes raise_, flip_, low_byte_, high_byte_;
};

template <class Level, bool plain>
void add_bytes_signed(const AddBytesJob& job) {
  const bool signed_a = job.sign_a != 0, signed_b = job.sign_b != 0;
  if (signed_a && signed_b) return ByteSums<Level, true, true, plain, true>(job).run();
  if (signed_a) return ByteSums<Level, true, false, plain, true>(job).run();
  if (signed_b) return ByteSums<Level, false, true, plain, true>(job).run();
  if constexpr (plain) {
    if (job.sign_out == 0 && job.low == 0 && job.high == 255)
      return ByteSums<Level, false, false, true, false>(job).run();
  }
  ByteSums<Level, false, false, plain, true>(job).run();
}

template <class Level>
void add_bytes(const AddBytesJob& job) {
  constexpr float kLeastRatio = 0x1p-100f, kGreatest = 0x1p30f;
  const bool scalable = job.ratio_a >= kLeastRatio && job.ratio_b >= kLeastRatio;
  const bool fits =
      (job.ratio_a + job.ratio_b) * 256.0f < kGreatest && job.fixed < kGreatest && -job.fixed < kGreatest;
  scalable&& fits ? add_bytes_signed<Level, true>(job) : add_bytes_signed<Level, false>(job);
}

}  // namespace
}  // namespace gristmill
