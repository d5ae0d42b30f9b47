#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "gristmill/epilogue.h"
#include "gristmill/isa.h"
#include "gristmill/packed_sparse.h"
#include "gristmill/sparse.h"
#include "gristmill/workspace.h"

/// Convolution of images in NCHW: y[n, m, oh, ow] = epilogue(sum over c, kh, kw of w[m, c, kh, kw] * x[n, c,
/// ih, iw]) with ih = oh * stride_h + kh * dilation_h - pad_top, and padding that reads as the zero point of
/// x, so that borders are exact.
///
/// Each image and group is one product Y[M, P] = W[M, K] · X[K, P] of dense_kernels.h, with K = (c, kh, kw)
/// and P the output pixels. X exists only as panels: a tile of P is packed (panel_kernels.h), multiplied by
/// all rows of W and stored, while panel and output are in cache. A tile may end in the middle of an output
/// row and span many rows of a small plane.
///
/// Staging. Packing wants the elements that a tap reads for neighbouring output pixels to be neighbours in
/// memory. In an unpadded convolution of stride 1 they are, and the input is read in place: 1x1 layers are
/// never copied. Otherwise the planes of an image are copied, with their padding, and split into one plane
/// for each (row mod stride, column mod stride): in each of these a step of the stride is a step of one.
/// Padding, stride and dilation end there; packers and kernels know nothing of them. Every thread copies
/// what it multiplies, even if another does too: a core writes to its own cache in less than a nanosecond for
/// each line, but takes twenty times as long where another core has read what is to be overwritten.
///
/// Where those planes are as wide as the output, they go without padding (shifted_planes.h): a tap then reads
/// one stretch of memory for all lanes of a tile, and a mask blanks out what is padding. Of padded layers
/// that keep the image's size nothing is copied but panels.
///
/// Where K is small and rows of the output are long, dense f32 layers take neither: rows of the image, copied
/// once for each tap column, slide past the kernel as one matrix (sliding_rows.h).
///
/// Dense int8 kernels multiply groups of four K. Where images are staged and channels come in fours, a group
/// is four channels of one tap, K = (c / 4, kh, kw, c % 4), and four planes are staged as one plane of
/// *quads*: the four bytes of a pixel are side by side for every tap, and panels are packed by copying them.
///
/// Groups of one input channel with few outputs each are a depthwise convolution, which has kernels of its
/// own (depthwise_kernels.h) that gather from the input as it is, or read staged planes directly.
///
/// Weights given as a CsrMatrix run in the sparse format that is asked for, whatever their shape: only what
/// is not zero is multiplied. Results are those of dense weights, bit for bit in int8.
namespace gristmill {

struct ConvAttributes {
  std::int64_t stride_h = 1, stride_w = 1;
  std::int64_t dilation_h = 1, dilation_w = 1;
  std::int64_t pad_top = 0, pad_left = 0, pad_bottom = 0, pad_right = 0;
  std::int64_t groups = 1;
};

/// The extent of a kernel.
struct ConvKernel {
  std::size_t height, width;
  std::size_t taps() const { return height * width; }
};

class PackedWeights;
class DepthwiseWeights;
class SparseWeights;
struct WeightSums;

/// The weights of a convolution, packed for one level: their layout is that level's and is never stored.
class PackedConv {
 public:
  /// Weights are [out channels][in channels / groups][kernel rows][kernel columns], contiguous. Throws Error
  /// if shape or attributes make no sense, and Error(limit) if an int32 accumulator could overflow.
  PackedConv(const std::int8_t* weights, const std::array<std::size_t, 4>& shape,
             const ConvAttributes& attributes, Isa isa);
  PackedConv(const float* weights, const std::array<std::size_t, 4>& shape, const ConvAttributes& attributes,
             Isa isa);
  /// Row m of the matrix holds the weights of output channel m, in the order of `shape`. The kind is quads or
  /// blocks for int8 and singles for f32; else Error(argument).
  PackedConv(const CsrMatrix<std::int8_t>& weights, SparseKind kind, const std::array<std::size_t, 4>& shape,
             const ConvAttributes& attributes, Isa isa);
  PackedConv(const CsrMatrix<float>& weights, SparseKind kind, const std::array<std::size_t, 4>& shape,
             const ConvAttributes& attributes, Isa isa);
  ~PackedConv();
  PackedConv(PackedConv&&) noexcept;
  PackedConv& operator=(PackedConv&&) noexcept;

  Isa isa() const { return isa_; }
  bool is_f32() const { return f32_; }
  bool is_depthwise() const { return channels_ != nullptr; }
  bool is_sparse() const { return sparse_ != nullptr; }
  /// The sparse format, if it is one.
  std::optional<SparseKind> sparse_kind() const;
  const ConvAttributes& attributes() const { return attributes_; }
  const std::array<std::size_t, 4>& shape() const { return shape_; }
  ConvKernel kernel() const { return {shape_[2], shape_[3]}; }
  std::size_t groups() const { return static_cast<std::size_t>(attributes_.groups); }
  std::size_t out_channels() const { return shape_[0]; }
  std::size_t in_channels() const { return shape_[1] * groups(); }
  std::size_t bytes() const;
  /// Multiplications for each output position, those of zeros that are executed included.
  std::size_t executed_macs() const;
  const char* variant_name() const;
  /// Whether K is (c / 4, kh, kw, c % 4), and not (c, kh, kw).
  bool has_channel_quads() const { return channel_quads_; }

  /// Rows and columns of the output; throws Error(shape) if the padded image is smaller than the kernel.
  std::array<std::size_t, 2> output_size(std::size_t height, std::size_t width) const;

  /// The one of these that is_depthwise() and is_sparse() name.
  const PackedWeights& dense() const { return *dense_; }
  const DepthwiseWeights& depthwise() const { return *channels_; }
  const SparseWeights& sparse() const { return *sparse_; }
  /// Of the output channels; empty for f32.
  const WeightSums& sums() const;

 private:
  template <class T>
  void pack(const T* weights);
  template <class T>
  void pack_sparse(const CsrMatrix<T>& weights, SparseKind kind);

  std::array<std::size_t, 4> shape_;
  ConvAttributes attributes_;
  Isa isa_;
  bool f32_, channel_quads_ = false;
  std::unique_ptr<const PackedWeights> dense_;
  std::unique_ptr<const DepthwiseWeights> channels_;
  std::unique_ptr<const SparseWeights> sparse_;
};

/// Images, contiguous in NCHW.
struct ConvInput {
  const void* data;
  DType type;  ///< u8 or s8 for int8 weights, f32 for f32 weights
  std::size_t batch, channels, height, width;
  std::int32_t zero_point = 0;
  /// Elements behind the last one that may be read without harm.
  std::size_t readable_slack = 0;
};

/// Writes the whole output [batch][out channels][output rows][output columns], contiguous, of stage.output().
/// `residual` has the same shape and is null unless the stage adds one; it may not overlap the output. Runs
/// at the weights' level. Throws Error before anything is written.
void conv2d(const PackedConv& weights, const ConvInput& input, const OutputStage& stage, const void* residual,
            void* out, int threads, Workspace& workspace);

}  // namespace gristmill
