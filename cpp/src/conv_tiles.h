#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "conv_plan.h"

/// A convolution as tiles: packer x weight kernel x epilogue.
///
/// The driver cuts the output positions of every image and group into tiles of whole lane blocks, stages
/// images where that is needed, and hands each tile to a *weight kernel*, which has it packed into one panel
/// for each lane block, or one stretch of a panel at a time, multiplies that by all rows of the group's
/// weights and stores finished outputs. Planes that are a matrix as they lie may be read from there. What a
/// panel looks like is the weight kernel's choice; dense and sparse weights are two weight kernels. A task is
/// a tile, or some rows of it where tiles are few.
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
  /// Of weights with zeros: panel_rows() is called, so that each part of a tile's rows packs anew, and a part
  /// of a lane block takes as long as all of it; and the rows of a part lie apart in the output.
  bool sparse = false;
  std::size_t depth = 4;  ///< of quads: panels have a multiple of so many rows

  std::size_t plane_channels() const { return channel_quads ? 4 : 1; }  ///< in a staged plane
  std::size_t element() const { return kind == PanelKind::planar_f32 ? sizeof(float) : 1; }
  std::size_t bytes_of(std::size_t some_rows) const {
    return lane_block * element() *
           (kind == PanelKind::quads ? (some_rows + depth - 1) / depth * depth : some_rows);
  }
  std::size_t bytes() const { return bytes_of(rows); }  ///< of one lane block's panel
};

/// A tile: positions first .. first + lanes of one image and group.
class Tile {
 public:
  std::size_t image, group, first, lanes;

  /// All its panels, one after the other, PanelForm::bytes() each.
  virtual const std::byte* panels() const = 0;
  /// Rows first_k .. first_k + rows of the panel that begins at that lane, which repeats none of its rows.
  /// Both are multiples of 4, or the rows end the panel. They last until the next call.
  const std::byte* panel_rows(std::size_t lane, std::size_t first_k, std::size_t rows) const {
    return panel_rows(lane, 1, first_k, rows);
  }
  /// The same of several panels, one after the other.
  virtual const std::byte* panel_rows(std::size_t lane, std::size_t panels, std::size_t first_k,
                                      std::size_t rows) const = 0;

 protected:
  Tile(std::size_t of_image, std::size_t of_group, std::size_t first_position, std::size_t positions)
      : image(of_image), group(of_group), first(first_position), lanes(positions) {}
  ~Tile() = default;
};

class WeightKernel {
 public:
  WeightKernel() = default;
  WeightKernel(const WeightKernel&) = delete;
  WeightKernel& operator=(const WeightKernel&) = delete;

  virtual PanelForm panel() const = 0;
  /// The most parts that the rows of a group can be split into.
  virtual std::size_t most_parts() const = 0;
  /// What multiplying by a row takes, of the time of a row without zeros.
  virtual double row_time() const { return 1; }
  /// The first row of one of `parts` parts of about equal work; the number of rows for part == parts.
  virtual std::size_t part_start(std::size_t group, std::size_t part, std::size_t parts) const = 0;
  /// Multiplies rows first_row .. last_row of the tile's group by the tile and stores finished outputs.
  virtual void multiply(const Tile& tile, WorkerScratch& scratch, std::size_t first_row,
                        std::size_t last_row) const = 0;

 protected:
  ~WeightKernel() = default;
};

void conv2d_tiles(const ConvCall& conv, const WeightKernel& kernel);

}  // namespace gristmill
