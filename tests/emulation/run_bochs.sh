#!/usr/bin/env bash
# run_bochs.sh GRISTMILL_TESTS [SUBSTRING[,SUBSTRING...]]: runs a statically linked gristmill_tests in an emulated x86-64
# processor. Prints what the tests print; the exit status is 0 when they passed.
#
#   GRISTMILL_REQUIRE_ISA   levels that have to run there (default avx512vnni)
#   GRISTMILL_TEST_ISA      the one level that is tested there (default avx512vnni)
#   GRISTMILL_TEST_QUICK    1 thins out the sweeps (default 1)
#   BOCHS_CPU               Bochs processor model (default corei7_icelake_u: AVX-512 VNNI and VBMI)
#   BOCHS_TIMEOUT           seconds until the machine is given up (default 1200)
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
tests=$(realpath "$1")
filter=${2:-}
model=${BOCHS_CPU:-corei7_icelake_u}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/gristmill-emulation
isolinux=/usr/lib/ISOLINUX/isolinux.bin
ldlinux=/usr/lib/syslinux/modules/bios/ldlinux.c32

kernel_options=(
  console=ttyS0,115200 quiet loglevel=3 panic=-1
  nokaslr mitigations=off audit=0 lsm= acpi=off random.trust_cpu=on cryptomgr.notests
  initcall_blacklist=load_system_certificate_list,trace_eval_init,cubictcp_register,init_kprobe_trace
  # The emulated clock: `ips` of bochsrc.in instructions are one second.
  tsc=reliable tsc_early_khz=50000 lpj=100000 no_timer_check
  # What the emulator reports inconsistently: fast string moves, protection keys, compacted register state.
  clearcpuid=fsrm,pku,xsavec,xsaves
  # For init and the tests: the kernel hands unknown options on as environment.
  "GRISTMILL_REQUIRE_ISA=${GRISTMILL_REQUIRE_ISA-avx512vnni}"
  "GRISTMILL_TEST_ISA=${GRISTMILL_TEST_ISA-avx512vnni}"
  "GRISTMILL_TEST_QUICK=${GRISTMILL_TEST_QUICK-1}"
  "GRISTMILL_TEST_FILTER=$filter"
)

check_tools() {
  local missing=()
  for tool in bochs-bin xorriso cpio g++; do command -v "$tool" >/dev/null || missing+=("$tool"); done
  for file in "$isolinux" "$ldlinux"; do [[ -e $file ]] || missing+=("$file"); done
  ((${#missing[@]} == 0)) && return
  echo "run_bochs.sh: missing ${missing[*]}; apt-get install bochs xorriso cpio isolinux syslinux-common g++" >&2
  exit 2
}

# Debian's cloud kernel, unpacked without being installed.
fetch_kernel() {
  [[ -s $cache/vmlinuz ]] && return
  local package unpacked=$scratch/kernel
  mkdir -p "$cache" "$unpacked"
  package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
  (cd "$unpacked" && apt-get -qq -o APT::Sandbox::User=root download "$package" && dpkg-deb -x ./*.deb .)
  mv "$unpacked"/boot/vmlinuz-* "$cache/vmlinuz"
}

# A CD that boots the kernel with an initial file system of two programs: init and the tests.
build_disc() {
  local root=$scratch/root disc=$scratch/disc
  mkdir -p "$root/tmp" "$disc/isolinux"
  g++ -std=c++20 -O2 -static -o "$root/init" "$here/init.cpp"
  strip -o "$root/gristmill_tests" "$tests"
  (cd "$root" && find . | cpio --quiet -o -H newc) >"$disc/initrd"
  cp "$cache/vmlinuz" "$disc/vmlinuz"
  cp "$isolinux" "$ldlinux" "$disc/isolinux/"
  printf '%s\n' "default tests" "prompt 0" "label tests" "  kernel /vmlinuz" "  initrd /initrd" \
    "  append $options" >"$disc/isolinux/isolinux.cfg"
  xorriso -as mkisofs -quiet -o "$scratch/boot.iso" -b isolinux/isolinux.bin -c isolinux/boot.cat \
    -no-emul-boot -boot-load-size 4 -boot-info-table "$disc" 2>"$scratch/xorriso.log" ||
    { cat "$scratch/xorriso.log" >&2; exit 2; }
}

# Debian's Bochs starts in its debugger, which is told to go on; it ends with an error status at every shutdown.
emulate() {
  sed -e "s|@SCRATCH@|$scratch|g" -e "s|@MODEL@|$model|g" "$here/bochsrc.in" >"$scratch/bochsrc"
  echo continue >"$scratch/debugger"
  touch "$scratch/serial.txt"
  timeout "${BOCHS_TIMEOUT:-1200}" bochs-bin -q -f "$scratch/bochsrc" -rc "$scratch/debugger" \
    >"$scratch/console.txt" 2>&1 </dev/null || true
  tr -d '\r' <"$scratch/serial.txt" | tee "$scratch/output.txt"
}

check_tools
options="${kernel_options[*]}"
if ((${#options} > 1900)); then  # of 2048 bytes, to which the loader adds its own
  echo "run_bochs.sh: more names than the command line of a kernel holds" >&2
  exit 2
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
fetch_kernel
build_disc
emulate
if ! grep -q '^exit status' "$scratch/output.txt"; then
  echo "run_bochs.sh: the emulated $model did not reach the end of the tests" >&2
  tail -n 30 "$scratch/bochs.log" "$scratch/console.txt" >&2
  exit 1
fi
grep -q '^exit status 0$' "$scratch/output.txt"
