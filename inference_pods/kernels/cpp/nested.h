// The nested format: two planes of nibbles, from which a matrix is read as int4 (the high plane alone) or as int8 (both).
//   high  exactly the int4 packed matrix: codes, steps S and minima m; so the int4 level is the int4 tier, bit by bit
//   low   [block][group][4 vectors][lane][2] uint16, nibbles as in the high plane: the residual in steps of S / 16, plus 8
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

// Packs the residual that the high plane at `high` leaves of one row into lane `lane` of the low block at `out`.
static void pack_low_row(const float* w, int64_t columns, int lane, const uint8_t* high, uint8_t* out) {
    std::vector<float> coarse(columns);
    unpack_row(INT4, high, columns, lane, coarse.data());
    for (int64_t k = 0; k < columns; k++) {
        float step = read_half(high + k / GROUP * group_bytes(INT4) + 2 * lane) / 16.0f;
        float code = step > 0 ? round_even((w[k] - coarse[k]) * (1.0f / step)) : 0.0f;
        int stored = 8 + (int)(code > 7 ? 7 : code < -8 ? -8 : code), j = k % GROUP;
        uint8_t* at = out + k / GROUP * LANES * GROUP / 2 + j / 8 * 4 * LANES + 4 * lane + j % 2 * 2;
        int shift = j % 4 / 2 * 4;
        at[j % 8 / 4] = (uint8_t)((at[j % 8 / 4] & ~(15 << shift)) | stored << shift);
    }
}

static void unpack_nested_row(const uint8_t* high, const uint8_t* low, int64_t columns, int lane, float* w) {
    unpack_row(INT4, high, columns, lane, w);
    for (int64_t k = 0; k < columns; k++) {
        int j = k % GROUP;
        uint8_t pair = low[k / GROUP * LANES * GROUP / 2 + j / 8 * 4 * LANES + 4 * lane + j % 2 * 2 + j % 8 / 4];
        float step = read_half(high + k / GROUP * group_bytes(INT4) + 2 * lane) / 16.0f;
        w[k] += step * (float)((pair >> (j % 4 / 2 * 4) & 15) - 8);
    }
}

// Packs one row into lane `lane` of row block `block` of a zeroed matrix of `blocks` blocks, in any format.
static void pack_into(int precision, const float* w, int64_t columns, uint8_t* matrix, int64_t blocks, int64_t block, int lane) {
    if (precision != NESTED) return pack_row(precision, w, columns, lane, matrix + block * block_bytes(precision, columns));
    uint8_t* high = matrix + block * block_bytes(INT4, columns);
    pack_row(INT4, w, columns, lane, high);
    pack_low_row(w, columns, lane, high, (uint8_t*)low_plane(matrix, blocks, columns) + block * low_bytes(columns));
}

static void unpack_from(int precision, const uint8_t* matrix, int64_t blocks, int64_t block, int64_t columns, int lane, float* w) {
    if (precision != NESTED) return unpack_row(precision, matrix + block * block_bytes(precision, columns), columns, lane, w);
    unpack_nested_row(matrix + block * block_bytes(INT4, columns),
                      low_plane(matrix, blocks, columns) + block * low_bytes(columns), columns, lane, w);
}

// Both planes of one row block against B activation rows: the nibbles are joined to bytes 16 * high + low before the
// product, so that the multiplications are those of int8. 32 products of 255 * 32767 stay below 2^31.
template <int B> static void dot_nested_block(const uint8_t* high, const uint8_t* low, int64_t groups, const Activations& a,
                                              int64_t row0, vf (&acc)[B]) {
    const int16_t* x = a.codes + row0 * a.stride;
    const float* sums = a.sums + row0 * (a.stride / GROUP);
    constexpr int CHAINS = B <= 2 ? 2 : 1;
#pragma GCC unroll 8
    for (int b = 0; b < B; b++) acc[b] = f_zero();
    for (int64_t g = 0; g < groups; g++, high += LANES * (4 + GROUP / 2), low += LANES * GROUP / 2) {
        vi dot[B][CHAINS];
#pragma GCC unroll 8
        for (int b = 0; b < B; b++) for (int c = 0; c < CHAINS; c++) dot[b][c] = i_zero();
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++) {
            vi upper = i_load(high + 4 * LANES + q * 4 * LANES), lower = i_load(low + q * 4 * LANES);
            prefetch(high + 4 * LANES + q * 4 * LANES + PREFETCH_BYTES);
            prefetch(low + q * 4 * LANES + PREFETCH_BYTES);
            vi even = i_join_even(upper, lower), odd = i_join_odd(upper, lower);
            vi v[4] = {i_low_bytes(even), i_low_bytes(odd), i_high_bytes(even), i_high_bytes(odd)};
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
#pragma GCC unroll 8
                for (int b = 0; b < B; b++)
                    dot[b][i % CHAINS] = i_dot(dot[b][i % CHAINS], v[i], i_set(load_pair(x + b * a.stride + g * GROUP + 8 * q + 2 * i)));
        }
        vf coarse = f_from_half((const uint16_t*)high), scale = f_mul(coarse, f_set(1.0f / 16.0f));
        vf minimum = f_fma(coarse, f_set(-0.5f), f_from_half((const uint16_t*)high + LANES));
#pragma GCC unroll 8
        for (int b = 0; b < B; b++) {
            vi whole = CHAINS == 2 ? i_add(dot[b][0], dot[b][CHAINS - 1]) : dot[b][0];
            acc[b] = f_fma(f_from_int(whole), scale, acc[b]);
            acc[b] = f_fma(minimum, f_set(sums[b * (a.stride / GROUP) + g]), acc[b]);
        }
    }
}

template <int B, class Sink> INLINE void nested_rows(const uint8_t* high, const uint8_t* low, int64_t columns, const Activations& a,
                                                     int64_t row0, Sink&& sink) {
    if constexpr (B <= widest<INT8>()) {
        vf out[2][B];
        for (int r = 0; r < 2; r++)
            dot_nested_block<B>(high + r * block_bytes(INT4, columns), low + r * low_bytes(columns), groups_of(columns), a, row0, out[r]);
        for (int b = 0; b < B; b++) {
            vf scale = f_set(a.scales[row0 + b]);
            sink(row0 + b, f_mul(out[0][b], scale), f_mul(out[1][b], scale));
        }
    }
}

// Like multiply_tile, for both planes: tile `tile` of a nested matrix of `blocks` row blocks.
template <class Sink> static void multiply_nested_tile(const uint8_t* matrix, int64_t blocks, int64_t tile, int64_t columns,
                                                       const Activations& a, int64_t rows, Sink&& sink) {
    const uint8_t* high = matrix + 2 * tile * block_bytes(INT4, columns);
    const uint8_t* low = low_plane(matrix, blocks, columns) + 2 * tile * low_bytes(columns);
    constexpr int WIDEST = widest<INT8>();
    int64_t row = 0;
    for (; row + WIDEST <= rows; row += WIDEST) nested_rows<WIDEST>(high, low, columns, a, row, sink);
    switch (rows - row) {
        case 7: nested_rows<7>(high, low, columns, a, row, sink); break;
        case 6: nested_rows<6>(high, low, columns, a, row, sink); break;
        case 5: nested_rows<5>(high, low, columns, a, row, sink); break;
        case 4: nested_rows<4>(high, low, columns, a, row, sink); break;
        case 3: nested_rows<3>(high, low, columns, a, row, sink); break;
        case 2: nested_rows<2>(high, low, columns, a, row, sink); break;
        case 1: nested_rows<1>(high, low, columns, a, row, sink); break;
        default: break;
    }
}
