#pragma once

#include <stdexcept>
#include <string>

namespace gristmill {

/// What went wrong, as the Python layer names it (gristmill.errors has one class per kind).
enum class ErrorKind { argument, dtype, shape, isa, limit };

/// The only exception this library throws on purpose. `where` names the argument, file or node that is at
/// fault.
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, std::string where, std::string reason)
      : std::runtime_error(where.empty() ? reason : where + ": " + reason),
        kind_(kind),
        where_(std::move(where)),
        reason_(std::move(reason)) {}

  /// The same error of a part of `whole`: its place becomes the whole, and its reason says which part.
  Error within(const std::string& whole) const {
    return {kind_, whole, where_.empty() ? reason_ : where_ + ": " + reason_};
  }

  ErrorKind kind() const noexcept { return kind_; }
  const std::string& where() const noexcept { return where_; }
  const std::string& reason() const noexcept { return reason_; }

 private:
  ErrorKind kind_;
  std::string where_, reason_;
};

}  // namespace gristmill
