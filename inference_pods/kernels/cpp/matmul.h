// Small-batch matrix products over the packed formats: y[row] = sum over columns of w[row][column] * x[column].
// Lanes are rows, so nothing is reduced across lanes, and every (row, activation) pair is accumulated in column order by
// one chain: a result depends neither on the batch it was computed in nor on the number of threads.
// fp32, bf16 and fp16 differ in storage only: weights widen to fp32 in registers and meet fp32 activations.
// int8 and int4 multiply integers: activations become int16 with one scale per token (error 2^-15 of the largest), which
// costs no measurable quality, and 32 products of 127 * 32767 stay below 2^31.
#pragma once
#include <type_traits>
#include "format.h"

// Activations of up to `rows` tokens, in the form the precision wants.
struct Activations {
    const float* fp32;   // [rows][stride] when the precision has no integer codes
    int16_t* codes;      // [rows][stride], zero beyond the columns
    float* scales;       // [rows]
    float* sums;         // [rows][stride / 32]: sum of the codes of each group (int4's minimum multiplies it)
    int64_t stride;      // multiple of 32
    uint8_t* joined;     // one tile in the form JOINED, when both planes of nested matrices are multiplied
};

INLINE Activations from_row(const Activations& a, int64_t row) {
    return {a.fp32 + row * a.stride, a.codes + row * a.stride, a.scales + row, a.sums + row * (a.stride / GROUP), a.stride, a.joined};
}

// Quantises one activation row; a row with NaN or infinity gets a NaN scale, so that the result says so.
static void quantise_activation(const float* x, int64_t columns, const Activations& a, int64_t row) {
    vf top = f_zero(), total = f_zero();
    int64_t k = 0;
    float tail_top = 0, tail_total = 0;
    for (; k + LANES <= columns; k += LANES) {
        vf v = f_abs(f_load(x + k));
        top = f_max(top, v);
        total = f_add(total, v);
    }
    for (; k < columns; k++) {
        float v = __builtin_fabsf(x[k]);
        tail_top = v > tail_top ? v : tail_top;
        tail_total += v;
    }
    float peak = f_hmax(top), sum = f_sum(total) + tail_total;
    peak = tail_top > peak ? tail_top : peak;
    float inverse = peak > 1e-30f ? 32767.0f / peak : 0.0f;
    a.scales[row] = sum < __builtin_inff() ? peak / 32767.0f : __builtin_nanf("");
    int16_t* codes = a.codes + row * a.stride;
    if (!(sum < __builtin_inff())) inverse = 0.0f;
    for (k = 0; k + LANES <= columns; k += LANES) store_i16(codes + k, f_round(f_mul(f_load(x + k), f_set(inverse))));
    for (; k < columns; k++) codes[k] = (int16_t)round_even(x[k] * inverse);
    for (; k < a.stride; k++) codes[k] = 0;
    for (int64_t g = 0; g < a.stride / GROUP; g++) {
        int32_t group_sum = 0;
        for (int j = 0; j < GROUP; j++) group_sum += codes[g * GROUP + j];
        a.sums[row * (a.stride / GROUP) + g] = (float)group_sum;
    }
}

INLINE int32_t load_pair(const int16_t* p) {
    int32_t pair;
    memcpy(&pair, p, 4);
    return pair;
}

// Widens a piece, the weights of two columns; a storage format is nothing but this function.
template <int P> INLINE void widen_pair(const uint8_t* piece, vf& even, vf& odd) {
    if constexpr (P == FP32) {
        even = f_load((const float*)piece);
        odd = f_load((const float*)piece + LANES);
    } else if constexpr (P == FP16) {
        even = f_from_half((const uint16_t*)piece);
        odd = f_from_half((const uint16_t*)piece + LANES);
    } else {
        vi both = i_load(piece);
        even = f_low_bfloat(both);
        odd = f_high_bfloat(both);
    }
}

// The first pass over a tile runs ahead within the matrix; later ones find it in the cache and ask for the next tile, so
// that memory works while they compute.
// Four KiB ahead was the best for all formats together; what each lost at other distances is in docs/benchmarks.md.
INLINE int64_t prefetch_distance(int64_t row0, int64_t tile_bytes) { return row0 == 0 ? 4096 : tile_bytes; }

// The form that nested matrices are multiplied in, never stored: nested.h makes it of both planes, a tile at a time.
// Per group: LANES fp32 scales, LANES fp32 minima, then per four column pairs [2 vectors][lane][2] uint16, whose low byte
// belongs to pair `vector` and whose high byte to pair `vector` + 2.
constexpr int JOINED = 6;

