#include "linear_sparse.h"

#include <algorithm>
#include <cstring>

#include "activation_form.h"
#include "cache_budget.h"
#include "checked_size.h"

namespace gristmill {
namespace {

/// A call as passes over a few lane blocks of rows. Each pass multiplies, a task being one lane block and
/// part of the weights, and then transposes what was stored, [channels][lane_block], into the output.
struct LanePasses {
  const SparseLinearCall& call;
  ActivationForm form;
  std::size_t lane_block, panel_bytes;
  std::size_t blocks = 1, parts = 1;  // of a pass, and of the weights
  std::size_t first = 0;              // row of this pass
  std::size_t end = 0;                // of the rows that run in passes

  std::size_t channels() const { return call.channels(); }
  /// Whether panels of so many lanes hold words.
  bool in_words(std::size_t lanes) const {
    return call.weights.format().half_in_words && 2 * lanes <= lane_block;
  }
  std::size_t out_element() const { return element_size(call.stage.output()); }
  std::size_t block_lanes(std::size_t block) const {
    return std::min(lane_block, end - first - block * lane_block);
  }
  /// Where block `block` of this pass is stored before it is transposed.
  std::byte* stored(std::size_t block) const {
    return call.buffers.staged.data<std::byte>() + block * channels() * lane_block * out_element();
  }
};

/// What is before a panel: of words, a byte that is zero.
constexpr std::size_t kBeforePanel = AlignedBuffer::kAlignment;

/// Makes words of the first half of each panel row.
void widen(std::uint8_t* panel, std::size_t lane_block, std::size_t rows) {
  constexpr std::size_t kStep = 16;
  panel[-1] = 0;
  for (std::uint8_t* row = panel; row < panel + rows * lane_block; row += lane_block) {
    for (std::size_t end = lane_block / 2; end > 0; end -= kStep) {
      std::uint8_t bytes[kStep];
      std::uint16_t words[kStep];
      std::memcpy(bytes, row + end - kStep, sizeof bytes);
      std::copy_n(bytes, kStep, words);
      std::memcpy(row + 2 * (end - kStep), words, sizeof words);
    }
  }
}

/// Transposes the rows of one lane block into a panel.
void pack_panel(const LanePasses& passes, std::size_t row, std::size_t lanes, void* panel) {
  const SparseLinearCall& call = passes.call;
  const std::size_t stride = call.row_bytes(), k = call.input.k, lane_block = passes.lane_block;
  switch (panel_kind(call.weights.kind())) {
    case PanelKind::planar_u8:
      call.kernels.transpose.bytes({call.row(row), stride, panel, lane_block, lanes, k, passes.form.flip});
      if (passes.in_words(lanes)) widen(static_cast<std::uint8_t*>(panel), lane_block, k);
      return;
    case PanelKind::planar_f32:
      return call.kernels.transpose.words({call.row(row), stride, panel, lane_block * 4, lanes, k, 0});
    case PanelKind::quads:
      return pack_quads(call, row, lanes, lane_block, passes.form.flip, {}, panel);
  }
}

void multiply(const LanePasses& passes, WorkerScratch& scratch, std::size_t block, std::size_t part) {
  const SparseLinearCall& call = passes.call;
  const PackedSparse& packed = call.weights.group(0);
  const std::size_t row = passes.first + block * passes.lane_block;
  auto* panel =
      static_cast<std::byte*>(scratch.panel.reserve(kBeforePanel + passes.panel_bytes)) + kBeforePanel;
  const bool fresh = passes.first == 0 && scratch.packed_tile == WorkerScratch::kNone;
  if (scratch.packed_tile != block) pack_panel(passes, row, passes.block_lanes(block), panel);
  scratch.packed_tile = block;
  const bool f32 = call.weights.is_f32();
  const EpilogueF32 epilogue_f32 = f32 ? call.stage.kernel_f32(0) : EpilogueF32{};
  const EpilogueS8 epilogue_s8 = f32 ? EpilogueS8{} : call.stage.kernel_s8(call.buffers.folded_bias, 0);
  SparseJob job = sparse_job(packed);
  job.first_row = call.weights.part_start(0, part, passes.parts);
  job.last_row = call.weights.part_start(0, part + 1, passes.parts);
  job.panel = panel;
  job.far = fresh || packed.entries.size() > panel_budget();
  job.lanes = passes.block_lanes(block);
  job.words = passes.in_words(job.lanes);
  // What is stored has room for whole lane blocks, and bytes of whole or half ones are stored faster.
  if (!f32 && 4 * job.lanes > passes.lane_block) job.lanes = round_up(job.lanes, passes.lane_block / 2);
  if (packed.k_blocks > 1)
    job.accumulators = scratch.sums.reserve(packed.rows * call.weights.format().sum_bytes);
  job.epilogue = f32 ? static_cast<const void*>(&epilogue_f32) : &epilogue_s8;
  job.out = passes.stored(block);
  job.out_stride = passes.lane_block;
  call.weights.format().multiply(job);
}

void run_pass(const LanePasses& passes) {
  constexpr std::size_t kUnloaded = 128;  // channels of a task
  const SparseLinearCall& call = passes.call;
  const std::size_t left = ceil_div(passes.end - passes.first, passes.lane_block);
  const std::size_t blocks = std::min(passes.blocks, left), chunks = ceil_div(passes.channels(), kUnloaded);
  for_each_task(call.buffers, blocks * passes.parts, call.threads,
                [&](WorkerScratch& scratch, std::size_t task) {
                  multiply(passes, scratch, task / passes.parts, task % passes.parts);
                });
  for_each_task(call.buffers, blocks * chunks, call.threads, [&](WorkerScratch&, std::size_t task) {
    const std::size_t block = task / chunks, channel = task % chunks * kUnloaded;
    unload(call, {passes.stored(block) + channel * passes.lane_block * passes.out_element(),
                  passes.lane_block, passes.first + block * passes.lane_block, passes.block_lanes(block),
                  channel, std::min(kUnloaded, passes.channels() - channel)});
  });
}

void run_passes(LanePasses& passes) {
  const SparseLinearCall& call = passes.call;
  const std::size_t channels = passes.channels(), blocks = ceil_div(passes.end, passes.lane_block);
  const std::size_t chunks = ceil_div(channels, kRowChunk);
  const std::size_t threads = worker_count(blocks * chunks, call.threads);
  passes.blocks = threads == 1 ? 1 : std::min(blocks, 2 * threads);
  passes.parts = threads == 1 ? 1 : std::min(ceil_div(2 * threads, passes.blocks), chunks);
  call.buffers.staged.reserve(passes.blocks * channels * passes.lane_block * passes.out_element());
  for (; passes.first < passes.end; passes.first += passes.blocks * passes.lane_block) run_pass(passes);
}

/// Lays out the rows from `first` on as windows want them.
void lay_out_inputs(const SparseLinearCall& call, const ActivationForm& form, std::size_t first) {
  const LinearInput& input = call.input;
  const std::size_t element = element_size(input.type), bytes = input.k * element;
  const std::size_t stride = call.windows.input_elements() * element;
  const auto* x = static_cast<const std::uint8_t*>(input.data) + first * bytes;
  auto* to = static_cast<std::uint8_t*>(call.buffers.staged.reserve((input.rows - first) * stride));
  for (std::size_t row = first; row < input.rows; ++row, x += bytes, to += stride)
    call.windows.lay_out(x, element, form.flip, to);
}

/// Runs the rows from `first` on, a few at a time, in tasks of some groups of weights.
void run_windows(const SparseLinearCall& call, const ActivationForm& form, std::size_t first) {
  const PackedWindows& windows = call.windows;
  const std::size_t stride = windows.input_elements(), rows = call.input.rows - first;
  lay_out_inputs(call, form, first);
  const bool f32 = call.weights.is_f32();
  const EpilogueF32 epilogue_f32 = f32 ? call.stage.kernel_f32(0) : EpilogueF32{};
  const EpilogueS8 epilogue_s8 = f32 ? EpilogueS8{} : call.stage.kernel_s8(call.buffers.folded_bias, 0);
  constexpr std::size_t kTaskSteps = 512;
  const std::size_t parts = std::clamp<std::size_t>(
      std::min(windows.base.size() / kTaskSteps, 4 * worker_count(windows.groups(), call.threads)), 1,
      windows.groups());
  const std::size_t batches = ceil_div(rows, windows.format->at_once), batch = ceil_div(rows, batches);
  const std::size_t element = element_size(call.stage.output());
  for_each_task(call.buffers, batches * parts, call.threads, [&](WorkerScratch&, std::size_t task) {
    const std::size_t part = task / batches, input = task % batches * batch;
    WindowJob job{};
    job.entries = windows.entries.data();
    job.base = windows.base.data();
    job.start = windows.start.data();
    job.first_group = windows.groups() * part / parts;
    job.last_group = windows.groups() * (part + 1) / parts;
    job.weight_rows = windows.rows;
    job.x = call.buffers.staged.data<std::byte>() + input * stride * element_size(call.input.type);
    job.inputs = std::min(batch, rows - input);
    job.x_stride = stride;
    job.epilogue = f32 ? static_cast<const void*>(&epilogue_f32) : &epilogue_s8;
    const std::size_t offset = (first + input) * windows.rows;
    job.out = static_cast<std::byte*>(call.out) + offset * element;
    job.out_stride = windows.rows;
    windows.format->multiply(job);
    if (!call.stage.has_passes()) return;
    const std::size_t channel = job.first_group * windows.format->rows;
    const std::size_t end = std::min(job.last_group * windows.format->rows, windows.rows);
    call.stage.finish({call.out, call.residual, offset + channel, job.inputs, end - channel, windows.rows},
                      call.kernels);
  });
}

}  // namespace

void linear_sparse(const SparseLinearCall& call) {
  const SparseWeights& weights = call.weights;
  const std::size_t lane_block = weights.format().lane_block, rows = call.input.rows;
  const std::size_t padded_k = weights.kind() == SparseKind::blocks ? round_up(weights.k(), 4) : weights.k();
  LanePasses passes{call, activation_form(call.input.type, call.input.zero_point, 0), lane_block,
                    lane_block * padded_k * element_size(call.input.type)};
  if (!weights.is_f32()) {
    call.buffers.folded_bias.resize(weights.channels());
    call.stage.fold_bias(weights.sums(), passes.form.zero_point, call.buffers.folded_bias);
  }
  if (rows == 0 || weights.channels() == 0) return;
  const std::size_t left = rows % lane_block;
  passes.end = left <= call.windows.format->most_inputs ? rows - left : rows;
  if (passes.end > 0) run_passes(passes);
  if (passes.end < rows) run_windows(call, passes.form, passes.end);
}

}  // namespace gristmill
