#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

/// Instruction-set levels.
///
/// A level is a set of kernels compiled for one instruction set. A wheel carries all levels of its
/// architecture:
///
///     x86-64   scalar < avx2 < avx512vnni < amx
///     AArch64  scalar < neon < neon_dotprod < neon_i8mm
///     others   scalar
///
/// A level is *compiled* when its files are in this build, *supported* when it is compiled and the processor
/// and the operating system can run it, and *active* when calls that do not name a level use it. At start the
/// highest supported level is active. A kernel table is filled bottom-up: the table of avx512vnni starts as
/// that of avx2 and replaces the slots it does better, so a level need not implement everything.
namespace gristmill {

struct KernelTable;

enum class Isa : std::uint8_t { scalar, avx2, avx512vnni, amx, neon, neon_dotprod, neon_i8mm };

/// The lower-case name, as users write it.
std::string_view isa_name(Isa isa) noexcept;

/// The level with that name; throws Error(isa) listing the valid names otherwise.
Isa parse_isa(std::string_view name);

/// Levels in this build, lowest first; never empty.
std::span<const Isa> compiled_isas() noexcept;

/// Compiled levels that this machine can run, lowest first; never empty.
std::span<const Isa> supported_isas() noexcept;

/// The level used by calls that do not name one.
Isa active_isa() noexcept;

/// Makes `isa` the active level for the whole process; throws Error(isa) if it is not supported. Work that is
/// already running finishes on the table it started with.
void set_active_isa(Isa isa);

/// The kernels of a level; throws Error(isa) if it is not supported. The reference stays valid for ever.
const KernelTable& kernel_table(Isa isa);

/// The kernels of the active level.
const KernelTable& active_kernels() noexcept;

}  // namespace gristmill
