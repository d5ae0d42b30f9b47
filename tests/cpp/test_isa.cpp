#include "gristmill/error.h"
#include "gristmill/isa.h"
#include "harness.h"

using namespace gristmill;

TEST(isa_names_round_trip) {
  for (Isa isa : compiled_isas()) CHECK(parse_isa(isa_name(isa)) == isa);
}

TEST(isa_unknown_name_is_an_error) {
  CHECK_THROWS(Error, parse_isa("avx1024"));
  CHECK_THROWS(Error, parse_isa(""));
  CHECK_THROWS(Error, parse_isa("AVX2"));
}

TEST(isa_foreign_level_is_an_error) {
#if defined(__aarch64__)
  CHECK_THROWS(Error, set_active_isa(Isa::avx2));
#else
  CHECK_THROWS(Error, set_active_isa(Isa::neon));
#endif
}

TEST(isa_scalar_is_always_supported_and_can_be_forced) {
  const Isa before = active_isa();
  set_active_isa(Isa::scalar);
  CHECK(active_isa() == Isa::scalar);
  CHECK(&active_kernels() == &kernel_table(Isa::scalar));
  set_active_isa(before);
}
