#include "gristmill/conv.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "aligned_buffer.h"
#include "checked_size.h"
#include "conv_plan.h"
#include "depthwise_weights.h"
#include "gristmill/error.h"
#include "packed_weights.h"
#include "sparse_weights.h"

namespace gristmill {
namespace {

/// Bounds every extent so that sums and products of two of them fit in 64 bits.
constexpr std::int64_t kMostExtent = std::numeric_limits<std::int32_t>::max();

/// Output channels for each group's single input channel up to which the depthwise kernels take a layer.
constexpr std::size_t kMostMultiplier = 8;

void require_extent(std::int64_t value, std::int64_t least, const char* where) {
  if (value < least)
    throw Error(ErrorKind::argument, where,
                "expected " + std::to_string(least) + " or more, got " + std::to_string(value));
  if (value > kMostExtent)
    throw Error(ErrorKind::limit, where, std::to_string(value) + " is beyond " + std::to_string(kMostExtent));
}

void require_attributes(const ConvAttributes& a, const std::array<std::size_t, 4>& shape) {
  for (std::int64_t stride : {a.stride_h, a.stride_w}) require_extent(stride, 1, "stride");
  for (std::int64_t dilation : {a.dilation_h, a.dilation_w}) require_extent(dilation, 1, "dilation");
  for (std::int64_t pad : {a.pad_top, a.pad_left, a.pad_bottom, a.pad_right})
    require_extent(pad, 0, "padding");
  require_extent(a.groups, 1, "groups");
  for (std::size_t extent : shape) {
    if (extent == 0)
      throw Error(ErrorKind::shape, "weights", "expected (out, in / groups, rows, columns), none of them 0");
    if (extent > static_cast<std::size_t>(kMostExtent))
      throw Error(ErrorKind::limit, "weights", std::to_string(extent) + " is too large an extent");
  }
  if (shape[0] % static_cast<std::size_t>(a.groups) != 0)
    throw Error(
        ErrorKind::argument, "groups",
        std::to_string(a.groups) + " does not divide the " + std::to_string(shape[0]) + " output channels");
}

std::size_t output_extent(std::size_t size, std::int64_t before, std::int64_t after, std::size_t kernel,
                          std::int64_t dilation, std::int64_t stride, const char* axis) {
  if (size > static_cast<std::size_t>(kMostExtent))
    throw Error(ErrorKind::limit, "x", std::string("too many ") + axis + ": " + std::to_string(size));
  const std::int64_t padded = static_cast<std::int64_t>(size) + before + after;
  const std::int64_t covered = (static_cast<std::int64_t>(kernel) - 1) * dilation + 1;
  if (padded < covered)
    throw Error(ErrorKind::shape, "x",
                std::to_string(size) + " " + axis + ", " + std::to_string(padded) +
                    " with padding, are fewer than the " + std::to_string(covered) +
                    " that the kernel covers");
  return static_cast<std::size_t>((padded - covered) / stride + 1);
}

void require_input(const PackedConv& weights, const ConvInput& input) {
  if (weights.is_f32() ? input.type != DType::f32 : !is_byte(input.type))
    throw Error(ErrorKind::dtype, "x",
                std::string("expected ") + (weights.is_f32() ? "float32" : "uint8 or int8") +
                    " for these weights, got " + dtype_name(input.type));
  if (input.channels != weights.in_channels())
    throw Error(ErrorKind::shape, "x",
                "expected " + std::to_string(weights.in_channels()) + " channels, got " +
                    std::to_string(input.channels));
  activation_form(input.type, input.zero_point, 0);
}

/// Whether groups of four K are to be channels of one tap: where images are staged in any case. A weight of
/// -128 repeats its column of K alone, and not the whole group.
bool takes_channel_quads(const std::int8_t* weights, const std::array<std::size_t, 4>& shape,
                         const ConvAttributes& a) {
  const std::size_t taps = shape[2] * shape[3], count = shape[0] * shape[1] * taps;
  const bool plain =
      taps == 1 && a.stride_h * a.stride_w == 1 && a.pad_top + a.pad_left + a.pad_bottom + a.pad_right == 0;
  return !plain && shape[1] % 4 == 0 && std::memchr(weights, 0x80, count) == nullptr;
}
bool takes_channel_quads(const float*, const std::array<std::size_t, 4>&, const ConvAttributes&) {
  return false;
}

/// The weights with K = (c / 4, kh, kw, c % 4).
template <class T>
AlignedBuffer in_channel_quads(const T* weights, const std::array<std::size_t, 4>& shape,
                               const KernelTable& kernels) {
  const std::size_t taps = shape[2] * shape[3], quads = shape[0] * shape[1] / 4;
  AlignedBuffer ordered(quads * taps * 4 * sizeof(T));
  T* to = ordered.data<T>();
  if constexpr (sizeof(T) == 1) {
    kernels.weight.interleave(weights, quads, taps, to);
  } else {
    for (std::size_t quad = 0; quad < quads; ++quad, weights += 4 * taps)
      for (std::size_t tap = 0; tap < taps; ++tap)
        for (std::size_t c = 0; c < 4; ++c) *to++ = weights[c * taps + tap];
  }
  return ordered;
}

template <class T>
CsrMatrix<T> in_channel_quads(const CsrMatrix<T>& weights, const std::array<std::size_t, 4>& shape,
                              const KernelTable& kernels) {
  std::vector<T> dense(weights.rows() * weights.columns());
  weights.to_dense(dense);
  const AlignedBuffer ordered = in_channel_quads(dense.data(), shape, kernels);
  return CsrMatrix<T>::from_dense({ordered.data<T>(), dense.size()}, weights.rows(), weights.columns());
}

}  // namespace

PackedConv::PackedConv(const std::int8_t* weights, const std::array<std::size_t, 4>& shape,
                       const ConvAttributes& attributes, Isa isa)
    : shape_(shape), attributes_(attributes), isa_(isa), f32_(false) {
  pack(weights);
}

PackedConv::PackedConv(const float* weights, const std::array<std::size_t, 4>& shape,
                       const ConvAttributes& attributes, Isa isa)
    : shape_(shape), attributes_(attributes), isa_(isa), f32_(true) {
  pack(weights);
}

PackedConv::PackedConv(const CsrMatrix<std::int8_t>& weights, SparseKind kind,
                       const std::array<std::size_t, 4>& shape, const ConvAttributes& attributes, Isa isa)
    : shape_(shape), attributes_(attributes), isa_(isa), f32_(false) {
  pack_sparse(weights, kind);
}

PackedConv::PackedConv(const CsrMatrix<float>& weights, SparseKind kind,
                       const std::array<std::size_t, 4>& shape, const ConvAttributes& attributes, Isa isa)
    : shape_(shape), attributes_(attributes), isa_(isa), f32_(true) {
  pack_sparse(weights, kind);
}

template <class T>
void PackedConv::pack_sparse(const CsrMatrix<T>& weights, SparseKind kind) {
  require_attributes(attributes_, shape_);
  const std::size_t k = checked_product({shape_[1], shape_[2], shape_[3]}, "weights");
  if (weights.rows() != shape_[0] || weights.columns() != k)
    throw Error(ErrorKind::shape, "weights",
                "the matrix is " + std::to_string(weights.rows()) + " x " +
                    std::to_string(weights.columns()) + ", but the shape asks for " +
                    std::to_string(shape_[0]) + " x " + std::to_string(k));
  // So that a block is four channels of one tap, which is what prunes well. With one tap it is that anyway.
  channel_quads_ = kind == SparseKind::blocks && shape_[2] * shape_[3] > 1 && shape_[1] % 4 == 0;
  sparse_ = std::make_unique<const SparseWeights>(
      channel_quads_ ? in_channel_quads(weights, shape_, kernel_table(isa_)) : weights, groups(), kind,
      kernel_table(isa_));
}

template <class T>
void PackedConv::pack(const T* weights) {
  require_attributes(attributes_, shape_);
  const KernelTable& kernels = kernel_table(isa_);
  const std::size_t rows = shape_[0] / groups();
  const std::size_t k = checked_product({shape_[1], shape_[2], shape_[3]}, "weights");
  WeightView<T> view{weights, groups(), rows, k, k, 1};
  if (shape_[1] == 1 && rows <= kMostMultiplier) {
    channels_ = std::make_unique<const DepthwiseWeights>(view, kernel(), kernels);
    return;
  }
  AlignedBuffer ordered;
  channel_quads_ = takes_channel_quads(weights, shape_, attributes_);
  if (channel_quads_ && shape_[2] * shape_[3] > 1) {  // else they are in that order
    ordered = in_channel_quads(weights, shape_, kernels);
    view.data = ordered.data<T>();
  }
  dense_ = std::make_unique<const PackedWeights>(view, WeightSide::broadcast, kernels);
}

PackedConv::~PackedConv() = default;
PackedConv::PackedConv(PackedConv&&) noexcept = default;
PackedConv& PackedConv::operator=(PackedConv&&) noexcept = default;

std::optional<SparseKind> PackedConv::sparse_kind() const {
  return is_sparse() ? std::optional(sparse_->kind()) : std::nullopt;
}

std::size_t PackedConv::bytes() const {
  if (is_sparse()) return sparse_->bytes();
  return is_depthwise() ? channels_->bytes() : dense_->bytes();
}

std::size_t PackedConv::executed_macs() const {
  if (is_sparse()) return sparse_->executed_macs();
  return is_depthwise() ? shape_[0] * shape_[2] * shape_[3] : dense_->channels() * dense_->padded_k();
}

const char* PackedConv::variant_name() const {
  if (is_sparse()) return sparse_->variant_name();
  if (!is_depthwise()) return dense_->variant_name();
  return f32_ ? "f32 depthwise" : "s8 depthwise";
}

const WeightSums& PackedConv::sums() const {
  if (is_sparse()) return sparse_->sums();
  return is_depthwise() ? channels_->sums() : dense_->sums();
}

std::array<std::size_t, 2> PackedConv::output_size(std::size_t height, std::size_t width) const {
  const ConvAttributes& a = attributes_;
  return {output_extent(height, a.pad_top, a.pad_bottom, shape_[2], a.dilation_h, a.stride_h, "rows"),
          output_extent(width, a.pad_left, a.pad_right, shape_[3], a.dilation_w, a.stride_w, "columns")};
}

void conv2d(const PackedConv& weights, const ConvInput& input, const OutputStage& stage, const void* residual,
            void* out, int threads, Workspace& workspace) {
  require_input(weights, input);
  if (stage.f32_layer() != weights.is_f32() || stage.channels() != weights.out_channels())
    throw Error(ErrorKind::shape, "epilogue", "made for a layer of another type or channel count");
  if (stage.has_residual() != (residual != nullptr))
    throw Error(ErrorKind::argument, "residual", "needed exactly when the epilogue adds one");
  Workspace::Buffers& buffers = workspace.buffers();
  buffers.layout.lay_out(weights, input.height, input.width);
  checked_product({input.batch, weights.out_channels(), buffers.layout.positions(), sizeof(float)}, "x");
  checked_product({input.batch, input.channels, input.height, input.width, sizeof(float)}, "x");
  checked_product({input.channels, buffers.layout.plane_elements(), sizeof(float)}, "x");
  if (input.batch == 0) return;
  const ConvCall call{
      {stage, residual, out, threads, buffers, kernel_table(weights.isa())}, weights, input, buffers.layout};
  if (weights.is_sparse())
    conv2d_sparse(call);
  else
    weights.is_depthwise() ? conv2d_depthwise(call) : conv2d_dense(call);
}

}  // namespace gristmill
