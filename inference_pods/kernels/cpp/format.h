// Weight formats: reads GGUF tensor rows, writes and reads the packed layouts that matmul.h streams.
// Packed layout: rows in blocks of LANES, columns in groups of 32 (zero padded). Two row blocks are a tile: their pieces take
// turns, so that one contiguous stream feeds the kernel that multiplies both. Memory then delivers up to twice as much as
// for two streams beside each other: the CPU's own prefetcher follows one.
// A piece is a group's for int8 and int4, a pair of columns for the others:
//   fp32  [2 columns][lane] float
//   bf16  [lane][2 columns] bfloat16, so that one 32-bit shift or mask widens a vector
//   fp16  [2 columns][lane] half
//   int8  LANES fp16 scales, then [pair of columns][lane][2] int8; w = scale * code, |code| <= 127
//   int4  LANES fp16 steps, LANES fp16 minima, then [4 vectors][lane][2] uint16 whose nibble i belongs to
//         column pair 4 * vector + i; w = step * code + minimum, 0 <= code <= 15. Weights whose grid spans several groups
//         (`span` columns: 64 or 128) repeat its step and minimum in each, so that one kernel multiplies them all
//   nested  an int4 matrix and a plane of residuals: nested.h
// Knows nothing of models or threads.
#pragma once
#include "isa.h"

enum Precision : int32_t { FP32 = 0, INT8 = 1, INT4 = 2, BF16 = 3, FP16 = 4, NESTED = 5 };
enum SourceType : int32_t { SRC_F32 = 0, SRC_F16 = 1, SRC_Q4_0 = 2, SRC_Q4_1 = 3, SRC_Q8_0 = 8, SRC_BF16 = 30 };
constexpr int GROUP = 32;

