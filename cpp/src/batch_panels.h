#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "gristmill/linear.h"
#include "layer_call.h"

/// What linear layers do where the rows of a batch are the lanes: blocks of rows become panels, as those of
/// pixels do in a convolution, and what kernels store, [channels][lanes], becomes rows again.
namespace gristmill {

/// A call of linear(), checked.
struct BatchCall : LayerCall {
  const LinearInput& input;

  std::size_t channels() const { return stage.channels(); }
  std::size_t row_bytes() const { return input.k * element_size(input.type); }
  const std::uint8_t* row(std::size_t row) const {
    return static_cast<const std::uint8_t*>(input.data) + row * row_bytes();
  }
};

/// Transposes `lanes` rows of bytes XOR flip, from `row` on, into a quad panel of one lane block. Columns
/// that are repeated follow the input's own.
void pack_quads(const BatchCall& call, std::size_t row, std::size_t lanes, std::size_t lane_block,
                std::uint8_t flip, const std::vector<std::uint32_t>& repeated, void* panel);

/// Outputs as kernels store them: [count][stride] elements, of which the first `lanes` are rows of the batch.
struct LaneOutputs {
  const void* from;
  std::size_t stride;
  std::size_t row, lanes;
  std::size_t channel, count;
};

/// Transposes them into the output, and runs the passes of the epilogue.
void unload(const BatchCall& call, const LaneOutputs& outputs);

}  // namespace gristmill
