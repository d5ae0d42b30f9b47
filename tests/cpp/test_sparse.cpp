#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "gristmill/error.h"
#include "gristmill/packed_sparse.h"
#include "gristmill/sparse.h"
#include "guarded_buffer.h"
#include "harness.h"
#include "kernel_table.h"

using namespace gristmill;
using harness::Edge;
using harness::GuardedBuffer;
using harness::Random;

namespace {

using Csr8 = CsrMatrix<std::int8_t>;
using CsrF = CsrMatrix<float>;

/// s8 weights of which about `keep` in 100 are nonzero, extremes among them.
std::vector<std::int8_t> random_weights(Random& random, std::size_t count, int keep) {
  std::vector<std::int8_t> weights(count);
  for (auto& w : weights) {
    if (random.integer(0, 99) >= keep) continue;
    const auto kind = random.integer(0, 9);
    w = static_cast<std::int8_t>(kind == 0 ? 127 : kind == 1 ? -128 : random.integer(-128, 127));
  }
  return weights;
}

/// Memory aligned to 64 bytes, ending at a guard page.
class AlignedScratch {
 public:
  explicit AlignedScratch(std::size_t bytes) : buffer_((bytes + 63) / 64 * 64, Edge::high) {}
  void* data() const { return const_cast<std::byte*>(buffer_.data()); }

