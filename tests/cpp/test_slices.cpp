#include <array>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "allocation_count.h"
#include "gristmill/plan.h"
#include "gristmill/steps/elementwise.h"
#include "gristmill/steps/index.h"
#include "gristmill/steps/slices.h"
#include "harness.h"

using namespace gristmill;
using namespace harness;

namespace {

constexpr std::size_t kWidth = 5;

Tensor reals(Place place, std::size_t rows, std::size_t offset = 0, std::size_t index = 0) {
  return {{DType::f32, {rows, kWidth}}, place, index, offset, nullptr};
}

TensorType type(std::size_t rows) { return {DType::f32, {rows, kWidth}}; }

/// y = |-x| + x through an arena of its own, for that many rows.
std::shared_ptr<Plan> part_of(std::size_t rows) {
  auto part = std::make_shared<Plan>(rows * kWidth * 4, std::vector{type(rows)}, std::vector{type(rows)});
  const Tensor x = reals(Place::input, rows), at = reals(Place::arena, rows);
  part->add("neg", [&] { return unary_step("neg", x, at, {}); });
  part->add("abs", [&] { return unary_step("abs", at, at, {}); });
  part->add("add", [&] { return binary_step("add", at, x, reals(Place::output, rows)); });
  part->freeze();
  return part;
}

/// The same for `rows` in slices, its result negated.
std::unique_ptr<Plan> sliced(std::size_t rows, const std::shared_ptr<const Plan>& part) {
  auto plan = std::make_unique<Plan>(rows * kWidth * 4, std::vector{type(rows)}, std::vector{type(rows)});
  const Tensor at = reals(Place::arena, rows);
  plan->add("slices", [&] { return slices_step(part, {reals(Place::input, rows)}, {at}); });
  plan->add("neg", [&] { return unary_step("neg", at, reals(Place::output, rows), {}); });
  plan->freeze();
  return plan;
}

bool run(const Plan& plan, const void* x, void* out, int threads, RunWatch* watch = nullptr,
         std::span<double> seconds = {}) {
  const void* inputs[] = {x};
  void* outputs[] = {out};
  return plan.run(inputs, outputs, threads, watch, seconds);
}

template <class Make>
void check_refused(ErrorKind kind, const std::string& reason, const Make& make) {
  try {
    static_cast<void>(make());
    CHECK(false);
  } catch (const Error& error) {
    CHECK(error.kind() == kind);
    CHECK(error.reason().find(reason) != std::string::npos);
  }
}

}  // namespace

TEST(slices_compute_what_the_whole_would) {
  for (std::size_t rows : {1, 2, 3, 12})
    for (std::size_t slice : {1, 2, 3, 12}) {
      if (rows % slice != 0) continue;
      const auto plan = sliced(rows, part_of(slice));
      for (int threads : {1, 2, 3, 5}) {
        std::vector<float> x(rows * kWidth), out(rows * kWidth, 7), wanted(rows * kWidth);
        for (std::size_t i = 0; i < x.size(); ++i) {
          x[i] = static_cast<float>(i) - 9;
          wanted[i] = -(std::abs(x[i]) + x[i]);
        }
        CHECK(run(*plan, x.data(), out.data(), threads));
        CHECK(out == wanted);
      }
    }
}

TEST(slices_may_hold_slices) {
  const std::shared_ptr<const Plan> middle = sliced(4, part_of(2));
  const auto plan = sliced(12, middle);
  const std::vector<float> x(12 * kWidth, 3.0F);
  std::vector<float> out(12 * kWidth);
  CHECK(run(*plan, x.data(), out.data(), 1));
  CHECK(out == std::vector<float>(12 * kWidth, 6.0F));
  CHECK_EQ(plan->measured_steps(), std::size_t{5});
}

TEST(slices_allocate_nothing_after_the_first_run) {
  const auto plan = sliced(6, part_of(2));
  const std::vector<float> x(6 * kWidth, 1.0F);
  std::vector<float> out(6 * kWidth);
  run(*plan, x.data(), out.data(), 1);
  const std::size_t before = allocation_count();
  for (int i = 0; i < 10; ++i) run(*plan, x.data(), out.data(), 1);
  CHECK_EQ(allocation_count() - before, std::size_t{0});
}

TEST(slices_are_measured_step_by_step) {
  const auto plan = sliced(6, part_of(2));
  const std::vector<float> x(6 * kWidth, 1.0F);
  std::vector<float> out(6 * kWidth);
  for (int threads : {1, 3}) {
    std::vector<double> seconds(plan->measured_steps());
    CHECK_EQ(seconds.size(), std::size_t{4});
    CHECK(run(*plan, x.data(), out.data(), threads, nullptr, seconds));
    for (double each : seconds) CHECK(each > 0);
  }
}

