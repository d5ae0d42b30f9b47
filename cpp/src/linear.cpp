#include "gristmill/linear.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "activation_form.h"
#include "cache_budget.h"
#include "checked_size.h"
#include "gristmill/error.h"
#include "linear_batched.h"
#include "linear_sparse.h"
#include "packed_weights.h"
#include "workspace_buffers.h"

namespace gristmill {
namespace {

template <class T>
WeightView<T> view_of(const LinearWeights<T>& w) {
  checked_product({w.channels, w.k, sizeof(T)}, "weights");
  return {w.data, 1, w.channels, w.k, w.channel_step, w.k_step};
}

/// A call as tiles of row blocks by lane blocks; a task is one of them, those of equal rows in succession.
struct LinearCall : BatchCall {
  const PackedWeights& weights;
  const DenseKernel& kernel;
  ActivationForm form;
  std::size_t depth_bytes;  // of a row as packed
  std::size_t tile_rows = 0, row_tiles = 0, tile_lanes = 0, lane_tiles = 0;

  /// Whether the kernel's broadcast operand is what the caller passed.
  bool in_place() const { return kernel.row_block == 1 && form.flip == 0 && depth_bytes == row_bytes(); }
};

/// Rows are split by so many, a multiple of the rows of every level's tiles.
constexpr std::size_t kRowStep = 24;

void choose_tiles(LinearCall& call) {
  const std::size_t row_blocks = ceil_div(call.input.rows, kRowStep);
  const std::size_t lane_block = call.weights.block();
  const std::size_t lane_blocks = ceil_div(call.weights.rows(), lane_block);
  const auto tiles_of = [&](std::size_t blocks, std::size_t block) {
    const std::size_t budget = call.weights.is_f32() ? panel_budget_f32() : panel_budget();
    const std::size_t fitting = budget / std::max<std::size_t>(block * call.depth_bytes, 1);
    return ceil_div(blocks, std::max<std::size_t>(fitting, 1));
  };
  std::size_t row_tiles = tiles_of(row_blocks, kRowStep);
  std::size_t lane_tiles = tiles_of(lane_blocks, lane_block);
  const std::size_t workers = worker_count(row_blocks * lane_blocks, call.threads);
  if (workers > 1) {
    // Rows are split first, for each thread packs the rows that it multiplies; lanes where rows are few.
    const std::size_t wanted = 4 * workers;
    row_tiles = std::max(row_tiles, std::min(wanted, row_blocks));
    lane_tiles = std::max(lane_tiles, std::min(ceil_div(wanted, row_tiles), lane_blocks));
  }
  call.tile_rows = ceil_div(row_blocks, row_tiles) * kRowStep;
  call.row_tiles = ceil_div(call.input.rows, call.tile_rows);
  call.tile_lanes = ceil_div(lane_blocks, lane_tiles) * lane_block;
  call.lane_tiles = ceil_div(call.weights.rows(), call.tile_lanes);
}

std::uint32_t load_word(const std::uint8_t* bytes) {
  std::uint32_t word;
  std::memcpy(&word, bytes, sizeof word);
  return word;
}

/// The last words of a row of bytes: what is left over of its columns, the repeated columns, and zeros.
void pack_row_end(const LinearCall& call, const std::uint8_t* row, std::uint32_t* out) {
  const std::size_t k = call.input.k, whole = k / 4 * 4;
  for (std::size_t at = whole; at < call.depth_bytes; at += 4) {
    std::array<std::uint8_t, 4> bytes{};
    for (std::size_t i = 0; i < 4 && at + i < call.weights.k(); ++i) {
      const std::size_t source = at + i < k ? at + i : call.weights.repeated()[at + i - k];
      bytes[i] = static_cast<std::uint8_t>(row[source] ^ call.form.flip);
    }
    out[at / 4 * call.kernel.row_block] = load_word(bytes.data());
  }
}

/// Packs a block of rows as the broadcast operand: [words of a row][row_block], a word being four bytes or
/// one float, with zeros for the rows that are missing.
void pack_row_block(const LinearCall& call, const std::uint8_t* rows, std::size_t count, std::uint32_t* out) {
  const std::size_t block = call.kernel.row_block, words = call.row_bytes() / 4;
  const std::uint32_t flip = call.form.flip * 0x01010101u;
  if (count < block) std::fill_n(out, call.depth_bytes / 4 * block, 0u);
  for (std::size_t r = 0; r < count; ++r, rows += call.row_bytes(), ++out) {
    if (block == 1) {
      for (std::size_t w = 0; w < words; ++w) out[w] = load_word(rows + 4 * w) ^ flip;
    } else {
      for (std::size_t w = 0; w < words; ++w) out[w * block] = load_word(rows + 4 * w) ^ flip;
    }
    if (words * 4 != call.depth_bytes) pack_row_end(call, rows, out);
  }
}

/// The rows of a tile as the broadcast operand.
const void* broadcast_rows(const LinearCall& call, WorkerScratch& scratch, std::size_t tile,
                           std::size_t rows) {
  const std::uint8_t* x = call.row(tile * call.tile_rows);
  if (call.in_place()) return x;
  auto* packed = static_cast<std::uint32_t*>(scratch.panel.reserve(call.tile_rows * call.depth_bytes));
  if (scratch.packed_tile == tile) return packed;
  scratch.packed_tile = tile;
  const std::size_t block = call.kernel.row_block;
  for (std::size_t row = 0; row < rows; row += block)
    pack_row_block(call, x + row * call.row_bytes(), std::min(block, rows - row),
                   packed + row * call.depth_bytes / 4);
  return packed;
}

void run_task(const LinearCall& call, WorkerScratch& scratch, std::size_t task) {
  const std::size_t tile = task / call.lane_tiles;
  const std::size_t row = tile * call.tile_rows, rows = std::min(call.tile_rows, call.input.rows - row);
  const std::size_t lane = task % call.lane_tiles * call.tile_lanes;
  const std::size_t channels = call.weights.rows(), lanes = std::min(call.tile_lanes, channels - lane);
  const bool f32 = call.weights.is_f32();
  const std::size_t offset = row * channels + lane;
  const EpilogueF32 epilogue_f32 = f32 ? call.stage.kernel_f32(lane) : EpilogueF32{};
  const EpilogueS8 epilogue_s8 = f32 ? EpilogueS8{} : call.stage.kernel_s8(call.buffers.folded_bias, lane);
  const DenseJob job{broadcast_rows(call, scratch, tile, rows),
                     call.weights.at(0, lane),
                     call.weights.k(),
                     rows,
                     lanes,
                     f32 ? static_cast<const void*>(&epilogue_f32) : &epilogue_s8,
                     static_cast<std::byte*>(call.out) + offset * element_size(call.stage.output()),
                     channels};
  call.kernel.multiply(job);
  if (call.stage.has_passes())
    call.stage.finish({call.out, call.residual, offset, rows, lanes, channels}, call.kernels);
}

void require_input(const PackedLinear& weights, const LinearInput& input, const OutputStage& stage,
                   const void* residual) {
  if (weights.is_f32() ? input.type != DType::f32 : !is_byte(input.type))
    throw Error(ErrorKind::dtype, "x",
                std::string("expected ") + (weights.is_f32() ? "float32" : "uint8 or int8") +
                    " for these weights, got " + dtype_name(input.type));
  if (input.k != weights.in_channels())
    throw Error(
        ErrorKind::shape, "x",
        "expected " + std::to_string(weights.in_channels()) + " columns, got " + std::to_string(input.k));
  if (stage.f32_layer() != weights.is_f32() || stage.channels() != weights.out_channels())
    throw Error(ErrorKind::shape, "epilogue", "made for a layer of another type or channel count");
  if (stage.has_residual() != (residual != nullptr))
    throw Error(ErrorKind::argument, "residual", "needed exactly when the epilogue adds one");
  checked_product({input.rows, input.k, sizeof(float)}, "x");
  checked_product({input.rows, weights.out_channels(), sizeof(float)}, "x");
}

/// The steps of a single row, if these are fewer bytes and the core's own caches may not hold them.
std::unique_ptr<const PackedWindows> wide_windows(const CsrMatrix<std::int8_t>& weights,
                                                  const WindowKernels& kernels, const PackedWindows& narrow) {
  if (kernels.s8_wide.multiply == nullptr || narrow.bytes() < panel_budget() / 2) return nullptr;
  auto wide = std::make_unique<const PackedWindows>(pack_windows(weights, kernels.s8_wide));
  return wide->bytes() / 31 < narrow.bytes() / 32 ? std::move(wide) : nullptr;
}

}  // namespace

bool batch_pays(std::size_t rows, Isa isa) {
  const DenseKernels& kernels = kernel_table(isa).dense;
  const DenseKernel& faster = kernels.no_saturation.channels_in_rows;
  if (faster.multiply == kernels.general.channels_in_rows.multiply) return false;
  // Half lane blocks are multiplied where that is enough; a single row rides along at the price of two.
  const std::size_t half = faster.lane_block / 2, rest = rows % half;
  const std::size_t lanes = rows > half && rest == 1 ? rows + 1 : round_up(rows, half);
  return rows > 0 && 4 * lanes <= 5 * rows;
}

PackedLinear::PackedLinear(const LinearWeights<std::int8_t>& weights, Isa isa, std::size_t call_rows)
    : isa_(isa) {
  const auto pack = [&](WeightSide side) {
    return std::make_unique<const PackedWeights>(view_of(weights), side, kernel_table(isa));
  };
  if (batch_pays(call_rows, isa)) packed_ = pack(WeightSide::broadcast);
  batched_ = packed_ != nullptr && packed_->is_coupled();
  if (!batched_) packed_ = pack(WeightSide::lane);
}
PackedLinear::PackedLinear(const LinearWeights<float>& weights, Isa isa)
    : isa_(isa),
      packed_(std::make_unique<const PackedWeights>(view_of(weights), WeightSide::lane, kernel_table(isa))) {}
PackedLinear::PackedLinear(const CsrMatrix<std::int8_t>& weights, SparseKind kind, Isa isa)
    : isa_(isa),
      sparse_(std::make_unique<const SparseWeights>(weights, 1, kind, kernel_table(isa))),
      windows_(std::make_unique<const PackedWindows>(pack_windows(weights, kernel_table(isa).window.s8))),
      wide_windows_(wide_windows(weights, kernel_table(isa).window, *windows_)) {}
PackedLinear::PackedLinear(const CsrMatrix<float>& weights, SparseKind kind, Isa isa)
    : isa_(isa),
      sparse_(std::make_unique<const SparseWeights>(weights, 1, kind, kernel_table(isa))),
      windows_(std::make_unique<const PackedWindows>(pack_windows(weights, kernel_table(isa).window.f32))) {}
PackedLinear::~PackedLinear() = default;
PackedLinear::PackedLinear(PackedLinear&&) noexcept = default;
PackedLinear& PackedLinear::operator=(PackedLinear&&) noexcept = default;

std::optional<SparseKind> PackedLinear::sparse_kind() const {
  return sparse_ ? std::optional(sparse_->kind()) : std::nullopt;
}
bool PackedLinear::is_f32() const { return sparse_ ? sparse_->is_f32() : packed_->is_f32(); }
std::size_t PackedLinear::out_channels() const { return sparse_ ? sparse_->channels() : packed_->rows(); }
std::size_t PackedLinear::in_channels() const { return sparse_ ? sparse_->k() : packed_->source_k(); }
std::size_t PackedLinear::bytes() const {
  if (!sparse_) return packed_->bytes();
  return sparse_->bytes() + windows_->bytes() + (wide_windows_ ? wide_windows_->bytes() : 0);
}
std::size_t PackedLinear::executed_macs() const {
  if (sparse_) return sparse_->executed_macs();
  return round_up(packed_->rows(), packed_->block()) * packed_->padded_k();
}
const char* PackedLinear::variant_name() const {
  return sparse_ ? sparse_->variant_name() : packed_->variant_name();
}

void linear(const PackedLinear& weights, const LinearInput& input, const OutputStage& stage,
            const void* residual, void* out, int threads, Workspace& workspace) {
  require_input(weights, input, stage, residual);
  const KernelTable& kernels = kernel_table(weights.isa());
  const BatchCall batch{{stage, residual, out, threads, workspace.buffers(), kernels}, input};
  if (weights.is_sparse()) return linear_sparse({batch, weights.sparse(), weights.windows(input.rows)});
  if (weights.batched()) return linear_batched(batch, weights.packed());
  const PackedWeights& packed = weights.packed();
  const bool f32 = packed.is_f32();
  LinearCall call{batch, packed,
                  f32 ? kernels.dense.f32_channels_in_lanes : packed.variant().channels_in_lanes,
                  activation_form(input.type, input.zero_point, f32 ? 0 : packed.variant().flip),
                  packed.padded_k() * packed.element_size()};
  if (!f32) {
    call.buffers.folded_bias.resize(packed.rows());
    stage.fold_bias(packed.sums(), call.form.zero_point, call.buffers.folded_bias);
  }
  if (input.rows == 0 || packed.rows() == 0) return;
  choose_tiles(call);
  for_each_task(call.buffers, call.row_tiles * call.lane_tiles, threads,
                [&](WorkerScratch& scratch, std::size_t task) { run_task(call, scratch, task); });
}

}  // namespace gristmill
