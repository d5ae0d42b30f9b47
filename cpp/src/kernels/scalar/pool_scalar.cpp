#include "kernels/pool_combine.h"
#include "pool_kernels.h"

namespace gristmill {
namespace {

template <class T, template <class> class Combine>
void rows(const PoolRowsJob<T>& job) {
  for (std::size_t s = 0; s < job.slices; ++s)
    for (std::size_t r = 0; r < job.rows; ++r) {
      const T* row = job.x + s * job.slice_stride + r * job.row_stride;
      const bool first = s == 0 && r == 0;
      for (std::size_t i = 0; i < job.count; ++i)
        job.line[i] = first ? row[i] : Combine<T>::combine(job.line[i], row[i]);
    }
}

template <class T, template <class> class Combine>
void taps(const PoolTapsJob<T>& job) {
  for (std::size_t t = 0; t < job.taps; ++t)
    for (std::size_t o = 0; o < job.count; ++o) {
      const T value = job.line[o * job.stride + t * job.dilation];
      job.out[o] = t == 0 ? value : Combine<T>::combine(job.out[o], value);
    }
}

}  // namespace

void install_pool_scalar(PoolKernels& slots) {
  slots.max_u8 = {rows<std::uint8_t, PoolMax>, taps<std::uint8_t, PoolMax>};
  slots.max_s8 = {rows<std::int8_t, PoolMax>, taps<std::int8_t, PoolMax>};
  slots.max_f32 = {rows<float, PoolMax>, taps<float, PoolMax>};
  slots.sum_f32 = {rows<float, PoolSum>, taps<float, PoolSum>};
}

}  // namespace gristmill
