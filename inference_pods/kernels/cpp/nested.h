// The nested format: two planes of nibbles, from which a matrix is read as int4 (the high plane alone) or as int8 (both).
//   high  exactly the int4 packed matrix: codes, steps S and minima m; so the int4 level is the int4 tier, bit by bit
//   low   [tile][group][half][4 vectors][lane][2] uint16, nibbles as in the high plane: the residual in steps of S / 16, plus 8
// w4 = S * high + m;  w8 = w4 + S/16 * (low - 8) = S/16 * (16 * high + low) + (m - S/2).
// Each plane is contiguous over all row blocks, so that an int4 level streams half of the bytes without a gap.
// Knows nothing of models or threads.
#pragma once
#include <vector>
#include "matmul.h"

INLINE int64_t low_bytes(int64_t columns) { return groups_of(columns) * LANES * GROUP / 2; }  // of one row block
INLINE const uint8_t* low_plane(const uint8_t* matrix, int64_t blocks, int64_t columns) {
    return matrix + blocks * block_bytes(INT4, columns);
}

constexpr int64_t LOW_BYTES = LANES * GROUP / 2;  // of one group of one row block
INLINE int64_t low_at(int half, int64_t k) { return (2 * (k / GROUP) + half) * LOW_BYTES; }

// Packs the residual that the high plane's tile leaves of one row into the low plane's.
static void pack_low_row(const float* w, int64_t columns, int lane, int half, const uint8_t* high, uint8_t* low) {
    std::vector<float> coarse(columns);
    unpack_row(INT4, high, half, columns, lane, coarse.data());
    for (int64_t k = 0; k < columns; k++) {
        float step = read_half(piece_at(high, half, INT4, k / GROUP) + 2 * lane) / 16.0f;
        float code = step > 0 ? round_even((w[k] - coarse[k]) * (1.0f / step)) : 0.0f;
        int stored = 8 + (int)(code > 7 ? 7 : code < -8 ? -8 : code), j = k % GROUP;
        uint8_t* at = low + low_at(half, k) + j / 8 * 4 * LANES + 4 * lane + j % 2 * 2;
        int shift = j % 4 / 2 * 4;
        at[j % 8 / 4] = (uint8_t)((at[j % 8 / 4] & ~(15 << shift)) | stored << shift);
    }
}

static void unpack_nested_row(const uint8_t* high, const uint8_t* low, int half, int64_t columns, int lane, float* w) {
    unpack_row(INT4, high, half, columns, lane, w);
    for (int64_t k = 0; k < columns; k++) {
        int j = k % GROUP;
        uint8_t pair = low[low_at(half, k) + j / 8 * 4 * LANES + 4 * lane + j % 2 * 2 + j % 8 / 4];
        float step = read_half(piece_at(high, half, INT4, k / GROUP) + 2 * lane) / 16.0f;
        w[k] += step * (float)((pair >> (j % 4 / 2 * 4) & 15) - 8);
    }
}

// Packs one row into lane `lane` of row block `block` of a zeroed matrix of `blocks` blocks, in any format.
static void pack_into(int precision, const float* w, int64_t columns, uint8_t* matrix, int64_t blocks, int64_t block, int lane,
                      int64_t span) {
    int half = block % 2, stored = precision == NESTED ? INT4 : precision;
    uint8_t* tile = matrix + (block - half) * block_bytes(stored, columns);
    pack_row(stored, w, columns, lane, tile, half, span);
    if (precision != NESTED) return;
    uint8_t* low = (uint8_t*)low_plane(matrix, blocks, columns) + (block - half) * low_bytes(columns);
    pack_low_row(w, columns, lane, half, tile, low);
}

static void unpack_from(int precision, const uint8_t* matrix, int64_t blocks, int64_t block, int64_t columns, int lane, float* w) {
    int half = block % 2, stored = precision == NESTED ? INT4 : precision;
    const uint8_t* tile = matrix + (block - half) * block_bytes(stored, columns);
    if (precision != NESTED) return unpack_row(precision, tile, half, columns, lane, w);
    unpack_nested_row(tile, low_plane(matrix, blocks, columns) + (block - half) * low_bytes(columns), half, columns, lane, w);
}

// The four column pairs of quarter QUARTER of a group, widened to int16: 16 * high + low.
template <int QUARTER> INLINE void load_joined(const uint8_t* high, const uint8_t* low, vi (&codes)[4]) {
    vi upper = i_load(high + 4 * LANES + QUARTER * 4 * LANES), lower = i_load(low + QUARTER * 4 * LANES);
    vi even = i_join_even(upper, lower), odd = i_join_odd(upper, lower);
    codes[0] = i_low_bytes(even);
    codes[1] = i_low_bytes(odd);
    codes[2] = i_high_bytes(even);
    codes[3] = i_high_bytes(odd);
}

template <int B, int CHAINS, int QUARTER = 0>
INLINE void dot_joined(const uint8_t* high, const uint8_t* low, const int16_t* const (&x)[B], vi (&dot)[2][B][CHAINS]) {
    if constexpr (QUARTER < 4) {
        vi codes[2][4];
#pragma GCC unroll 2
        for (int r = 0; r < 2; r++) load_joined<QUARTER>(high + r * bytes_of_group<INT4>(), low + r * LOW_BYTES, codes[r]);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
#pragma GCC unroll 8
            for (int b = 0; b < B; b++) {
                vi pair = i_set(load_pair(x[b] + 8 * QUARTER + 2 * i));
#pragma GCC unroll 2
                for (int r = 0; r < 2; r++) dot[r][b][i % CHAINS] = i_dot(dot[r][b][i % CHAINS], codes[r][i], pair);
            }
        dot_joined<B, CHAINS, QUARTER + 1>(high, low, x, dot);
    }
}