TEST(slices_end_when_the_watch_says_so) {
  struct Watch final : RunWatch {
    int asked = 0;
    bool wants_stop() override { return ++asked == 2; }
  };
  constexpr std::size_t kRows = 64, kCount = 1 << 18;
  const TensorType slice{DType::f32, {1, kCount}}, whole{DType::f32, {kRows, kCount}};
  auto part = std::make_shared<Plan>(0, std::vector{slice}, std::vector{slice});
  for (int i = 0; i < 20; ++i)
    part->add("cos", [&] {
      return unary_step("cos", {slice, Place::input, 0, 0, nullptr}, {slice, Place::output, 0, 0, nullptr},
                        {});
    });
  part->freeze();
  for (int threads : {1, 2}) {
    Plan plan(0, {whole}, {whole});
    plan.add("slices", [&] {
      return slices_step(part, {{whole, Place::input, 0, 0, nullptr}},
                         {{whole, Place::output, 0, 0, nullptr}});
    });
    plan.freeze();
    Watch watch;
    const std::vector<float> x(kRows * kCount);
    std::vector<float> out(kRows * kCount, 7.0F);
    CHECK(!run(plan, x.data(), out.data(), threads, &watch));
    CHECK_EQ(watch.asked, 2);
    CHECK_EQ(out.back(), 7.0F);
  }
}

TEST(slices_name_the_step_of_the_part_in_errors) {
  const TensorType indices{DType::s64, {1, 1}}, taken{DType::f32, {1, 1}};
  const auto table = std::make_shared<const std::array<float, 2>>();
  const Tensor values{{DType::f32, {2}}, Place::constant, 0, 0, table};
  auto part = std::make_shared<Plan>(0, std::vector{indices}, std::vector{taken});
  part->add("gather", [&] {
    return gather_step(values, {indices, Place::input, 0, 0, nullptr}, {taken, Place::output, 0, 0, nullptr},
                       0);
  });
  part->freeze();
  const TensorType all{DType::s64, {4, 1}}, out{DType::f32, {4, 1}};
  Plan plan(0, {all}, {out});
  plan.add("slices", [&] {
    return slices_step(part, {{all, Place::input, 0, 0, nullptr}}, {{out, Place::output, 0, 0, nullptr}});
  });
  plan.freeze();
  const std::vector<std::int64_t> x{0, 1, 2, 0};
  std::vector<float> results(4);
  for (int threads : {1, 2, 4}) {
    try {
      run(plan, x.data(), results.data(), threads);
      CHECK(false);
    } catch (const Error& error) {
      CHECK(error.kind() == ErrorKind::argument);
      CHECK(error.where() == "gather");
    }
  }
}

TEST(slices_that_do_not_make_up_the_whole_are_refused) {
  const auto part = part_of(2);
  const auto make = [&](const Tensor& x, const Tensor& out) { return slices_step(part, {x}, {out}); };
  const auto x = [](std::size_t rows) { return reals(Place::input, rows); };
  const auto out = [](std::size_t rows) { return reals(Place::output, rows); };
  check_refused(ErrorKind::shape, "do not make up", [&] { return make(x(3), out(3)); });
  check_refused(ErrorKind::shape, "do not make up", [&] { return make(x(0), out(0)); });
  check_refused(ErrorKind::shape, "slices, others", [&] { return make(x(4), out(6)); });
  const Tensor narrow{{DType::f32, {4, kWidth - 1}}, Place::output, 0, 0, nullptr};
  check_refused(ErrorKind::shape, "does not consist", [&] { return make(x(4), narrow); });
  const Tensor bytes{{DType::u8, {4, kWidth}}, Place::input, 0, 0, nullptr};
  check_refused(ErrorKind::shape, "does not consist", [&] { return make(bytes, out(4)); });
  const Tensor scalar{{DType::f32, {}}, Place::input, 0, 0, nullptr};
  check_refused(ErrorKind::shape, "does not consist", [&] { return make(scalar, out(4)); });
  check_refused(ErrorKind::argument, "tensors", [&] { return slices_step(part, {}, {out(4)}); });
  const auto open = std::make_shared<Plan>(0, std::vector{type(1)}, std::vector{type(1)});
  check_refused(ErrorKind::argument, "freeze", [&] { return slices_step(open, {x(2)}, {out(2)}); });
  const auto empty = std::make_shared<Plan>(0, std::vector<TensorType>{}, std::vector<TensorType>{});
  empty->freeze();
  check_refused(ErrorKind::argument, "neither", [&] { return slices_step(empty, {}, {}); });
}

TEST(slices_beyond_the_memory_of_the_plan_are_refused) {
  const auto part = part_of(2);
  Plan plan(0, {type(4)}, {type(4)});
  try {
    plan.add("slices",
             [&] { return slices_step(part, {reals(Place::input, 6)}, {reals(Place::output, 6)}); });
    CHECK(false);
  } catch (const Error& error) {
    CHECK(error.kind() == ErrorKind::limit);
    CHECK(error.where() == "slices");
  }
}
