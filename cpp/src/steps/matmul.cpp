#include "gristmill/steps/matmul.h"

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "checked_size.h"
#include "gristmill/isa.h"
#include "kernel_table.h"
#include "step_checks.h"
#include "strided_loops.h"
#include "workspace_buffers.h"

namespace gristmill {
namespace {

struct Product {
  std::size_t m, k, n;
  std::int32_t a_zero_point, b_zero_point;
};

/// Rows [first, last) of one product. Columns are cut so that a block of b stays in cache for all rows.
template <class A, class B, class Sum>
void multiply_rows(const A* a, const B* b, Sum* out, const Product& p, std::size_t first, std::size_t last) {
  constexpr std::size_t kColumns = 256;
  const auto a_zero = static_cast<Sum>(p.a_zero_point), b_zero = static_cast<Sum>(p.b_zero_point);
  for (std::size_t column = 0; column < p.n; column += kColumns) {
    const std::size_t columns = std::min(kColumns, p.n - column);
    for (std::size_t row = first; row < last; ++row) {
      Sum sums[kColumns] = {};
      for (std::size_t k = 0; k < p.k; ++k) {
        const Sum factor = static_cast<Sum>(a[row * p.k + k]) - a_zero;
        const B* from = b + k * p.n + column;
        for (std::size_t n = 0; n < columns; ++n) sums[n] += factor * (static_cast<Sum>(from[n]) - b_zero);
      }
      std::copy_n(sums, columns, out + row * p.n + column);
    }
  }
}

template <class A, class B, class Sum>
class MatmulStep final : public Step {
 public:
  MatmulStep(const Tensor& a, const Tensor& b, const Tensor& out, const Product& product,
             const StridedLoops<3>& batch)
      : product_(product), batch_(batch), a_(read("a", a)), b_(read("b", b)), out_(write("out", out)) {}

  void run(const Frame& frame) const override {
    const A* a = frame.at<const A>(a_);
    const B* b = frame.at<const B>(b_);
    Sum* out = frame.at<Sum>(out_);
    const auto [m, k, n, a_zero, b_zero] = product_;
    const std::size_t work = std::max<std::size_t>(k * n, 1) * sizeof(float);
    for_each_range(batch_.total() * m, ceil_div(kRangeBytes, work), frame.threads,
                   [&](std::size_t begin, std::size_t end) { multiply(a, b, out, begin, end); });
  }

  std::string kernel() const override { return "matmul"; }

 private:
  /// Rows begin to end, counted over all products. Every line of the batch is one product.
  void multiply(const A* a, const B* b, Sum* out, std::size_t begin, std::size_t end) const {
    const std::size_t m = product_.m;
    if (begin >= end) return;
    std::size_t index = begin / m;
    batch_.for_each_line(index, ceil_div(end, m), [&](const auto& at) {
      const std::size_t first = std::max(begin, index * m) - index * m;
      const std::size_t last = std::min(end, (index + 1) * m) - index * m;
      multiply_rows(a + at[1], b + at[2], out + at[0], product_, first, last);
      ++index;
    });
  }

  Product product_;
  StridedLoops<3> batch_;
  Address a_, b_, out_;
};

/// float32 products by the kernel of dense layers, whose broadcast operand is a, packed by each run, and
/// whose lane operand are panels of some rows of b at a time.
class PanelMatmulStep final : public Step {
 public:
  /// Whether packing pays.
  static bool suits(const Product& p) { return p.m >= 4 && p.k >= 4 && p.n >= 16; }

  PanelMatmulStep(const Tensor& a, const Tensor& b, const Tensor& out, const Product& product,
                  const StridedLoops<3>& batch)
      : m_(product.m),
        k_(product.k),
        n_(product.n),
        kernel_(active_kernels().dense.f32_channels_in_rows),
        transpose_(active_kernels().transpose.words),
        batch_(batch),
        packed_bytes_(
            checked_product({batch.total(), round_up(m_, kernel_.row_block), k_, sizeof(float)}, "a")),
        no_bias_(m_),
        a_(read("a", a)),
        b_(read("b", b)),
        out_(write("out", out)) {}

