#pragma once

#include "kernel_table.h"

/// One function per level, in kernels/<level>/install_<level>.cpp: fills or replaces the slots that the level
/// implements by calling the level's install_<area>_<level>(), one in each of its area files.
namespace gristmill {

void install_scalar(KernelTable& table);
void install_avx2(KernelTable& table);
void install_avx512vnni(KernelTable& table);
/// What avx512vnni has more where the processor has VBMI too.
void install_vbmi_avx512vnni(KernelTable& table);
/// What avx512vnni does otherwise on processors of Intel.
void install_intel_avx512vnni(KernelTable& table);
void install_amx(KernelTable& table);
void install_neon(KernelTable& table);
void install_neon_dotprod(KernelTable& table);
void install_neon_i8mm(KernelTable& table);

}  // namespace gristmill