template <int P> constexpr bool is_integer() { return P == INT8 || P == INT4 || P == JOINED; }
template <int P> constexpr int64_t bytes_of_group() {
    if (P == JOINED) return LANES * (8 + GROUP);
    return P == INT8 ? LANES * (2 + GROUP) : P == INT4 ? LANES * (4 + GROUP / 2) : LANES * GROUP * (P == FP32 ? 4 : 2);
}

// Widest activation block: what the registers hold beside the weights of a pair of columns. MANY rows of fp32 meet one column
// after another (add_columns), whose weights leave AVX2 room for more.
#ifdef PORTABLE
template <int P, bool MANY = false> constexpr int widest() { return 2; }
#else
template <int P, bool MANY = false> constexpr int widest() { return LANES != 8 ? 8 : P == FP32 && MANY ? 6 : 4; }
#endif

// Pointers to B rows from `row0` on. The empty asm hides from gcc how they relate; it would address every value by an offset
// of its own, computed beforehand and reloaded from the stack.
template <int B, class T> INLINE void point_at_rows(const T* values, int64_t stride, int64_t row0, const T* (&rows)[B]) {
#pragma GCC unroll 8
    for (int b = 0; b < B; b++) {
        rows[b] = values + (row0 + b) * stride;
        __asm__("" : "+r"(rows[b]));
    }
}

// One activation row has one chain of sums per row block, and memory may deliver a pair of 16-bit columns sooner than two fused
// additions end. So the chain of those has one addition, of the pair's sum, in the same order for every B. fp32 waits for memory
// anyway and keeps the fewer instructions.
template <int P> INLINE vf add_pair(vf sum, vf even, vf even_x, vf odd, vf odd_x) {
    if constexpr (P == FP32) return f_fma(odd, odd_x, f_fma(even, even_x, sum));
    return f_add(sum, f_fma(odd, odd_x, f_mul(even, even_x)));
}

// Adds the products of `columns` columns of the tile at `w`, from a pair of columns on, with B activation rows.
template <int P, int B, bool PREFETCH>
INLINE void add_products(const uint8_t* w, int64_t columns, const float* values, int64_t stride, int64_t row0, int64_t ahead,
                         vf (&acc)[2][B]) {
    constexpr int64_t PIECE = bytes_of_group<P>() * 2 / GROUP;
    const float* x[B];
    point_at_rows<B>(values, stride, row0, x);
    vf even[2], odd[2];
    int64_t k = 0;
#pragma GCC unroll 2
    for (; k + 2 <= columns; k += 2, w += 2 * PIECE) {
#pragma GCC unroll 2
        for (int r = 0; r < 2; r++) widen_pair<P>(w + r * PIECE, even[r], odd[r]);
        if (PREFETCH)
            for (int64_t line = 0; line < 2 * PIECE; line += 64) prefetch(w + line + ahead);
#pragma GCC unroll 8
        for (int b = 0; b < B; b++) {
            vf even_x = f_set(x[b][k]), odd_x = f_set(x[b][k + 1]);
#pragma GCC unroll 2
            for (int r = 0; r < 2; r++) acc[r][b] = add_pair<P>(acc[r][b], even[r], even_x, odd[r], odd_x);
        }
    }
    if (k < columns)
        for (int r = 0; r < 2; r++) {
            widen_pair<P>(w + r * PIECE, even[r], odd[r]);
            for (int b = 0; b < B; b++) acc[r][b] = f_fma(even[r], f_set(x[b][k]), acc[r][b]);
        }
}

// The same sums for fp32, one column after another: its two weights leave registers for six rows, which load less for each
// multiplication than four.
template <int B>
INLINE void add_columns(const uint8_t* w, int64_t columns, const float* values, int64_t stride, int64_t row0, int64_t ahead,
                        vf (&acc)[2][B]) {
    const float* x[B];
    point_at_rows<B>(values, stride, row0, x);
    for (int64_t k = 0; k < columns; k += 2, w += 4 * LANES * sizeof(float)) {
        for (int64_t line = 0; line < 4 * LANES * (int64_t)sizeof(float); line += 64) prefetch(w + line + ahead);
#pragma GCC unroll 2
        for (int64_t c = 0; c < 2 && k + c < columns; c++) {
            vf first = f_load((const float*)w + c * LANES), second = f_load((const float*)w + (c + 2) * LANES);
#pragma GCC unroll 8
            for (int b = 0; b < B; b++) {
                vf value = f_set(x[b][k + c]);
                acc[0][b] = f_fma(first, value, acc[0][b]);
                acc[1][b] = f_fma(second, value, acc[1][b]);
            }
        }
    }
}

