#include "gristmill/parallel.h"

namespace gristmill {

void parallel_for(std::size_t tasks, int, TaskRef body) {
  for (std::size_t task = 0; task < tasks; ++task) body(task);
}

}  // namespace gristmill
