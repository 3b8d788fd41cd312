// The form of int8_kernels.h for the tile registers of AMX, included by int8_kernels_x86.cpp, and by a test that puts
// plain code in the place of the instructions. EDGEPRUNE_AMX is the function attribute that allows them. No include
// guard on purpose. Tiles 0 to 3 are sums (upper left, upper right, lower left, lower right), 4 and 5 rows of inputs, 6
// and 7 weights.

constexpr int64_t kTileRows = 16, kTileBytes = 64;
constexpr int64_t kTileGroups = kTileBytes / kGroup;  // of the weights, in a tile

// What LDTILECFG reads.
struct alignas(64) TileShapes {
    uint8_t palette = 1, first_row = 0, reserved[14]{};
    uint16_t bytes[16]{};
    uint8_t rows[16]{};

    void set(int64_t tile, int64_t count) {
        bytes[tile] = static_cast<uint16_t>(kTileBytes);
        rows[tile] = static_cast<uint8_t>(count);
    }
};

// `upper` and `lower` rows of inputs, up to 16 each; no lower ones leave tiles 2, 3 and 5 out.
inline TileShapes shapes_for(int64_t upper, int64_t lower) {
    TileShapes shapes;
    for (const int64_t tile : {0, 1, 4}) shapes.set(tile, upper);
    for (const int64_t tile : {6, 7}) shapes.set(tile, kTileRows);
    for (const int64_t tile : {2, 3, 5}) {
        if (lower > 0) shapes.set(tile, lower);
    }
    return shapes;
}

EDGEPRUNE_AMX inline void add_upper(const Rows& rows, const Panel& panel, int32_t* sums) {
    constexpr int64_t kSums = kPanel * sizeof(int32_t);
    _tile_loadd(0, sums, kSums);
    _tile_loadd(1, sums + kTileRows, kSums);
    for (int64_t group = 0; group < panel.groups; group += kTileGroups) {
        const uint8_t* const weights = panel.weights + group * kPanel * kGroup;
        _tile_loadd(4, rows.whole + group * kGroup, rows.stride);
        _tile_loadd(6, weights, kPanel * kGroup);
        _tile_loadd(7, weights + kTileBytes, kPanel * kGroup);
        _tile_dpbsud(0, 4, 6);
        _tile_dpbsud(1, 4, 7);
    }
    _tile_stored(0, sums, kSums);
    _tile_stored(1, sums + kTileRows, kSums);
}

EDGEPRUNE_AMX inline void add_both(const Rows& rows, const Panel& panel, int32_t* sums) {
    constexpr int64_t kSums = kPanel * sizeof(int32_t);
    int32_t* const below = sums + kTileRows * kPanel;
    _tile_loadd(0, sums, kSums);
    _tile_loadd(1, sums + kTileRows, kSums);
    _tile_loadd(2, below, kSums);
    _tile_loadd(3, below + kTileRows, kSums);
    for (int64_t group = 0; group < panel.groups; group += kTileGroups) {
        const uint8_t* const weights = panel.weights + group * kPanel * kGroup;
        const uint8_t* const whole = rows.whole + group * kGroup;
        _tile_loadd(4, whole, rows.stride);
        _tile_loadd(5, whole + kTileRows * rows.stride, rows.stride);
        _tile_loadd(6, weights, kPanel * kGroup);
        _tile_loadd(7, weights + kTileBytes, kPanel * kGroup);
        _tile_dpbsud(0, 4, 6);
        _tile_dpbsud(1, 4, 7);
        _tile_dpbsud(2, 5, 6);
        _tile_dpbsud(3, 5, 7);
    }
    _tile_stored(0, sums, kSums);
    _tile_stored(1, sums + kTileRows, kSums);
    _tile_stored(2, below, kSums);
    _tile_stored(3, below + kTileRows, kSums);
}

// Adds the products of 1 to 32 rows and a panel to sums (rows,32).
EDGEPRUNE_AMX inline void add(const Rows& rows, const Panel& panel, int32_t* sums) {
    const int64_t upper = rows.count < kTileRows ? rows.count : kTileRows, lower = rows.count - upper;
    const TileShapes shapes = shapes_for(upper, lower);
    // The compiler is not told by its own intrinsics that they read all of this memory.
    __asm__ volatile("" : : "r"(&shapes), "r"(sums) : "memory");
    _tile_loadconfig(&shapes);
    if (lower > 0) {
        add_both(rows, panel, sums);
    } else {
        add_upper(rows, panel, sums);
    }
    _tile_release();
}
