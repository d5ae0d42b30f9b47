#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <new>
#include <span>
#include <type_traits>

namespace harness {

enum class Edge { low, high };

/// An array that touches an inaccessible page at one edge, so that the first byte read or written beyond that
/// edge stops the program. Both edges are tested by running with each Edge; `slack` moves the array away from
/// the page by that many elements, to vary alignment.
///
///     Edge::low    [ guard ][ array ....... ][ guard ]
///     Edge::high   [ guard ][ ....... array ][ guard ]
template <class T>
class GuardedBuffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  explicit GuardedBuffer(std::size_t count, Edge edge = Edge::high, std::size_t slack = 0) : count_(count) {
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t bytes = (count + slack) * sizeof(T);
    const std::size_t usable = (bytes + page - 1) / page * page + (bytes == 0 ? page : 0);
    mapped_ = usable + 2 * page;
    void* base = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<std::byte*>(base);
    if (mprotect(base_ + page, usable, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
    std::byte* start = edge == Edge::low ? base_ + page + slack * sizeof(T) : base_ + page + usable - bytes;
    data_ = reinterpret_cast<T*>(start);
  }
  ~GuardedBuffer() { munmap(base_, mapped_); }
  GuardedBuffer(const GuardedBuffer&) = delete;
  GuardedBuffer& operator=(const GuardedBuffer&) = delete;

  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return count_; }
  T& operator[](std::size_t i) { return data_[i]; }
  const T& operator[](std::size_t i) const { return data_[i]; }
  std::span<const T> view() const { return {data_, count_}; }
  std::span<T> span() { return {data_, count_}; }

 private:
  std::size_t count_, mapped_ = 0;
  std::byte* base_ = nullptr;
  T* data_ = nullptr;
};

}  // namespace harness
