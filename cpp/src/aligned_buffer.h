#pragma once

#include <algorithm>
#include <cstddef>
#include <new>
#include <utility>

namespace gristmill {

/// Uninitialized memory on a 64-byte boundary that grows and never shrinks by itself: scratch of drivers and
/// storage of packed weights. Large buffers ask for large pages, of which the caches hold more.
class AlignedBuffer {
 public:
  static constexpr std::size_t kAlignment = 64;

  AlignedBuffer() = default;
  explicit AlignedBuffer(std::size_t bytes) { reserve(bytes); }
  ~AlignedBuffer() { release(); }
  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  /// At least that many bytes; the contents are lost when the buffer has to grow.
  void* reserve(std::size_t bytes) {
    if (bytes <= bytes_) return data_;
    release();
    data_ = ::operator new(bytes, alignment(bytes));
    bytes_ = bytes;
    if (bytes >= kLargePage) ask_for_large_pages();
    return data_;
  }
  void release() noexcept {
    ::operator delete(data_, alignment(bytes_));
    data_ = nullptr;
    bytes_ = 0;
  }

  template <class T = void>
  T* data() const noexcept {
    return static_cast<T*>(data_);
  }
  std::size_t bytes() const noexcept { return bytes_; }

 private:
  static constexpr std::size_t kLargePage = std::size_t{1} << 21;

  static std::align_val_t alignment(std::size_t bytes) {
    return std::align_val_t{bytes >= kLargePage ? kLargePage : kAlignment};
  }
  void ask_for_large_pages() noexcept;

  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace gristmill