INLINE float read_half(const uint8_t* p) {
    _Float16 h;
    memcpy(&h, p, 2);
    return (float)h;
}
INLINE uint16_t to_half(float a) {
    _Float16 h = (_Float16)a;
    uint16_t bits;
    memcpy(&bits, &h, 2);
    return bits;
}
INLINE uint16_t to_bfloat(float a) {  // nearest, ties to even; NaN stays NaN
    uint32_t bits;
    memcpy(&bits, &a, 4);
    if (a != a) return (uint16_t)(bits >> 16 | 64);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
INLINE float from_bfloat(uint16_t a) {
    uint32_t bits = (uint32_t)a << 16;
    float wide;
    memcpy(&wide, &bits, 4);
    return wide;
}
INLINE bool has_integer_codes(int precision) { return precision == INT8 || precision == INT4 || precision == NESTED; }
INLINE float round_even(float a) { return (a + 12582912.0f) - 12582912.0f; }  // |a| < 2^22

// Bytes of one row of `columns` weights in a GGUF tensor, or -1 for a type that is not supported.
static int64_t source_row_bytes(int type, int64_t columns) {
    switch (type) {
        case SRC_F32: return columns * 4;
        case SRC_F16: case SRC_BF16: return columns * 2;
        case SRC_Q4_0: return columns / GROUP * 18;
        case SRC_Q4_1: return columns / GROUP * 20;
        case SRC_Q8_0: return columns / GROUP * 34;
        default: return -1;
    }
}

static void read_source_row(int type, const uint8_t* src, int64_t columns, float* out) {
    if (type == SRC_F32) { memcpy(out, src, columns * 4); return; }
    if (type == SRC_F16) { for (int64_t i = 0; i < columns; i++) out[i] = read_half(src + 2 * i); return; }
    if (type == SRC_BF16) {
        for (int64_t i = 0; i < columns; i++) out[i] = from_bfloat((uint16_t)(src[2 * i] | src[2 * i + 1] << 8));
        return;
    }
    for (int64_t g = 0; g < columns / GROUP; g++, out += GROUP) {
        float d = read_half(src);
        if (type == SRC_Q8_0) {
            for (int j = 0; j < GROUP; j++) out[j] = d * (float)(int8_t)src[2 + j];
            src += 34;
        } else {
            bool asymmetric = type == SRC_Q4_1;
            float m = asymmetric ? read_half(src + 2) : -8.0f * d;
            const uint8_t* codes = src + (asymmetric ? 4 : 2);
            for (int j = 0; j < 16; j++) {
                out[j] = d * (float)(codes[j] & 15) + m;
                out[j + 16] = d * (float)(codes[j] >> 4) + m;
            }
            src = codes + 16;
        }
    }
}

INLINE int64_t groups_of(int64_t columns) { return (columns + GROUP - 1) / GROUP; }
INLINE int64_t group_bytes(int precision) {
    switch (precision) {
        case INT8: return LANES * (2 + GROUP);
        case INT4: return LANES * (4 + GROUP / 2);
        case BF16: case FP16: return LANES * GROUP * 2;
        case NESTED: return LANES * (4 + GROUP / 2 + GROUP / 2);
        default: return LANES * GROUP * 4;
    }
}
INLINE int64_t block_bytes(int precision, int64_t columns) { return groups_of(columns) * group_bytes(precision); }
INLINE int64_t piece_bytes(int precision) { return has_integer_codes(precision) ? group_bytes(precision) : group_bytes(precision) * 2 / GROUP; }
// Piece `piece` of the row block that is half `half` (0 or 1) of the tile at `tile`.
template <class Byte> INLINE Byte* piece_at(Byte* tile, int half, int precision, int64_t piece) {
    return tile + (2 * piece + half) * piece_bytes(precision);
}
// Row blocks come in pairs, the tiles; the padding rows are zero.
INLINE int64_t blocks_of(int64_t rows) { return (rows + 2 * LANES - 1) / (2 * LANES) * 2; }
INLINE int64_t packed_bytes(int precision, int64_t rows, int64_t columns) {
    return blocks_of(rows) * block_bytes(precision, columns);
}

static void pack_int8_group(const float* w, int count, int lane, uint8_t* out) {
    float top = 0;
    for (int j = 0; j < count; j++) top = __builtin_fabsf(w[j]) > top ? __builtin_fabsf(w[j]) : top;
    uint16_t scale = to_half(top / 127.0f);
    memcpy(out + 2 * lane, &scale, 2);
    float s = read_half((uint8_t*)&scale), inverse = s > 0 ? 1.0f / s : 0.0f;
    int8_t codes[GROUP] = {};
    for (int j = 0; j < count; j++) {
        float code = round_even(w[j] * inverse);
        codes[j] = (int8_t)(code > 127 ? 127 : code < -127 ? -127 : code);
    }
    uint8_t* at = out + 2 * LANES + 2 * lane;
    for (int p = 0; p < GROUP / 2; p++, at += 2 * LANES) memcpy(at, codes + 2 * p, 2);
}

// The grid is that of the `width` weights at `span`, of which w[0..count) are some.
static void pack_int4_group(const float* w, int count, const float* span, int64_t width, int lane, uint8_t* out) {
    float low = span[0], high = span[0];
    for (int64_t j = 1; j < width; j++) {
        low = span[j] < low ? span[j] : low;
        high = span[j] > high ? span[j] : high;
    }
    uint16_t step = to_half((high - low) / 15.0f), minimum = to_half(low);
    memcpy(out + 2 * lane, &step, 2);
    memcpy(out + 2 * LANES + 2 * lane, &minimum, 2);
    float s = read_half((uint8_t*)&step), m = read_half((uint8_t*)&minimum), inverse = s > 0 ? 1.0f / s : 0.0f;
    uint16_t codes[GROUP] = {};
    for (int j = 0; j < count; j++) {
        float code = round_even((w[j] - m) * inverse);
        codes[j] = (uint16_t)(code > 15 ? 15 : code < 0 ? 0 : code);
    }
    uint8_t* at = out + 4 * LANES + 4 * lane;
    for (int v = 0; v < 4; v++, at += 4 * LANES) {
        uint16_t pair[2] = {0, 0};
        for (int i = 0; i < 4; i++) {
            pair[0] |= codes[8 * v + 2 * i] << (4 * i);
            pair[1] |= codes[8 * v + 2 * i + 1] << (4 * i);
        }
        memcpy(at, pair, 4);
    }
}

// Packs one row into lane `lane` of half `half` of the tile at `tile`, which must be zeroed beforehand. span: columns that share
// an int4 grid.
static void pack_row(int precision, const float* w, int64_t columns, int lane, uint8_t* tile, int half, int64_t span = GROUP) {
    for (int64_t k = 0; k < columns && !has_integer_codes(precision); k++) {
        uint8_t* piece = piece_at(tile, half, precision, k / 2);
        if (precision == FP32) ((float*)piece)[k % 2 * LANES + lane] = w[k];
        if (precision == FP16) ((uint16_t*)piece)[k % 2 * LANES + lane] = to_half(w[k]);
        if (precision == BF16) ((uint16_t*)piece)[2 * lane + k % 2] = to_bfloat(w[k]);
    }
    if (!has_integer_codes(precision)) return;
    for (int64_t g = 0; g < groups_of(columns); g++) {
        uint8_t* out = piece_at(tile, half, precision, g);
        int count = (int)(columns - g * GROUP < GROUP ? columns - g * GROUP : GROUP);
        if (precision == INT8) { pack_int8_group(w + g * GROUP, count, lane, out); continue; }
        int64_t first = g * GROUP / span * span, width = columns - first < span ? columns - first : span;
        pack_int4_group(w + g * GROUP, count, w + first, width, lane, out);
    }
}

INLINE float read_code(int precision, const uint8_t* group, int j, int lane) {
    if (precision == INT8) return read_half(group + 2 * lane) * (float)(int8_t)group[2 * LANES + j / 2 * 2 * LANES + 2 * lane + j % 2];
    uint16_t nibbles;
    memcpy(&nibbles, group + 4 * LANES + j / 8 * 4 * LANES + 4 * lane + j % 2 * 2, 2);
    float code = (float)(nibbles >> (4 * (j % 8 / 2)) & 15);
    return read_half(group + 2 * lane) * code + read_half(group + 2 * LANES + 2 * lane);
}

// The inverse of pack_row, up to the rounding of the format.
static void unpack_row(int precision, const uint8_t* tile, int half, int64_t columns, int lane, float* w) {
    for (int64_t k = 0; k < columns; k++) {
        const uint8_t* piece = piece_at(tile, half, precision, has_integer_codes(precision) ? k / GROUP : k / 2);
        if (precision == FP32) w[k] = ((const float*)piece)[k % 2 * LANES + lane];
        else if (precision == FP16) w[k] = read_half(piece + 2 * (k % 2 * LANES + lane));
        else if (precision == BF16) w[k] = from_bfloat(((const uint16_t*)piece)[2 * lane + k % 2]);
        else w[k] = read_code(precision, piece, k % GROUP, lane);
    }
}
