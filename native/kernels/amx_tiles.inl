// Tiles of AMX (small: the instructions alone): eight registers of up to 16 rows of 64 bytes. Compiled with -mamx-tile.
//
// Instructions are written out, because the intrinsics of GCC 12 do not tell the compiler that a load of a tile reads memory.

struct alignas(64) TileShapes {  // what `ldtilecfg` reads
    uint8_t palette = 1, first_row = 0, unused[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};

    void set(int tile, int64_t n_rows, int64_t bytes) {
        rows[tile] = static_cast<uint8_t>(n_rows);
        row_bytes[tile] = static_cast<uint16_t>(bytes);
    }
};

inline void use_tiles(const TileShapes& shapes) { asm volatile("ldtilecfg %0" : : "m"(shapes)); }
inline void release_tiles() { asm volatile("tilerelease"); }  // other code need not save them, and the core may sleep deeply

template <int tile>
POPHOOD_INLINE void load_tile(const void* from, int64_t stride) {  // in bytes, from one row to the next
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(tile) : "memory");
}
template <int tile>
POPHOOD_INLINE void store_tile(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(tile) : "memory");
}
template <int tile>
POPHOOD_INLINE void clear_tile() {
    asm volatile("tilezero %%tmm%c0" : : "i"(tile));
}