// Each kernel computes B activation rows from `row0` on against the two row blocks of the tile at `w`.
template <int P, int B> static void dot_float(const uint8_t* w, int64_t columns, const Activations& a, int64_t row0, vf (&out)[2][B]) {
    vf acc[2][B];
#pragma GCC unroll 8
    for (int b = 0; b < B; b++) acc[0][b] = acc[1][b] = f_zero();
    int64_t ahead = prefetch_distance(row0, 2 * block_bytes(P, columns));
    if constexpr (P == FP32 && B > widest<FP32>()) add_columns<B>(w, columns, a.fp32, a.stride, row0, ahead, acc);
    else add_products<P, B, true>(w, columns, a.fp32, a.stride, row0, ahead, acc);
#pragma GCC unroll 8
    for (int b = 0; b < B; b++) out[0][b] = acc[0][b], out[1][b] = acc[1][b];
}

// Codes of column pair PAIR of a group, widened to int16; int4 unpacks one vector into four pairs, which the compiler
// shares between them.
template <int P, int PAIR> INLINE vi load_codes(const uint8_t* group) {
    if constexpr (P == JOINED) {
        vi pairs = i_load(group + 8 * LANES + (PAIR / 4 * 2 + PAIR % 2) * 4 * LANES);
        return PAIR % 4 < 2 ? i_low_bytes(pairs) : i_high_bytes(pairs);
    } else if constexpr (P == INT8) {
        return i_load_i8(group + 2 * LANES + PAIR * 2 * LANES);
    } else {
        return i_nibble<PAIR % 4>(i_load(group + 4 * LANES + PAIR / 4 * 4 * LANES));
    }
}

template <int P> INLINE vf load_scale(const uint8_t* group) {
    return P == JOINED ? f_load((const float*)group) : f_from_half((const uint16_t*)group);
}
template <int P> INLINE vf load_minimum(const uint8_t* group) {
    return P == JOINED ? f_load((const float*)group + LANES) : f_from_half((const uint16_t*)group + LANES);
}

template <int P, int B, int CHAINS, int PAIR = 0>
INLINE void dot_group(const uint8_t* group, const int16_t* const (&x)[B], vi (&dot)[2][B][CHAINS]) {
    if constexpr (PAIR < GROUP / 2) {
        vi codes[2];
#pragma GCC unroll 2
        for (int r = 0; r < 2; r++) codes[r] = load_codes<P, PAIR>(group + r * bytes_of_group<P>());
#pragma GCC unroll 8
        for (int b = 0; b < B; b++) {
            vi pair = i_set(load_pair(x[b] + 2 * PAIR));
#pragma GCC unroll 2
            for (int r = 0; r < 2; r++) dot[r][b][PAIR % CHAINS] = i_dot(dot[r][b][PAIR % CHAINS], codes[r], pair);
        }
        dot_group<P, B, CHAINS, PAIR + 1>(group, x, dot);
    }
}

// `next` is prefetched beside the weights being read: it continues the tile, or, in the form JOINED, is what the next tile is
// made of (null: nothing).
template <int P, int B> static void dot_integer(const uint8_t* w, int64_t columns, const Activations& a, int64_t row0,
                                                const uint8_t* next, vf (&out)[2][B]) {
    constexpr int CHAINS = B <= 2 ? 2 : 1;  // few tokens would wait for the latency of one chain
    constexpr int64_t BYTES = bytes_of_group<P>(), NEXT_BYTES = P == JOINED ? BYTES : 2 * BYTES;
    const int64_t sums_stride = a.stride / GROUP;
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
        if (P != JOINED || next) {
            for (int64_t line = 0; line < NEXT_BYTES; line += 64) prefetch(next + line);
            next += NEXT_BYTES;
        }
        dot_group<P, B, CHAINS>(w, x, dot);
#pragma GCC unroll 8
        for (int b = 0; b < B; b++) x[b] += GROUP;
#pragma GCC unroll 2
        for (int r = 0; r < 2; r++, w += BYTES) {
            vf scale = load_scale<P>(w);
#pragma GCC unroll 8
            for (int b = 0; b < B; b++) {
                vi whole = CHAINS == 2 ? i_add(dot[r][b][0], dot[r][b][CHAINS - 1]) : dot[r][b][0];
                acc[r][b] = f_fma(f_from_int(whole), scale, acc[r][b]);
                if constexpr (P != INT8) acc[r][b] = f_fma(load_minimum<P>(w), f_set(sums[b * sums_stride]), acc[r][b]);
            }
        }
    }