 private:
  GuardedBuffer<std::byte> buffer_;
};

struct Shape {
  std::size_t rows, columns, lanes;
};

/// A panel in the layout of the format, on a guarded buffer, from activations x[columns][lane_block].
template <class T>
void fill_panel(const SparseFormat& format, SparseKind kind, const std::vector<T>& x, std::size_t columns,
                GuardedBuffer<T>& panel) {
  for (std::size_t k = 0; k < columns; ++k)
    for (std::size_t l = 0; l < format.lane_block; ++l) {
      const std::size_t at = kind == SparseKind::blocks ? (k / 4 * format.lane_block + l) * 4 + k % 4
                                                        : k * format.lane_block + l;
      panel[at] = x[k * format.lane_block + l];
    }
}

template <class T>
std::size_t panel_size(const SparseFormat& format, SparseKind kind, std::size_t columns) {
  return (kind == SparseKind::blocks ? (columns + 3) / 4 * 4 : columns) * format.lane_block;
}

/// Half of each row of x[columns][lane_block] as words, after a byte that is zero.
void fill_words(const SparseFormat& format, const std::vector<std::uint8_t>& x,
                GuardedBuffer<std::uint8_t>& panel) {
  panel[0] = 0;
  for (std::size_t i = 0; i < x.size(); i += 2) {
    panel[1 + i] = x[i / format.lane_block * format.lane_block + i % format.lane_block / 2];
    panel[2 + i] = 0;
  }
}

/// Runs a job over a panel of bytes, so many K blocks in a call.
void multiply_blocks(const SparseFormat& format, SparseJob job, std::size_t blocks_of_a_call) {
  const auto* panel = static_cast<const std::uint8_t*>(job.panel);
  for (std::size_t block = 0; block < job.k_blocks; block += blocks_of_a_call) {
    job.first_block = block;
    job.last_block = block + blocks_of_a_call;
    job.panel = panel + block * job.k_block * format.lane_block;
    format.multiply(job);
  }
}

/// Runs a job with outputs of bytes, clamped to [low, high], and compares them with what becomes of its sums.
void check_bytes(const SparseFormat& format, SparseJob job, const std::vector<std::int32_t>& bias,
                 const std::vector<std::int64_t>& sums, Edge edge, float low, float high) {
  const std::vector<float> scale(job.rows, 0x1p-11f);
  const EpilogueS8 epilogue{bias.data(), scale.data(), low, high, 100, OutputType::u8, true};
  GuardedBuffer<std::uint8_t> out(job.rows == 0 ? 0 : (job.rows - 1) * job.out_stride + job.lanes, edge);
  job.epilogue = &epilogue;
  job.out = out.data();
  multiply_blocks(format, job, job.k_blocks);
  for (std::size_t i = 0; i < sums.size(); ++i) {
    const float value = std::nearbyint(static_cast<float>(sums[i]) * 0x1p-11f);
    const int expected = static_cast<int>(std::clamp(value, low, high)) + 100;
    CHECK_EQ(int{out[i / job.lanes * job.out_stride + i % job.lanes]}, expected);
  }
}

/// Runs one format of one level on random data and compares it with the definition, in int64.
void check_s8(const SparseFormat& format, SparseKind kind, Shape shape, int keep, Random& random, Edge edge) {
  const auto dense = random_weights(random, shape.rows * shape.columns, keep);
  const auto matrix = Csr8::from_dense(dense, shape.rows, shape.columns);
  const PackedSparse packed =
      kind == SparseKind::quads ? pack_sparse_quads(matrix, format) : pack_sparse_blocks(matrix, format);
  std::vector<std::uint8_t> x(shape.columns * format.lane_block);
  for (auto& v : x) v = static_cast<std::uint8_t>(random.integer(0, 3) == 0 ? 255 : random.integer(0, 255));
  GuardedBuffer<std::uint8_t> panel(panel_size<std::uint8_t>(format, kind, shape.columns), edge);
  fill_panel(format, kind, x, shape.columns, panel);

  std::vector<std::int32_t> bias(shape.rows);
  for (auto& b : bias) b = static_cast<std::int32_t>(random.integer(-1000, 1000));
  const EpilogueS8 epilogue{bias.data(), nullptr, 0, 0, 0, OutputType::s32};
  const std::size_t stride = shape.lanes + 3;
  GuardedBuffer<std::int32_t> out(shape.rows == 0 ? 0 : (shape.rows - 1) * stride + shape.lanes, edge);
  const AlignedScratch scratch(shape.rows * format.sum_bytes);
  GuardedBuffer<std::byte> entries(packed.entries.size(), edge);
  std::copy(packed.entries.begin(), packed.entries.end(), entries.data());
  auto* aligned =
      reinterpret_cast<std::int32_t*>((reinterpret_cast<std::uintptr_t>(scratch.data()) + 63) / 64 * 64);
  SparseJob job{entries.data(),
                packed.entry_start.data(),
                packed.row_order.data(),
                packed.rows,
                packed.k_blocks,
                packed.k_block,
                0,
                packed.k_blocks,
                0,
                packed.rows,
                panel.data(),
                shape.lanes,
                aligned,
                &epilogue,
                out.data(),
                stride};
  job.far = random.integer(0, 1) == 1;
  std::vector<std::int64_t> sums;
  for (std::size_t m = 0; m < shape.rows; ++m)
    for (std::size_t l = 0; l < shape.lanes; ++l) {
      std::int64_t sum = bias[m];
      for (std::size_t k = 0; k < shape.columns; ++k)
        sum += std::int64_t{dense[m * shape.columns + k]} * x[k * format.lane_block + l];
      sums.push_back(sum);
    }
  const auto check = [&] {
    std::ranges::fill(out.span(), -1);
    multiply_blocks(format, job, edge == Edge::low ? packed.k_blocks : 1);
    for (std::size_t i = 0; i < sums.size(); ++i)
      CHECK_EQ(std::int64_t{out[i / shape.lanes * stride + i % shape.lanes]}, sums[i]);
    check_bytes(format, job, bias, sums, edge, -100, 155);
    check_bytes(format, job, bias, sums, edge, -20, 155);
    check_bytes(format, job, bias, sums, edge, -100, 30);
  };
  check();
  if (kind != SparseKind::quads || !format.half_in_words || 2 * shape.lanes > format.lane_block) return;
  GuardedBuffer<std::uint8_t> words(1 + x.size(), edge);
  fill_words(format, x, words);
  job.words = true;
  job.panel = words.data() + 1;
  check();
}

void sweep_s8(const SparseFormat& format, SparseKind kind) {
  Random random(7);
  const std::size_t step = harness::quick() ? 13 : 3;
  for (const std::size_t columns :
       {std::size_t{1}, std::size_t{3}, std::size_t{4}, std::size_t{37}, format.k_block - 1, format.k_block,
        format.k_block + 1, 2 * format.k_block + 5})
    for (std::size_t lanes = 1; lanes <= format.lane_block; lanes += lanes < 4 ? 1 : step)
      for (const int keep : {0, 1, 10, 50, 100})
        check_s8(format, kind, {5, columns, lanes}, keep, random, lanes % 2 == 0 ? Edge::low : Edge::high);
}

}  // namespace

