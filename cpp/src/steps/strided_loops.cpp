#include "strided_loops.h"

#include "gristmill/error.h"

namespace gristmill {

std::vector<std::ptrdiff_t> broadcast_strides(const std::vector<std::size_t>& operand,
                                              const std::vector<std::size_t>& shape, const char* name) {
  const auto refuse = [&] {
    throw Error(ErrorKind::shape, name, shape_text(operand) + " cannot be broadcast to " + shape_text(shape));
  };
  if (operand.size() > shape.size()) refuse();
  const std::size_t missing = shape.size() - operand.size();
  const auto dense = dense_strides(operand);
  std::vector<std::ptrdiff_t> strides(shape.size());
  for (std::size_t d = 0; d < operand.size(); ++d) {
    if (operand[d] != 1 && operand[d] != shape[missing + d]) refuse();
    strides[missing + d] = operand[d] == 1 ? 0 : dense[d];
  }
  return strides;
}

void require_rank_within_limit(std::size_t rank, const char* name) {
  constexpr std::size_t kMost = StridedLoops<1>::kMostLoops;
  if (rank > kMost)
    throw Error(ErrorKind::limit, name,
                "has " + std::to_string(rank) + " dimensions; a plan takes " + std::to_string(kMost));
}

}  // namespace gristmill
