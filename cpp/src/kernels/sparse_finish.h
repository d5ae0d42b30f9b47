#pragma once

#include <cstddef>
#include <cstdint>

#include "epilogue_kernels.h"
#include "kernels/unroll.h"
#include "sparse_kernels.h"

/// What becomes of the int8 sums of a row at the x86 levels, as templates over the level of
/// kernels/sparse_formats.h.
namespace gristmill {
namespace {

/// The epilogue of sums that begin with the bias of their channel.
template <class Level>
class FinishS8 {
 public:
  using Vector = typename Level::Vector;

  explicit FinishS8(const SparseJob& job)
      : job_(job),
        channels_(*static_cast<const EpilogueS8*>(job.epilogue)),
        epilogue_(channels_),
        row_bytes_(job.out_stride *
                   (channels_.type == OutputType::u8 || channels_.type == OutputType::s8 ? 1 : 4)) {}

  [[gnu::always_inline]] void expect(std::size_t channel) const {
    const char* out = static_cast<const char*>(job_.out) + channel * row_bytes_;
    __builtin_prefetch(out, 1);
    __builtin_prefetch(out + 63, 1);
  }

  std::int32_t bias(std::size_t channel) const { return channels_.bias[channel]; }

  /// Stores sums of even lanes, odd lanes, even lanes, odd lanes of what unpacking bytes leaves.
  [[gnu::always_inline]] void store_halves(const Vector (&sum)[4], std::size_t channel) const {
    Vector sums[4];
    Level::interleave_halves(sum, sums);
    store_unpacked(sums, channel);
  }

  /// Stores sums in the order that unpacking leaves them in.
  [[gnu::always_inline]] void store_unpacked(const Vector (&sum)[4], std::size_t channel) const {
    Vector sums[4];
    Level::in_order(sum, sums);
    store(sums, channel);
  }

  template <int vectors>
  [[gnu::always_inline]] void store(const Vector (&sum)[vectors], std::size_t channel) const {
    typename Level::OneChannel of(channels_, channel);
    of.bias_all = Vector{};
    epilogue_.template store<vectors>(sum, of, job_.out, channel * job_.out_stride, job_.lanes);
  }

 private:
  const SparseJob& job_;
  const EpilogueS8& channels_;
  const typename Level::Epilogue epilogue_;
  std::size_t row_bytes_;
};

/// The same in fewer instructions, for what most layers come to.
template <class Level>
class FinishBytes {
 public:
  using Vector = typename Level::Vector;

  /// Bytes, as many as that many vectors of sums pack to or, where the level stores parts of vectors, fewer.
  static bool applies(const SparseJob& job, std::size_t vectors = 4) {
    const auto& epilogue = *static_cast<const EpilogueS8*>(job.epilogue);
    return epilogue.small_scales && (Level::kStoresParts || job.lanes == vectors * Level::kWidth) &&
           (epilogue.type == OutputType::u8 || epilogue.type == OutputType::s8);
  }

  explicit FinishBytes(const SparseJob& job)
      : bias_(static_cast<const EpilogueS8*>(job.epilogue)->bias),
        scale_(static_cast<const EpilogueS8*>(job.epilogue)->scale),
        out_(static_cast<std::uint8_t*>(job.out)),
        out_stride_(job.out_stride),
        lanes_(job.lanes),
        bytes_(*static_cast<const EpilogueS8*>(job.epilogue)) {}

  [[gnu::always_inline]] void expect(std::size_t channel) const {
    const std::uint8_t* out = out_ + channel * out_stride_;
    __builtin_prefetch(out, 1);
    __builtin_prefetch(out + 63, 1);
  }

  std::int32_t bias(std::size_t channel) const { return bias_[channel]; }

  [[gnu::always_inline]] void store_halves(const Vector (&sum)[4], std::size_t channel) const {
    store_bytes(Level::halves_in_order(packed(sum, channel)), channel);
  }
  [[gnu::always_inline]] void store_unpacked(const Vector (&sum)[4], std::size_t channel) const {
    store_bytes(packed(sum, channel), channel);
  }
  [[gnu::always_inline]] void store(const Vector (&sum)[4], std::size_t channel) const {
    store_bytes(Level::packed_in_order(packed(sum, channel)), channel);
  }
  /// Stores two vectors of sums in order, which pack to half a vector.
  [[gnu::always_inline]] void store(const Vector (&sum)[2], std::size_t channel) const {
    const Vector twice[4] = {sum[0], sum[1], sum[0], sum[1]};
    Level::store_half(out_ + channel * out_stride_, Level::packed_in_order(packed(twice, channel)));
  }

 private:
  [[gnu::always_inline]] Vector packed(const Vector (&sum)[4], std::size_t channel) const {
    return bytes_(sum, Level::Simd::broadcast(scale_ + channel));
  }
  [[gnu::always_inline]] void store_bytes(Vector bytes, std::size_t channel) const {
    std::uint8_t* out = out_ + channel * out_stride_;
    if constexpr (Level::kStoresParts) {
      if (lanes_ != 4 * Level::kWidth) return Level::store_first(out, bytes, lanes_);
    }
    Level::store(out, bytes);
  }

  const std::int32_t* bias_;
  const float* scale_;
  std::uint8_t* out_;
  std::size_t out_stride_, lanes_;
  const typename Level::Bytes bytes_;
};

}  // namespace
}  // namespace gristmill