#pragma GCC unroll 8
    for (int b = 0; b < B; b++) out[0][b] = acc[0][b], out[1][b] = acc[1][b];
}

// Calls body(first row, std::integral_constant of the count) for blocks of up to WIDEST rows.
template <int WIDEST, class Body> INLINE void for_row_blocks(int64_t rows, Body&& body) {
    int64_t row = 0;
    for (; row + WIDEST <= rows; row += WIDEST) body(row, std::integral_constant<int, WIDEST>());
    switch (rows - row) {
        case 7: if constexpr (WIDEST > 7) body(row, std::integral_constant<int, 7>()); break;
        case 6: if constexpr (WIDEST > 6) body(row, std::integral_constant<int, 6>()); break;
        case 5: if constexpr (WIDEST > 5) body(row, std::integral_constant<int, 5>()); break;
        case 4: if constexpr (WIDEST > 4) body(row, std::integral_constant<int, 4>()); break;
        case 3: if constexpr (WIDEST > 3) body(row, std::integral_constant<int, 3>()); break;
        case 2: if constexpr (WIDEST > 2) body(row, std::integral_constant<int, 2>()); break;
        case 1: body(row, std::integral_constant<int, 1>()); break;
        default: break;
    }
}

// fp32 weights against up to FEW rows that need several passes: all rows meet 32 columns after another, so that memory delivers
// weights during all passes and not only during the first. The sums wait on the stack. Only for AVX2: the denser formats lose
// 10 % by it, their passes take longer than their bytes, and so do AVX-512's passes of eight rows.
constexpr int64_t FEW = 16;

template <class Sink> static void multiply_strips(const uint8_t* w, int64_t columns, const Activations& a, int64_t rows, Sink&& sink) {
    constexpr int64_t AHEAD = 2 * GROUP * LANES * 4;
    vf sums[FEW][2];
    for (int64_t b = 0; b < FEW; b++) sums[b][0] = sums[b][1] = f_zero();
    for (int64_t first = 0; first < columns; first += GROUP) {
        const uint8_t* at = w + 2 * first * LANES * 4;
        int64_t count = columns - first < GROUP ? columns - first : GROUP;
        for_row_blocks<widest<FP32>()>(rows, [&](int64_t row, auto block) __attribute__((always_inline)) {
            constexpr int B = decltype(block)::value;
            vf acc[2][B];
#pragma GCC unroll 8
            for (int b = 0; b < B; b++) acc[0][b] = sums[row + b][0], acc[1][b] = sums[row + b][1];
            if (row == 0) add_products<FP32, B, true>(at, count, a.fp32 + first, a.stride, row, AHEAD, acc);
            else add_products<FP32, B, false>(at, count, a.fp32 + first, a.stride, row, 0, acc);
#pragma GCC unroll 8
            for (int b = 0; b < B; b++) sums[row + b][0] = acc[0][b], sums[row + b][1] = acc[1][b];
        });
    }
    for (int64_t b = 0; b < rows; b++) sink(b, sums[b][0], sums[b][1]);
}

// All `rows` activation rows against the tile at `w`; sink(row, first block's lanes, second block's lanes).
// Many rows (a prompt's chunk) find the tile in the first- or second-level cache. Unpacking it there once, to fp32 or int16
// in tiles of 256 columns, was measured and gained nothing: loading and storing the sums between tiles costs what it saves.
template <int P, class Sink> static void multiply_tile(const uint8_t* w, int64_t columns, const Activations& a, int64_t rows,
                                                       Sink&& sink) {
    if constexpr (widest<P, true>() > widest<P>())
        if (rows > widest<P>() && rows <= FEW) return multiply_strips(w, columns, a, rows, sink);
    auto multiply = [&](int64_t row, auto count) {
        constexpr int B = decltype(count)::value;
        vf out[2][B];
        if constexpr (is_integer<P>()) {
            dot_integer<P, B>(w, columns, a, row, w + prefetch_distance(row, 2 * block_bytes(P, columns)), out);
            for (int b = 0; b < B; b++)
                for (int r = 0; r < 2; r++) out[r][b] = f_mul(out[r][b], f_set(a.scales[row + b]));
        } else {
            dot_float<P, B>(w, columns, a, row, out);
        }
        for (int b = 0; b < B; b++) sink(row + b, out[0][b], out[1][b]);
    };
    if constexpr (widest<P, true>() > widest<P>())
        if (rows > FEW) return for_row_blocks<widest<P, true>()>(rows, multiply);
    for_row_blocks<widest<P>()>(rows, multiply);
}
