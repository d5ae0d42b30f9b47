#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "conv_plan.h"

/// A convolution as tiles: packer x weight kernel x epilogue.
///
/// The driver cuts the output positions of every image and group into tiles of whole lane blocks, stages
/// images where that is needed, packs each tile into one panel for each lane block, and hands the tile to a
/// *weight kernel*, which multiplies it by all rows of the group's weights and stores finished outputs. What
/// a panel looks like is the weight kernel's choice; dense and sparse weights are two weight kernels. A task
/// is a tile, or some rows of it where tiles are few.
namespace gristmill {

/// The panels that a weight kernel reads.
struct PanelForm {
  PanelKind kind;
  std::size_t lane_block;
  std::size_t rows;                         ///< K, with the repeated rows
  std::span<const std::uint32_t> repeated;  ///< rows of the source that follow its last one once more
  ActivationForm activations;
  std::size_t budget;          ///< bytes that the panels of a tile may take together
  bool channel_quads = false;  ///< quads of which each is four channels of one tap

  std::size_t plane_channels() const { return channel_quads ? 4 : 1; }  ///< in a staged plane
  std::size_t element() const { return kind == PanelKind::planar_f32 ? sizeof(float) : 1; }
  std::size_t bytes() const {  ///< of one lane block's panel
    return lane_block * element() * (kind == PanelKind::quads ? (rows + 3) / 4 * 4 : rows);
  }
};

/// A packed tile: positions first .. first + lanes of one image and group.
struct PackedTile {
  const std::byte* panels;  ///< one after the other, PanelForm::bytes() each
  std::size_t image, group, first, lanes;
};

class WeightKernel {
 public:
  WeightKernel() = default;
  WeightKernel(const WeightKernel&) = delete;
  WeightKernel& operator=(const WeightKernel&) = delete;

  virtual PanelForm panel() const = 0;
  /// The most parts that the rows of a group can be split into.
  virtual std::size_t most_parts() const = 0;
  /// The first row of one of `parts` parts of about equal work; the number of rows for part == parts.
  virtual std::size_t part_start(std::size_t group, std::size_t part, std::size_t parts) const = 0;
  /// Multiplies rows first_row .. last_row of the tile's group by the tile and stores finished outputs.
  virtual void multiply(const PackedTile& tile, WorkerScratch& scratch, std::size_t first_row,
                        std::size_t last_row) const = 0;

 protected:
  ~WeightKernel() = default;
};

void conv2d_tiles(const ConvCall& conv, const WeightKernel& kernel);

}  // namespace gristmill
