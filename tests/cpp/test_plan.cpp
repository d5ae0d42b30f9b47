#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "allocation_count.h"
#include "gristmill/plan.h"
#include "gristmill/steps/copy.h"
#include "gristmill/steps/elementwise.h"
#include "gristmill/steps/index.h"
#include "gristmill/steps/layers.h"
#include "gristmill/steps/pool.h"
#include "gristmill/steps/reduce.h"
#include "guarded_buffer.h"
#include "harness.h"

using namespace gristmill;
using namespace harness;

namespace {

Tensor arena(std::size_t offset, DType dtype, std::vector<std::size_t> shape) {
  return {{dtype, std::move(shape)}, Place::arena, 0, offset, nullptr};
}
Tensor input(DType dtype, std::vector<std::size_t> shape) {
  return {{dtype, std::move(shape)}, Place::input, 0, 0, nullptr};
}
Tensor output(DType dtype, std::vector<std::size_t> shape) {
  return {{dtype, std::move(shape)}, Place::output, 0, 0, nullptr};
}

bool run(const Plan& plan, const void* x, void* out, int threads, RunWatch* watch = nullptr) {
  const void* inputs[] = {x};
  void* outputs[] = {out};
  return plan.run(inputs, outputs, threads, watch);
}

template <class T>
std::shared_ptr<const OutputStage> plain_stage(const T& weights) {
  Epilogue epilogue;
  epilogue.output = weights.is_f32() ? DType::f32 : DType::s32;
  return std::make_shared<const OutputStage>(epilogue, weights.out_channels(), weights.is_f32());
}

/// A small network with a step of each hot family: 1 x 4 x 16 x 16 bytes to 8 reals.
std::unique_ptr<Plan> small_network() {
  const std::vector<std::size_t> image{1, 4, 16, 16}, conv{1, 8, 16, 16}, pooled{1, 8, 8, 8}, mean{1, 8};
  auto plan = std::make_unique<Plan>(32768, std::vector<TensorType>{{DType::u8, image}},
                                     std::vector<TensorType>{{DType::f32, {1, 8}}});
  const std::vector<std::int8_t> taps(8 * 4 * 9, 3);
  ConvAttributes attributes;
  attributes.pad_top = attributes.pad_left = attributes.pad_bottom = attributes.pad_right = 1;
  const auto packed = std::make_shared<const PackedConv>(taps.data(), std::array<std::size_t, 4>{8, 4, 3, 3},
                                                         attributes, active_isa());
  const Tensor flipped = arena(0, DType::u8, image), sums = arena(1024, DType::s32, conv);
  const Tensor reals = arena(9216, DType::f32, conv), small = arena(17408, DType::f32, pooled);
  const TensorView backward{input(DType::u8, image), image, {1024, 256, 16, -1}, 15};
  plan->add("flip", [&] { return copy_step(backward, TensorView::whole(flipped)); });
  plan->add("conv", [&] { return conv_step({flipped}, sums, packed, plain_stage(*packed)); });
  plan->add("abs", [&] { return unary_step("abs", sums, sums, {}); });
  plan->add("cast", [&] { return cast_step(sums, reals); });
  plan->add("pool", [&] {
    const PoolWindow window{{3, 3}, {2, 2}, {1, 1}, {1, 1}, {1, 1}};
    return pool_step(PoolKind::max, window, reals, small);
  });
  plan->add("mean", [&] { return reduce_step("mean", small, output(DType::f32, mean), {2, 3}); });
  plan->freeze();
  return plan;
}

}  // namespace

TEST(plan_allocates_nothing_after_its_first_run) {
  const auto plan = small_network();
  const std::vector<std::uint8_t> x(1024, 7);
  std::vector<float> out(8);
  const std::size_t before_first = allocation_count();
  run(*plan, x.data(), out.data(), 1);
  CHECK(allocation_count() > before_first);
  const std::size_t before = allocation_count();
  for (int i = 0; i < 10; ++i) run(*plan, x.data(), out.data(), 1);
  CHECK_EQ(allocation_count() - before, std::size_t{0});
}

TEST(plan_runs_on_many_threads_at_once) {
  Plan plan(64, {{DType::f32, {16}}}, {{DType::f32, {16}}});
  const Tensor at = arena(0, DType::f32, {16});
  plan.add("to", [&] { return unary_step("neg", input(DType::f32, {16}), at, {}); });
  plan.add("back", [&] { return unary_step("abs", at, output(DType::f32, {16}), {}); });
  plan.freeze();
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 20; ++t)
    threads.emplace_back([&, t] {
      const std::vector<float> x(16, static_cast<float>(t));
      std::vector<float> out(16);
      for (int i = 0; i < 200; ++i) {
        run(plan, x.data(), out.data(), 1);
        if (out != x) ++wrong;
      }
    });
  for (std::thread& thread : threads) thread.join();
  CHECK_EQ(wrong.load(), 0);
}

TEST(plan_stops_when_its_watch_says_so) {
  struct Watch final : RunWatch {
    int asked = 0;
    bool wants_stop() override { return ++asked == 2; }
  };
  constexpr std::size_t kCount = 1 << 20;
  Plan plan(0, {{DType::f32, {kCount}}}, {{DType::f32, {kCount}}});
  for (int i = 0; i < 200; ++i)
    plan.add("cos", [&] {
      return unary_step("cos", input(DType::f32, {kCount}), output(DType::f32, {kCount}), {});
    });
  plan.freeze();
  Watch watch;
  const std::vector<float> x(kCount);
  std::vector<float> out(kCount);
  CHECK(!run(plan, x.data(), out.data(), 1, &watch));
  CHECK_EQ(watch.asked, 2);
}

TEST(plan_names_the_step_in_errors) {
  Plan plan(16, {}, {});
  try {
    plan.add("layer",
             [&] { return unary_step("neg", arena(0, DType::f32, {4}), arena(8, DType::f32, {4}), {}); });
    CHECK(false);
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::limit);
    CHECK(error.where() == "layer");
    CHECK(error.reason().starts_with("out: "));
  }
}

/// Steps read and write their tensors and nothing beside: every tensor touches an inaccessible page.
ISA_TEST(plan_steps_stay_within_their_tensors) {
  const Isa before = active_isa();
  set_active_isa(isa);
  for (std::size_t width : {1, 2, 3, 7, 16, 31, 64, 65})
    for (std::size_t stride : {1, 2, 3})
      for (Edge edge : {Edge::low, Edge::high}) {
        const std::size_t out_width = (width + 2 - 3) / stride + 1;
        const std::vector<std::size_t> in_shape{1, 2, 3, width}, out_shape{1, 2, 3, out_width};
        Plan plan(0, {{DType::u8, in_shape}}, {{DType::u8, out_shape}});
        const auto columns = static_cast<std::int64_t>(stride);
        plan.add("pool", [&] {
          const PoolWindow window{{3, 3}, {1, columns}, {1, 1}, {1, 1}, {1, 1}};
          return pool_step(PoolKind::max, window, input(DType::u8, in_shape), output(DType::u8, out_shape));
        });
        plan.freeze();
        GuardedBuffer<std::uint8_t> x(6 * width, edge), out(6 * out_width, edge);
        for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<std::uint8_t>(255 * i / x.size());
        run(plan, x.data(), out.data(), 1);
        // The last window ends in the last row or the padding below, so its greatest is the row's own.
        const std::size_t center = (out_width - 1) * stride;
        CHECK_EQ(out[out.size() - 1], x[5 * width + std::min(center + 1, width - 1)]);
      }
  set_active_isa(before);
}
