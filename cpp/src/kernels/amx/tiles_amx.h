#pragma once

#include <cstddef>
#include <cstdint>

/// The tile registers: eight of up to 16 rows x 64 bytes, whose shapes a configuration sets.
///
/// One instruction multiplies two of them and adds to a third, in sixteen cycles:
///
///     sums [rows][16 lanes] s32  +=  left [rows][64] bytes  x  right [16][16 lanes][4] bytes
///
/// `left` has 64 consecutive K of each row, `right` groups of four consecutive K of each lane.
///
/// Written as assembly because the intrinsics take numbers of tiles as text, and GCC's leave out what they
/// read of memory. No compiler allocates tiles by itself.
namespace gristmill {
namespace {

constexpr std::size_t kTileRows = 16, kTileLanes = 16, kTileDepth = 64;
constexpr std::size_t kTileBytes = kTileRows * kTileDepth;

template <int tile>
[[gnu::always_inline]] inline void zero_tile() {
  __asm__ volatile("tilezero %%tmm%c0" : : "i"(tile));
}

/// Rows of 64 bytes, `step` bytes apart.
template <int tile>
[[gnu::always_inline]] inline void load_tile(const void* from, std::size_t step) {
  __asm__ volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(tile), "r"(from), "r"(step) : "memory");
}

/// The same of bytes that should not displace others from the nearest cache.
template <int tile>
[[gnu::always_inline]] inline void load_tile_once(const void* from, std::size_t step) {
  __asm__ volatile("tileloaddt1 (%1,%2,1), %%tmm%c0" : : "i"(tile), "r"(from), "r"(step) : "memory");
}

template <int tile>
[[gnu::always_inline]] inline void store_tile(void* to, std::size_t step) {
  __asm__ volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(tile), "r"(to), "r"(step) : "memory");
}

enum class Signed : std::uint8_t { left, right };

/// Adds the products of a tile of s8, which of the two is named, and one of u8.
template <Signed which, int sums, int left, int right>
[[gnu::always_inline]] inline void multiply_tiles() {
  if constexpr (which == Signed::left)
    __asm__ volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sums), "i"(left), "i"(right));
  else
    __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(sums), "i"(left), "i"(right));
}

struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {};
};

/// By the rows of the first kCounted tiles; the others have 16.
struct TileConfigs {
  static constexpr int kCounted = 5;
  TileConfig of_rows[kTileRows + 1];
  constexpr TileConfigs() : of_rows() {
    for (std::size_t rows = 1; rows <= kTileRows; ++rows)
      for (int tile = 0; tile < 8; ++tile)
        of_rows[rows].rows[tile] = static_cast<std::uint8_t>(tile < kCounted ? rows : kTileRows);
  }
};

constexpr TileConfigs kTileConfigs;

/// The tiles 0 to 4 have as many rows as given, and the others 16, while this lives.
class ConfiguredTiles {
 public:
  explicit ConfiguredTiles(std::size_t rows) { set_rows(rows); }
  ConfiguredTiles(const ConfiguredTiles&) = delete;
  ConfiguredTiles& operator=(const ConfiguredTiles&) = delete;
  ~ConfiguredTiles() { __asm__ volatile("tilerelease"); }

  void set_rows(std::size_t rows) { __asm__ volatile("ldtilecfg %0" : : "m"(kTileConfigs.of_rows[rows])); }
};

}  // namespace
}  // namespace gristmill
