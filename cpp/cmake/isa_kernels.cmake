# gristmill_add_isa_kernels(target) adds kernels/scalar and every level of the target architecture to `target`.
#
# Each level's files are compiled with that level's flags and no others, without link-time optimization, and isa.cpp
# learns of the level by the definition GRISTMILL_HAVE_<LEVEL>=1. Files named *_vbmi_avx512vnni.cpp are compiled for VBMI
# too, and used where the processor has it. An architecture without levels builds scalar alone.
include(CheckCXXCompilerFlag)

set(gristmill_levels_x86 avx2 avx512vnni amx)
set(gristmill_levels_arm neon neon_dotprod neon_i8mm)
if(MSVC AND CMAKE_CXX_COMPILER_ID STREQUAL "MSVC")
  # Visual C++ knows neither the attributes nor the builtins that kernels are written with; clang-cl does.
  set(gristmill_levels_x86 "")
  set(gristmill_levels_arm "")
  message(STATUS "gristmill: Visual C++ builds the scalar level alone; build with clang-cl for all levels")
endif()
set(gristmill_flags_avx2 -mavx2 -mfma -mf16c -mbmi -mbmi2)
set(gristmill_flags_avx512vnni
    ${gristmill_flags_avx2} -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mprefer-vector-width=512)
set(gristmill_flags_amx ${gristmill_flags_avx512vnni} -mamx-tile -mamx-int8)
set(gristmill_flags_neon -march=armv8-a)
set(gristmill_flags_neon_dotprod -march=armv8.2-a+dotprod)
set(gristmill_flags_neon_i8mm -march=armv8.2-a+dotprod+i8mm)

function(gristmill_target_levels result)
  if(NOT GRISTMILL_ISA_LEVELS STREQUAL "native-architecture")
    set(levels ${GRISTMILL_ISA_LEVELS})
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    set(levels ${gristmill_levels_x86})
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
    set(levels ${gristmill_levels_arm})
  else()
    set(levels "")
  endif()
  set(${result} ${levels} PARENT_SCOPE)
endfunction()

function(gristmill_add_level target level flags)
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/../src/kernels/${level}/*.cpp")
  add_library(gristmill_${level} OBJECT ${sources})
  target_include_directories(gristmill_${level} PRIVATE "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/../src")
  target_link_libraries(gristmill_${level} PRIVATE gristmill_options)
  target_compile_options(gristmill_${level} PRIVATE ${flags})
  foreach(source IN LISTS sources)
    if(source MATCHES "_vbmi_avx512vnni\\.cpp$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS -mavx512vbmi)
    endif()
  endforeach()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # Partial redundancy elimination, and scheduling before registers are assigned, make GCC spill register-tiled
    # accumulators. Its AVX-512 intrinsics pass undefined vectors on purpose, which GCC 12 warns of.
    target_compile_options(gristmill_${level} PRIVATE -fno-tree-pre -fno-schedule-insns -fno-lto)
    # Loops of some 70 instructions are read faster from where a cache line begins: 1 to 2 % of a dense layer.
    set_source_files_properties(${CMAKE_CURRENT_FUNCTION_LIST_DIR}/../src/kernels/avx2/dense_s8_avx2.cpp
                                PROPERTIES COMPILE_OPTIONS -falign-loops=64)
    if(level MATCHES "^(avx512vnni|amx)$")
      target_compile_options(gristmill_${level} PRIVATE -Wno-uninitialized -Wno-maybe-uninitialized)
    endif()
  endif()
  target_sources(${target} PRIVATE $<TARGET_OBJECTS:gristmill_${level}>)
endfunction()

function(gristmill_add_isa_kernels target)
  gristmill_add_level(${target} scalar "")
  gristmill_target_levels(levels)
  foreach(level IN LISTS levels)
    string(REPLACE ";" " " CMAKE_REQUIRED_FLAGS "${gristmill_flags_${level}}")
    check_cxx_compiler_flag("${CMAKE_REQUIRED_FLAGS}" GRISTMILL_COMPILES_${level})
    if(NOT GRISTMILL_COMPILES_${level})
      message(STATUS "gristmill: the compiler has no ${level}, level left out")
      continue()
    endif()
    gristmill_add_level(${target} ${level} "${gristmill_flags_${level}}")
    string(TOUPPER ${level} upper)
    set_property(SOURCE src/isa.cpp APPEND PROPERTY COMPILE_DEFINITIONS GRISTMILL_HAVE_${upper}=1)
  endforeach()
endfunction()
