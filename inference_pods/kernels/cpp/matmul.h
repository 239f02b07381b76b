// Small-batch matrix products over the packed formats: y[row] = sum over columns of w[row][column] * x[column].
// Lanes are rows, so nothing is reduced across lanes, and every (row, activation) pair is accumulated in column order by
// one chain: a result depends neither on the batch it was computed in nor on the number of threads.
// fp32, bf16 and fp16 differ in storage only: weights widen to fp32 in registers and meet fp32 activations.
// int8 and int4 multiply integers: activations become int16 with one scale per token (error 2^-15 of the largest), which
// costs no measurable quality, and 32 products of 127 * 32767 stay below 2^31.
#pragma once
#include "format.h"

#ifndef PREFETCH_BYTES
#define PREFETCH_BYTES 2048  // how far ahead weights are asked for: more than one DRAM latency of work
#endif

// Activations of up to `rows` tokens, in the form the precision wants.
struct Activations {
    const float* fp32;   // [rows][stride] when the precision has no integer codes
    int16_t* codes;      // [rows][stride], zero beyond the columns
    float* scales;       // [rows]
    float* sums;         // [rows][stride / 32]: sum of the codes of each group (int4's minimum multiplies it)
    int64_t stride;      // multiple of 32
};

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

// Widens the weights of columns k and k + 1 (k even) of a block; a storage format is nothing but this function.
template <int P> INLINE void widen_pair(const uint8_t* block, int64_t k, vf& even, vf& odd) {
    if constexpr (P == FP32) {
        even = f_load((const float*)block + k * LANES);
        odd = f_load((const float*)block + (k + 1) * LANES);
    } else if constexpr (P == FP16) {
        even = f_from_half((const uint16_t*)block + k * LANES);
        odd = f_from_half((const uint16_t*)block + (k + 1) * LANES);
    } else {
        vi both = i_load(block + k * LANES * 2);
        even = f_low_bfloat(both);
        odd = f_high_bfloat(both);
    }
}

// Each kernel computes B activation rows from `row0` on against the two row blocks at w and w + step.
template <int P, int B> static void dot_float(const uint8_t* w, int64_t step, int64_t columns, const Activations& a, int64_t row0,
                                              vf (&out)[2][B]) {
    constexpr int64_t COLUMN_BYTES = LANES * (P == FP32 ? 4 : 2);
    const float* x = a.fp32 + row0 * a.stride;
    vf acc[2][B], even[2], odd[2];
#pragma GCC unroll 8
    for (int b = 0; b < B; b++) acc[0][b] = acc[1][b] = f_zero();
    int64_t k = 0;
#pragma GCC unroll 2
    for (; k + 2 <= columns; k += 2) {
#pragma GCC unroll 2
        for (int r = 0; r < 2; r++) {
            widen_pair<P>(w + r * step, k, even[r], odd[r]);
            prefetch(w + r * step + k * COLUMN_BYTES + PREFETCH_BYTES);
        }
#pragma GCC unroll 8
        for (int b = 0; b < B; b++) {
            vf x0 = f_set(x[b * a.stride + k]), x1 = f_set(x[b * a.stride + k + 1]);
#pragma GCC unroll 2
            for (int r = 0; r < 2; r++) acc[r][b] = f_fma(odd[r], x1, f_fma(even[r], x0, acc[r][b]));
        }
    }
    if (k < columns)
        for (int r = 0; r < 2; r++) {
            widen_pair<P>(w + r * step, k, even[r], odd[r]);
            for (int b = 0; b < B; b++) acc[r][b] = f_fma(even[r], f_set(x[b * a.stride + k]), acc[r][b]);
        }
#pragma GCC unroll 8
    for (int b = 0; b < B; b++) { out[0][b] = acc[0][b]; out[1][b] = acc[1][b]; }
}

template <int B> static void dot_int8_block(const uint8_t* w, int64_t groups, const Activations& a, int64_t row0, vf (&acc)[B]) {
    const int16_t* x = a.codes + row0 * a.stride;
    constexpr int CHAINS = B == 1 ? 2 : 1;  // a lone token would wait for the latency of one chain
#pragma GCC unroll 8
    for (int b = 0; b < B; b++) acc[b] = f_zero();
    for (int64_t g = 0; g < groups; g++, w += LANES * (2 + GROUP)) {
        vi dot[B][CHAINS];
#pragma GCC unroll 8
        for (int b = 0; b < B; b++) for (int c = 0; c < CHAINS; c++) dot[b][c] = i_zero();
#pragma GCC unroll 16
        for (int p = 0; p < GROUP / 2; p++) {
            vi v = i_load_i8(w + 2 * LANES + p * 2 * LANES);
            if (p % 2 == 0) prefetch(w + 2 * LANES + p * 2 * LANES + PREFETCH_BYTES);
#pragma GCC unroll 8
            for (int b = 0; b < B; b++)
                dot[b][p % CHAINS] = i_dot(dot[b][p % CHAINS], v, i_set(load_pair(x + b * a.stride + g * GROUP + 2 * p)));
        }
        vf scale = f_from_half((const uint16_t*)w);
#pragma GCC unroll 8
        for (int b = 0; b < B; b++) {
            vi whole = CHAINS == 2 ? i_add(dot[b][0], dot[b][CHAINS - 1]) : dot[b][0];
            acc[b] = f_fma(f_from_int(whole), scale, acc[b]);
        }
    }
}