  void run(const Frame& frame) const override {
    Workspace::Buffers& buffers = frame.workspace.buffers();
    auto* packed = static_cast<float*>(buffers.staged.reserve(packed_bytes_));
    const std::size_t products = batch_.total(), block = kernel_.row_block, blocks = ceil_div(m_, block);
    for_each_task(buffers, products * blocks, frame.threads, [&](WorkerScratch&, std::size_t task) {
      batch_.for_each_line(task / blocks, task / blocks + 1, [&](const auto& at) {
        pack_rows(frame.at<const float>(a_) + at[1], task % blocks * block, packed + task * block * k_);
      });
    });
    // Threads without a product or lanes of their own share rows.
    const std::size_t lanes = round_up(kLanes, kernel_.lane_block), lane_tiles = ceil_div(n_, lanes);
    const std::size_t workers = worker_count(products * lane_tiles * blocks, frame.threads);
    const std::size_t wanted = workers == 1 ? 1 : ceil_div(4 * workers, products * lane_tiles);
    const std::size_t rows = ceil_div(blocks, std::min(wanted, blocks)) * block;
    const std::size_t row_tiles = ceil_div(m_, rows);
    for_each_task(buffers, products * lane_tiles * row_tiles, frame.threads,
                  [&](WorkerScratch& scratch, std::size_t task) {
                    const std::size_t product = task / row_tiles / lane_tiles;
                    const std::size_t row = task % row_tiles * rows;
                    const std::size_t lane = task / row_tiles % lane_tiles * lanes;
                    batch_.for_each_line(product, product + 1, [&](const auto& at) {
                      multiply({packed + (product * blocks * block + row) * k_,
                                frame.at<const float>(b_) + at[2] + lane,
                                frame.at<float>(out_) + at[0] + row * n_ + lane, std::min(rows, m_ - row),
                                std::min(lanes, n_ - lane)},
                               scratch);
                    });
                  });
  }

  std::string kernel() const override { return "matmul panels"; }

 private:
  static constexpr std::size_t kLanes = 256;

  struct Tile {
    const float *a, *b;
    float* out;
    std::size_t rows, lanes;
  };

  /// A row block of a, with zeros for the rows that are missing.
  void pack_rows(const float* a, std::size_t row, float* to) const {
    const std::size_t block = kernel_.row_block, rows = std::min(block, m_ - row);
    if (rows < block) std::fill_n(to, block * k_, 0.0f);
    transpose_({a + row * k_, k_ * sizeof(float), to, block * sizeof(float), rows, k_, 0});
  }

  void multiply(const Tile& tile, WorkerScratch& scratch) const {
    const std::size_t block = kernel_.lane_block, lanes = round_up(tile.lanes, block);
    const EpilogueF32 epilogue{no_bias_.data(), -std::numeric_limits<float>::infinity(),
                               std::numeric_limits<float>::infinity()};
    for (std::size_t k = 0, part; k < k_; k += part) {
      part = std::min(kernel_.far_depth, k_ - k);
      auto* panel = static_cast<float*>(scratch.panel.reserve(lanes * part * sizeof(float)));
      for (std::size_t lane = 0; lane < tile.lanes; lane += block)
        for (std::size_t row = 0; row < part; ++row)
          std::copy_n(tile.b + (k + row) * n_ + lane, std::min(block, tile.lanes - lane),
                      panel + lane * part + row * block);
      kernel_.multiply({tile.a, panel, k_, tile.rows, tile.lanes, &epilogue, tile.out, n_, {}, 0, k, part});
    }
  }