ISA_TEST(sparse_quads_equal_the_definition) { sweep_s8(kernel_table(isa).sparse.quads, SparseKind::quads); }

ISA_TEST(sparse_quads_of_other_processors_equal_the_definition) {
  const SparseFormat& spare = kernel_table(isa).sparse.spare_quads;
  if (spare.multiply != nullptr) sweep_s8(spare, SparseKind::quads);
}

ISA_TEST(sparse_blocks_equal_the_definition) {
  sweep_s8(kernel_table(isa).sparse.blocks, SparseKind::blocks);
}

ISA_TEST(sparse_singles_hold_the_error_bound) {
  const SparseFormat& format = kernel_table(isa).sparse.singles;
  Random random(11);
  for (const std::size_t columns : {std::size_t{1}, std::size_t{9}, format.k_block, 2 * format.k_block + 5}) {
    for (std::size_t lanes = 1; lanes <= format.lane_block; lanes += lanes < 9 ? 1 : 7) {
      const std::size_t rows = 4, stride = lanes + 1;
      std::vector<float> dense(rows * columns), x(columns * format.lane_block), bias(rows, 0.25f);
      for (auto& w : dense) w = random.integer(0, 3) == 0 ? static_cast<float>(random.unit() - 0.5) : 0.0f;
      for (auto& v : x) v = static_cast<float>(random.unit() - 0.5);
      const PackedSparse packed = pack_sparse_singles(CsrF::from_dense(dense, rows, columns), format);
      GuardedBuffer<float> panel(x.size(), Edge::high);
      fill_panel(format, SparseKind::singles, x, columns, panel);
      GuardedBuffer<float> out((rows - 1) * stride + lanes, Edge::high);
      const AlignedScratch scratch(rows * format.sum_bytes);
      EpilogueF32 epilogue{bias.data(), -1e30f, 1e30f};
      const SparseJob job{packed.entries.data(),
                          packed.entry_start.data(),
                          packed.row_order.data(),
                          rows,
                          packed.k_blocks,
                          packed.k_block,
                          0,
                          packed.k_blocks,
                          0,
                          rows,
                          panel.data(),
                          lanes,
                          scratch.data(),
                          &epilogue,
                          out.data(),
                          stride};
      format.multiply(job);
      std::vector<float> plain(out.data(), out.data() + out.size());
      for (std::size_t m = 0; m < rows; ++m)
        for (std::size_t l = 0; l < lanes; ++l) {
          double sum = bias[m], magnitude = bias[m];
          for (std::size_t k = 0; k < columns; ++k) {
            const double product = double{dense[m * columns + k]} * x[k * format.lane_block + l];
            sum += product;
            magnitude += product < 0 ? -product : product;
          }
          const double error = plain[m * stride + l] - sum, unit = 0x1p-24 * static_cast<double>(columns + 2);
          CHECK((error < 0 ? -error : error) <= unit / (1 - unit) * magnitude);
        }
      GuardedBuffer<float> residual(out.size(), Edge::high);
      for (std::size_t i = 0; i < residual.size(); ++i)
        residual[i] = static_cast<float>(2 * random.unit() - 1);
      epilogue.residual = residual.data();
      constexpr float kInfinity = std::numeric_limits<float>::infinity();
      constexpr std::pair<float, float> kBounds[] = {
          {-kInfinity, kInfinity}, {-0.25f, kInfinity}, {-kInfinity, 0.5f}, {-0.25f, 0.5f}};
      for (const auto& [low, high] : kBounds) {
        for (const auto& [sum_low, sum_high] : kBounds) {
          epilogue.low = low, epilogue.high = high;
          epilogue.sum_low = 2 * sum_low, epilogue.sum_high = 2 * sum_high;
          format.multiply(job);
          for (std::size_t m = 0; m < rows; ++m)
            for (std::size_t i = m * stride; i < m * stride + lanes; ++i)
              CHECK_EQ(out[i],
                       std::clamp(std::clamp(plain[i], low, high) + residual[i], 2 * sum_low, 2 * sum_high));
        }
      }
    }
  }
}

