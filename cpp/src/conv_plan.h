#pragma once

#include <cstddef>

#include "activation_form.h"
#include "gristmill/conv.h"
#include "layer_call.h"
#include "staging.h"

namespace gristmill {

/// One call of conv2d, checked: what its dense and its depthwise driver share.
struct ConvCall : LayerCall {
  const PackedConv& weights;
  const ConvInput& input;
  const PlaneLayout& layout;

  std::size_t in_plane() const { return input.height * input.width; }
  std::size_t input_elements() const { return input.batch * input.channels * in_plane(); }
  std::size_t element() const { return element_size(input.type); }
};

void conv2d_dense(const ConvCall& call);
/// The same of f32 layers whose rows slide (sliding_rows.h), if that is faster; false if nothing was done.
bool conv2d_sliding(const ConvCall& call);
void conv2d_depthwise(const ConvCall& call);
void conv2d_sparse(const ConvCall& call);

}  // namespace gristmill
