#pragma once

#include <cstdint>
#include <span>
#include <sstream>
#include <string>
#include <string_view>

#include "gristmill/isa.h"

/// A small test harness: tests register themselves, run in file order, and each ends passed, failed or
/// skipped.
///
///     TEST(quantize_saturates) { CHECK_EQ(quantize(1e9f), 255); }
///     ISA_TEST(quantize_equals_scalar) { ... kernel_table(isa) ... }   // once per level that this machine
///     runs
///
/// An ISA_TEST is reported as skipped for each compiled level that the machine lacks; with
/// GRISTMILL_REQUIRE_ISA=avx2,... in the environment a required level that is skipped makes the run fail.
/// GRISTMILL_TEST_ISA=avx512vnni runs the ISA_TESTs at that level and nothing else: for an emulator, where
/// the rest has run natively.
namespace harness {

struct Failure {
  std::string what;
};

struct Registration {
  Registration(const char* name, void (*body)());
  Registration(const char* name, void (*body)(gristmill::Isa));
};

[[noreturn]] void fail(const char* file, int line, const std::string& what);

/// Ends the running test as skipped, with a visible reason.
[[noreturn]] void skip(const std::string& reason);

/// True under GRISTMILL_TEST_QUICK=1, which emulators set: tests then thin out their sweeps.
bool quick();

template <class A, class B>
void check_equal(const A& actual, const B& expected, const char* text, const char* file, int line) {
  if (actual == expected) return;
  std::ostringstream out;
  out << text << ": got " << +actual << ", expected " << +expected;
  fail(file, line, out.str());
}

/// Bitwise comparison of two arrays that names the first difference.
template <class T>
void check_same(std::span<const T> actual, std::span<const T> expected, const std::string& label,
                const char* file, int line) {
  check_equal(actual.size(), expected.size(), "sizes", file, line);
  for (std::size_t i = 0; i < actual.size(); ++i) {
    if (__builtin_memcmp(&actual[i], &expected[i], sizeof(T)) == 0) continue;
    std::ostringstream out;
    out << label << ": element " << i << " is " << +actual[i] << ", expected " << +expected[i];
    fail(file, line, out.str());
  }
}

/// xorshift64*: the same stream on every platform.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u + 1) {}
  std::uint64_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545F4914F6CDD1Du;
  }
  /// Uniform in [low, high], both included.
  std::int64_t integer(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>((next() >> 11) % static_cast<std::uint64_t>(high - low + 1));
  }
  /// Uniform in [0, 1).
  double unit() { return static_cast<double>(next() >> 11) * 0x1p-53; }

 private:
  std::uint64_t state_;
};

}  // namespace harness

#define TEST(name)                                                        \
  static void test_##name();                                              \
  static const harness::Registration register_##name(#name, test_##name); \
  static void test_##name()

#define ISA_TEST(name)                                                    \
  static void test_##name(gristmill::Isa isa);                            \
  static const harness::Registration register_##name(#name, test_##name); \
  static void test_##name([[maybe_unused]] gristmill::Isa isa)

#define CHECK(condition) \
  if (!(condition)) harness::fail(__FILE__, __LINE__, #condition)
#define CHECK_EQ(actual, expected) harness::check_equal(actual, expected, #actual, __FILE__, __LINE__)
#define CHECK_SAME(actual, expected, label) harness::check_same(actual, expected, label, __FILE__, __LINE__)
#define CHECK_THROWS(kind, expression)                                                   \
  do {                                                                                   \
    bool thrown = false;                                                                 \
    try {                                                                                \
      expression;                                                                        \
    } catch (const kind&) {                                                              \
      thrown = true;                                                                     \
    }                                                                                    \
    if (!thrown) harness::fail(__FILE__, __LINE__, #expression " did not throw " #kind); \
  } while (false)