TEST(sparse_pairs_are_safe_and_keep_every_weight) {
  Random random(3);
  const SparseFormat format{32, 64, 0, true, nullptr};
  for (int round = 0; round < 200; ++round) {
    const std::size_t rows = 3, columns = 150;
    const auto dense = random_weights(random, rows * columns, static_cast<int>(random.integer(1, 100)));
    const auto packed = pack_sparse_quads(Csr8::from_dense(dense, rows, columns), format);
    const auto* quads = reinterpret_cast<const SparseQuad*>(packed.entries.data());
    std::vector<std::int8_t> rebuilt(rows * columns);
    for (std::size_t block = 0; block < packed.k_blocks; ++block)
      for (std::size_t r = 0; r < rows; ++r) {
        const std::uint32_t* start = &packed.entry_start[block * (rows + 1) + r];
        for (std::uint32_t e = start[0]; e < start[1]; ++e)
          for (int i = 0; i < 4; ++i) {
            const int a = quads[e].weight[i / 2 * 2], b = quads[e].weight[i / 2 * 2 + 1];
            const int high = 255 * ((a > 0 ? a : 0) + (b > 0 ? b : 0)),
                      low = 255 * ((a < 0 ? a : 0) + (b < 0 ? b : 0));
            CHECK(high <= 32767 && low >= -32768);
            if (quads[e].weight[i] == 0) continue;
            rebuilt[packed.row_order[block * rows + r] * columns + block * packed.k_block +
                    quads[e].offset[i] / 4] = quads[e].weight[i];
          }
      }
    CHECK_SAME(std::span<const std::int8_t>(rebuilt), std::span<const std::int8_t>(dense), "weights");
  }
}

TEST(sparse_row_pairs_alternate_and_keep_every_weight) {
  Random random(13);
  SparseFormat format{64, 64, 0, false, nullptr};
  format.row_pairs = true;
  const std::size_t columns = 150;
  for (const std::size_t rows : {1, 2, 5, 64, 129}) {
    const auto dense = random_weights(random, rows * columns, 20);
    const PackedSparse packed = pack_sparse_quads(Csr8::from_dense(dense, rows, columns), format);
    const auto* quads = reinterpret_cast<const SparseQuad*>(packed.entries.data());
    CHECK_EQ(packed.entries.size(), packed.entry_count() * sizeof(SparseQuad));
    std::vector<std::int8_t> rebuilt(rows * columns);
    for (std::size_t block = 0; block < packed.k_blocks; ++block)
      for (std::size_t row = 0; row < rows; row += 2) {
        const std::uint32_t* start = &packed.entry_start[block * (rows + 1) + row];
        const std::size_t of_pair = row + 1 < rows ? 2 : 1;
        if (of_pair == 2) CHECK_EQ(start[1] - start[0], start[2] - start[1]);
        for (std::uint32_t e = start[0]; e < start[of_pair]; ++e)
          for (int i = 0; i < 4; ++i) {
            if (quads[e].weight[i] == 0) continue;
            const std::size_t channel = packed.row_order[block * rows + row + (e - start[0]) % of_pair];
            rebuilt[channel * columns + block * packed.k_block + quads[e].offset[i] / 8] = quads[e].weight[i];
          }
      }
    CHECK_SAME(std::span<const std::int8_t>(rebuilt), std::span<const std::int8_t>(dense), "weights");
  }
}