// Both planes of a tile against B activation rows: the nibbles are joined to bytes before the product, so that the
// multiplications are those of int8. 32 products of 255 * 32767 stay below 2^31.
template <int B> static void dot_nested(const uint8_t* high, const uint8_t* low, int64_t columns, const Activations& a,
                                        int64_t row0, vf (&out)[2][B]) {
    constexpr int CHAINS = B <= 2 ? 2 : 1;
    constexpr int64_t HIGH_BYTES = bytes_of_group<INT4>();
    const int64_t sums_stride = a.stride / GROUP, ahead = prefetch_distance(row0, 2 * block_bytes(INT4, columns)),
                  low_ahead = prefetch_distance(row0, 2 * low_bytes(columns));
    const int16_t* x[B];
    point_at_rows<B>((const int16_t*)a.codes, a.stride, row0, x);
    const float* sums = a.sums + row0 * sums_stride;
    vf acc[2][B];
#pragma GCC unroll 8
    for (int b = 0; b < B; b++) acc[0][b] = acc[1][b] = f_zero();
    for (int64_t g = 0; g < groups_of(columns); g++, sums++) {
        vi dot[2][B][CHAINS];
#pragma GCC unroll 8
        for (int b = 0; b < B; b++)
            for (int c = 0; c < CHAINS; c++) dot[0][b][c] = dot[1][b][c] = i_zero();
        for (int64_t line = 0; line < 2 * HIGH_BYTES; line += 64) prefetch(high + line + ahead);
        for (int64_t line = 0; line < 2 * LOW_BYTES; line += 64) prefetch(low + line + low_ahead);
        dot_joined<B, CHAINS>(high, low, x, dot);
#pragma GCC unroll 8
        for (int b = 0; b < B; b++) x[b] += GROUP;
#pragma GCC unroll 2
        for (int r = 0; r < 2; r++, high += HIGH_BYTES) {
            vf coarse = f_from_half((const uint16_t*)high), scale = f_mul(coarse, f_set(1.0f / 16.0f));
            vf minimum = f_fma(coarse, f_set(-0.5f), f_from_half((const uint16_t*)high + LANES));
#pragma GCC unroll 8
            for (int b = 0; b < B; b++) {
                vi whole = CHAINS == 2 ? i_add(dot[r][b][0], dot[r][b][CHAINS - 1]) : dot[r][b][0];
                acc[r][b] = f_fma(f_from_int(whole), scale, acc[r][b]);
                acc[r][b] = f_fma(minimum, f_set(sums[b * sums_stride]), acc[r][b]);
            }
        }
        low += 2 * LOW_BYTES;
    }
#pragma GCC unroll 8
    for (int b = 0; b < B; b++) out[0][b] = acc[0][b], out[1][b] = acc[1][b];
}

INLINE int64_t joined_tile_bytes(int64_t columns) { return 2 * groups_of(columns) * bytes_of_group<JOINED>(); }

// Joins the nibbles of one group to bytes (matmul.h: JOINED).
INLINE void join_group(const uint8_t* high, const uint8_t* low, uint8_t* out) {
    vf coarse = f_from_half((const uint16_t*)high), minimum = f_from_half((const uint16_t*)high + LANES);
    f_store((float*)out, f_mul(coarse, f_set(1.0f / 16.0f)));
    f_store((float*)out + LANES, f_fma(coarse, f_set(-0.5f), minimum));
#pragma GCC unroll 4
    for (int quarter = 0; quarter < 4; quarter++) {
        vi upper = i_load(high + 4 * LANES + quarter * 4 * LANES), lower = i_load(low + quarter * 4 * LANES);
        i_store(out + 8 * LANES + quarter * 8 * LANES, i_join_even(upper, lower));
        i_store(out + 12 * LANES + quarter * 8 * LANES, i_join_odd(upper, lower));
    }
}

static void join_tile(const uint8_t* high, const uint8_t* low, int64_t columns, uint8_t* out) {
    for (int64_t g = 0; g < 2 * groups_of(columns); g++)
        join_group(high + g * bytes_of_group<INT4>(), low + g * LOW_BYTES, out + g * bytes_of_group<JOINED>());
}

// Like multiply_tile, for both planes: tile `tile` of a nested matrix of `blocks` row blocks. Where several passes would join
// the same nibbles again, they are joined once, and the passes cost what those of int8 cost. The first two fetch the planes
// of the next tile.
template <class Sink> static void multiply_nested_tile(const uint8_t* matrix, int64_t blocks, int64_t tile, int64_t columns,
                                                       const Activations& a, int64_t rows, Sink&& sink) {
    constexpr int WIDEST = widest<JOINED>();
    const int64_t high_bytes = 2 * block_bytes(INT4, columns), low_tile_bytes = 2 * low_bytes(columns);
    const uint8_t* high = matrix + tile * high_bytes;
    const uint8_t* low = low_plane(matrix, blocks, columns) + tile * low_tile_bytes;
    const bool once = rows > WIDEST;
    if (once) join_tile(high, low, columns, a.joined);
    for_row_blocks<WIDEST>(rows, [&](int64_t row, auto count) {
        constexpr int B = decltype(count)::value;
        vf out[2][B];
        const uint8_t* next = row == 0 ? high + high_bytes : row == WIDEST ? low + low_tile_bytes : nullptr;
        if (once) dot_integer<JOINED, B>(a.joined, columns, a, row, next, out);
        else dot_nested<B>(high, low, columns, a, row, out);
        for (int b = 0; b < B; b++) {
            vf scale = f_set(a.scales[row + b]);
            sink(row + b, f_mul(out[0][b], scale), f_mul(out[1][b], scale));
        }
    });
}