  std::size_t m_, k_, n_;
  DenseKernel kernel_;
  decltype(TransposeKernels::words) transpose_;
  StridedLoops<3> batch_;
  std::size_t packed_bytes_;
  std::vector<float> no_bias_;
  Address a_, b_, out_;
};

/// The loops over products, each of which is one line.
StridedLoops<3> batch_loops(const Tensor& a, const Tensor& b, const Tensor& out, const Product& p) {
  const auto lead = [](const Tensor& tensor) {
    return std::vector<std::size_t>(tensor.shape().begin(), tensor.shape().end() - 2);
  };
  const auto shape = lead(out);
  require_rank_within_limit(out.rank(), "out");
  const auto a_strides = broadcast_strides(lead(a), shape, "a"),
             b_strides = broadcast_strides(lead(b), shape, "b");
  const auto dense = dense_strides(shape);
  std::vector<StridedLoop<3>> loops;
  for (std::size_t d = 0; d < shape.size(); ++d)
    loops.push_back({shape[d],
                     {dense[d] * static_cast<std::ptrdiff_t>(p.m * p.n),
                      a_strides[d] * static_cast<std::ptrdiff_t>(p.m * p.k),
                      b_strides[d] * static_cast<std::ptrdiff_t>(p.k * p.n)}});
  return StridedLoops<3>::of_single_elements(loops);
}

void require_no_overflow(const Tensor& a, const Tensor& b, const Product& p) {
  const auto greatest = [](const Tensor& x, std::int32_t zero_point) {
    const std::int64_t least = x.dtype() == DType::u8 ? 0 : -128;
    return std::max(zero_point - least, least + 255 - zero_point);
  };
  const std::int64_t each = greatest(a, p.a_zero_point) * greatest(b, p.b_zero_point);
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  if (p.k > static_cast<std::size_t>(kMost / each))
    throw Error(ErrorKind::limit, "a", "sums of " + std::to_string(p.k) + " products could overflow int32");
}

}  // namespace

StepPtr matmul_step(const Tensor& a, const Tensor& b, const Tensor& out, std::int32_t a_zero_point,
                    std::int32_t b_zero_point) {
  for (const auto& [name, tensor] : {Operand{"a", a}, {"b", b}, {"out", out}}) {
    if (tensor.rank() < 2) throw Error(ErrorKind::shape, name, "expected rank 2 or more");
    element_count(tensor.shape(), name);
  }
  const auto extent = [](const Tensor& tensor, std::size_t from_end) {
    return tensor.shape()[tensor.rank() - from_end];
  };
  const Product product{extent(a, 2), extent(a, 1), extent(b, 1), a_zero_point, b_zero_point};
  if (extent(b, 2) != product.k)
    throw Error(ErrorKind::shape, "b",
                "expected " + std::to_string(product.k) + " rows, got " + shape_text(b.shape()));
  if (extent(out, 2) != product.m || extent(out, 1) != product.n)
    throw Error(
        ErrorKind::shape, "out",
        "expected matrices of " + shape_text({product.m, product.n}) + ", got " + shape_text(out.shape()));
  const StridedLoops<3> batch = batch_loops(a, b, out, product);
  require_dtype("a", a, {DType::f32, DType::u8, DType::s8});
  if (a.dtype() == DType::f32)
    require_dtype("b", b, {DType::f32});
  else
    require_dtype("b", b, {DType::u8, DType::s8});
  require_dtype("out", out, {a.dtype() == DType::f32 ? DType::f32 : DType::s32});
  require_zero_point("a_zero_point", a.dtype(), a_zero_point);
  require_zero_point("b_zero_point", b.dtype(), b_zero_point);
  using u8 = std::uint8_t;
  using s8 = std::int8_t;
  if (a.dtype() == DType::f32 && batch.total() > 0 && PanelMatmulStep::suits(product))
    return std::make_unique<const PanelMatmulStep>(a, b, out, product, batch);
  if (a.dtype() == DType::f32)
    return std::make_unique<const MatmulStep<float, float, float>>(a, b, out, product, batch);
  require_no_overflow(a, b, product);
  const auto make = [&]<class A, class B>(A, B) -> StepPtr {
    return std::make_unique<const MatmulStep<A, B, std::int32_t>>(a, b, out, product, batch);
  };
  if (a.dtype() == DType::u8) return b.dtype() == DType::u8 ? make(u8{}, u8{}) : make(u8{}, s8{});
  return b.dtype() == DType::u8 ? make(s8{}, u8{}) : make(s8{}, s8{});
}

}  // namespace gristmill
