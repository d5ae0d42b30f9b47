#pragma once

#include <cstddef>
#include <memory>

namespace gristmill {

/// Scratch memory that calls use and leave behind for the next call, so that repeated work of the same shapes
/// allocates nothing. One call at a time may use a workspace.
class Workspace {
 public:
  struct Buffers;

  Workspace();
  ~Workspace();
  Workspace(Workspace&&) noexcept;
  Workspace& operator=(Workspace&&) noexcept;

  Buffers& buffers() noexcept { return *buffers_; }
  /// Bytes held.
  std::size_t bytes() const noexcept;
  /// Gives all memory back if more than `most` bytes are held.
  void trim(std::size_t most) noexcept;

 private:
  std::unique_ptr<Buffers> buffers_;
};

}  // namespace gristmill
