#include "harness.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <vector>

using gristmill::Isa;

namespace harness {
namespace {

struct Skip {
  std::string reason;
};

struct Case {
  std::string name;
  void (*plain)();
  void (*per_isa)(Isa);
};

std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

struct Tally {
  int passed = 0, failed = 0, skipped = 0;
};

template <class Body>
void run_one(const std::string& name, Tally& tally, Body body) {
  try {
    body();
    ++tally.passed;
    return;
  } catch (const Skip& skipped) {
    ++tally.skipped;
    std::printf("SKIPPED %s: %s\n", name.c_str(), skipped.reason.c_str());
  } catch (const Failure& failure) {
    ++tally.failed;
    std::printf("FAILED  %s: %s\n", name.c_str(), failure.what.c_str());
  } catch (const std::exception& error) {
    ++tally.failed;
    std::printf("FAILED  %s: exception: %s\n", name.c_str(), error.what());
  }
  std::fflush(stdout);
}

bool is_supported(Isa isa) {
  const auto supported = gristmill::supported_isas();
  return std::ranges::find(supported, isa) != supported.end();
}

void run_case(const Case& test, Tally& tally) {
  const char* only = std::getenv("GRISTMILL_TEST_ISA");
  if (test.plain != nullptr) {
    if (only == nullptr) run_one(test.name, tally, test.plain);
    return;
  }
  for (Isa isa : gristmill::compiled_isas()) {
    if (only != nullptr && gristmill::isa_name(isa) != only) continue;
    const std::string name = test.name + "[" + std::string(gristmill::isa_name(isa)) + "]";
    run_one(name, tally, [&] {
      if (!is_supported(isa)) skip("this processor lacks the level");
      test.per_isa(isa);
    });
  }
}

/// Whether a name contains one of the parts of the filter, which commas divide.
bool is_wanted(std::string_view name, std::string_view filter) {
  for (;;) {
    const std::size_t comma = filter.find(',');
    if (name.find(filter.substr(0, comma)) != std::string_view::npos) return true;
    if (comma == std::string_view::npos) return false;
    filter.remove_prefix(comma + 1);
  }
}

bool required_levels_run() {
  const char* variable = std::getenv("GRISTMILL_REQUIRE_ISA");
  std::stringstream names(variable == nullptr ? "" : variable);
  bool all = true;
  for (std::string name; std::getline(names, name, ',');) {
    if (is_supported(gristmill::parse_isa(name))) continue;
    std::printf("FAILED  GRISTMILL_REQUIRE_ISA: level %s is required and cannot run here\n", name.c_str());
    all = false;
  }
  return all;
}

}  // namespace

Registration::Registration(const char* name, void (*body)()) { cases().push_back({name, body, nullptr}); }
Registration::Registration(const char* name, void (*body)(Isa)) { cases().push_back({name, nullptr, body}); }

void fail(const char* file, int line, const std::string& what) {
  const std::string_view path(file);
  const std::string base(path.substr(path.find_last_of('/') + 1));
  throw Failure{base + ":" + std::to_string(line) + ": " + what};
}

void skip(const std::string& reason) { throw Skip{reason}; }

bool quick() {
  const char* variable = std::getenv("GRISTMILL_TEST_QUICK");
  return variable != nullptr && std::string_view(variable) == "1";
}

}  // namespace harness

/// gristmill_tests [SUBSTRING[,SUBSTRING...]]: runs the tests whose names contain one of them.
int main(int argc, char** argv) {
  using namespace harness;
  const std::string_view filter = argc > 1 ? argv[1] : "";
  Tally tally;
  for (const Case& test : cases())
    if (is_wanted(test.name, filter)) run_case(test, tally);
  if (!required_levels_run()) ++tally.failed;
  std::printf("%d passed, %d failed, %d skipped\n", tally.passed, tally.failed, tally.skipped);
  return tally.failed != 0 || tally.passed == 0 ? 1 : 0;
}