TEST(sparse_fours_sum_up_to_every_weight) {
  Random random(17);
  SparseFormat format{64, 64, 0, false, nullptr};
  format.fours = true;
  const std::size_t columns = 100;
  for (const std::size_t rows : {1, 2, 5, 64, 67}) {
    std::vector<float> dense(rows * columns);
    for (std::size_t i = 0; i < dense.size(); ++i)
      if (random.integer(0, 9) < static_cast<int>(i / columns % 4))
        dense[i] = static_cast<float>(random.unit() + 0.1);
    const PackedSparse packed = pack_sparse_singles(CsrF::from_dense(dense, rows, columns), format);
    const auto* fours = reinterpret_cast<const SparseFours*>(packed.entries.data());
    CHECK_EQ(packed.executed_macs() * sizeof(SparseFours), packed.entries.size() * 4);
    std::vector<float> rebuilt(rows * columns);
    for (std::size_t block = 0; block < packed.k_blocks; ++block)
      for (std::size_t row = 0; row < rows; row += 2) {
        const std::uint32_t* start = &packed.entry_start[block * (rows + 1) + row];
        const bool paired = row + 1 < rows && start[1] != start[2];
        for (std::uint32_t e = start[0]; e < start[row + 1 < rows ? 2 : 1]; ++e)
          for (std::size_t i = 0; i < 4; ++i) {
            float weight;
            std::memcpy(&weight, fours[e].weight + 4 * i, 4);
            CHECK(weight != 0);  // which would make a product with inf no number
            const std::size_t channel = packed.row_order[block * rows + row + (paired ? i % 2 : 0)];
            rebuilt[channel * columns + block * packed.k_block + fours[e].offset[i] / 32] += weight;
          }
      }
    CHECK_SAME(std::span<const float>(rebuilt), std::span<const float>(dense), "weights");
  }
}

TEST(sparse_csr_round_trip) {
  Random random(5);
  for (const std::size_t columns : {0, 1, 7, 64}) {
    const auto dense = random_weights(random, 6 * columns, 30);
    const auto matrix = Csr8::from_dense(dense, 6, columns);
    std::vector<std::int8_t> back(dense.size(), 1);
    matrix.to_dense(back);
    CHECK_SAME(std::span<const std::int8_t>(back), std::span<const std::int8_t>(dense), "dense");
  }
}

TEST(sparse_csr_refuses_what_is_not_valid) {
  const std::vector<float> one{1.0f}, two{1.0f, 2.0f};
  CHECK_THROWS(Error, CsrF(1, 2, {}, {}, {}));
  CHECK_THROWS(Error, CsrF(SIZE_MAX, 2, {}, {}, {}));
  CHECK_THROWS(Error, CsrF(1, 2, {0}, {}, {}));
  CHECK_THROWS(Error, CsrF(1, 2, {1, 1}, {0}, one));
  CHECK_THROWS(Error, CsrF(2, 2, {0, 2, 1}, {0}, one));
  CHECK_THROWS(Error, CsrF(1, 2, {0, 1}, {0, 1}, two));
  CHECK_THROWS(Error, CsrF(1, 2, {0, 1}, {0}, two));
  CHECK_THROWS(Error, CsrF(1, 2, {0, 1}, {2}, one));
  CHECK_THROWS(Error, CsrF(1, 2, {0, 1}, {-1}, one));
  CHECK_THROWS(Error, CsrF(1, 2, {0, 2}, {1, 0}, two));
  CHECK_THROWS(Error, CsrF(1, 2, {0, 2}, {1, 1}, two));
  CHECK_THROWS(Error, CsrF(1, std::size_t{1} << 32, {0, 0}, {}, {}));
  const CsrF empty(0, 0, {0}, {}, {});
  CHECK_EQ(empty.entry_count(), std::size_t{0});
}