template <int B> static void dot_int4_block(const uint8_t* w, int64_t groups, const Activations& a, int64_t row0, vf (&acc)[B]) {
    const int16_t* x = a.codes + row0 * a.stride;
    const float* sums = a.sums + row0 * (a.stride / GROUP);
    constexpr int CHAINS = B <= 2 ? 2 : 1;
#pragma GCC unroll 8
    for (int b = 0; b < B; b++) acc[b] = f_zero();
    for (int64_t g = 0; g < groups; g++, w += LANES * (4 + GROUP / 2)) {
        vi dot[B][CHAINS];
#pragma GCC unroll 8
        for (int b = 0; b < B; b++) for (int c = 0; c < CHAINS; c++) dot[b][c] = i_zero();
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++) {
            vi packed = i_load(w + 4 * LANES + q * 4 * LANES);
            prefetch(w + 4 * LANES + q * 4 * LANES + PREFETCH_BYTES);
            vi v[4] = {i_nibble<0>(packed), i_nibble<1>(packed), i_nibble<2>(packed), i_nibble<3>(packed)};
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
#pragma GCC unroll 8
                for (int b = 0; b < B; b++)
                    dot[b][i % CHAINS] = i_dot(dot[b][i % CHAINS], v[i], i_set(load_pair(x + b * a.stride + g * GROUP + 8 * q + 2 * i)));
        }
        vf scale = f_from_half((const uint16_t*)w), minimum = f_from_half((const uint16_t*)w + LANES);
#pragma GCC unroll 8
        for (int b = 0; b < B; b++) {
            vi whole = CHAINS == 2 ? i_add(dot[b][0], dot[b][CHAINS - 1]) : dot[b][0];
            acc[b] = f_fma(f_from_int(whole), scale, acc[b]);
            acc[b] = f_fma(minimum, f_set(sums[b * (a.stride / GROUP) + g]), acc[b]);
        }
    }
}

template <int P, int B> INLINE void dot_pair(const uint8_t* w, int64_t step, int64_t columns, const Activations& a, int64_t row0,
                                             vf (&out)[2][B]) {
    if constexpr (P != INT8 && P != INT4) {
        dot_float<P, B>(w, step, columns, a, row0, out);
    } else {
        for (int r = 0; r < 2; r++) {
            if constexpr (P == INT8) dot_int8_block<B>(w + r * step, groups_of(columns), a, row0, out[r]);
            else dot_int4_block<B>(w + r * step, groups_of(columns), a, row0, out[r]);
        }
        for (int b = 0; b < B; b++) {
            vf scale = f_set(a.scales[row0 + b]);
            out[0][b] = f_mul(out[0][b], scale);
            out[1][b] = f_mul(out[1][b], scale);
        }
    }
}

// Widest activation block: what the registers hold beside the weights.
#ifdef PORTABLE
template <int P> constexpr int widest() { return 2; }
#else
template <int P> constexpr int widest() { return P != INT8 && P != INT4 && LANES == 8 ? 4 : 8; }
#endif

template <int P, int B, class Sink> INLINE void tile_rows(const uint8_t* w, int64_t step, int64_t columns, const Activations& a,
                                                          int64_t row0, Sink&& sink) {
    if constexpr (B <= widest<P>()) {
        vf out[2][B];
        dot_pair<P, B>(w, step, columns, a, row0, out);
        for (int b = 0; b < B; b++) sink(row0 + b, out[0][b], out[1][b]);
    }
}

// All `rows` activation rows against one pair of row blocks; sink(row, first block's lanes, second block's lanes).
template <int P, class Sink> static void multiply_tile(const uint8_t* w, int64_t step, int64_t columns, const Activations& a,
                                                       int64_t rows, Sink&& sink) {
    int64_t row = 0;
    for (; row + widest<P>() <= rows; row += widest<P>()) tile_rows<P, widest<P>()>(w, step, columns, a, row, sink);
    switch (rows - row) {
        case 7: tile_rows<P, 7>(w, step, columns, a, row, sink); break;
        case 6: tile_rows<P, 6>(w, step, columns, a, row, sink); break;
        case 5: tile_rows<P, 5>(w, step, columns, a, row, sink); break;
        case 4: tile_rows<P, 4>(w, step, columns, a, row, sink); break;
        case 3: tile_rows<P, 3>(w, step, columns, a, row, sink); break;
        case 2: tile_rows<P, 2>(w, step, columns, a, row, sink); break;
        case 1: tile_rows<P, 1>(w, step, columns, a, row, sink); break;
        default: break;
    }
}
