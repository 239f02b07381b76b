// The vector vocabulary of the kernels: one name per operation, one body per instruction set.
// Compiled once per variant (avx512, avx2, generic) into its own shared object, so no symbol is ever shared between
// variants and nothing needs -march=native. Knows nothing of models, formats or threads.
#pragma once
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VNNI__)
#include <immintrin.h>
#define VARIANT "avx512"
constexpr int LANES = 16;
using vf = __m512;
using vi = __m512i;
INLINE vf f_zero() { return _mm512_setzero_ps(); }
INLINE vf f_load(const float* p) { return _mm512_loadu_ps(p); }
INLINE void f_store(float* p, vf a) { _mm512_storeu_ps(p, a); }
INLINE vf f_set(float a) { return _mm512_set1_ps(a); }
INLINE vf f_add(vf a, vf b) { return _mm512_add_ps(a, b); }
INLINE vf f_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
INLINE vf f_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
INLINE vf f_div(vf a, vf b) { return _mm512_div_ps(a, b); }
INLINE vf f_max(vf a, vf b) { return _mm512_max_ps(a, b); }
INLINE vf f_min(vf a, vf b) { return _mm512_min_ps(a, b); }
INLINE vf f_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vf f_round(vf a) { return _mm512_roundscale_ps(a, 8); }
INLINE vf f_abs(vf a) { return _mm512_abs_ps(a); }
INLINE float f_sum(vf a) { return _mm512_reduce_add_ps(a); }
INLINE float f_hmax(vf a) { return _mm512_reduce_max_ps(a); }
INLINE vf f_from_int(vi a) { return _mm512_cvtepi32_ps(a); }
INLINE vf f_from_half(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
INLINE vf f_from_i8(const int8_t* p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p))); }
INLINE vf f_low_bfloat(vi a) { return _mm512_castsi512_ps(_mm512_slli_epi32(a, 16)); }
INLINE vf f_high_bfloat(vi a) { return _mm512_castsi512_ps(_mm512_and_si512(a, _mm512_set1_epi32((int32_t)0xffff0000))); }
INLINE vf f_pow2(vf n) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}
INLINE vi i_zero() { return _mm512_setzero_si512(); }
INLINE vi i_set(int32_t a) { return _mm512_set1_epi32(a); }
INLINE vi i_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
INLINE vi i_load(const uint8_t* p) { return _mm512_loadu_si512(p); }
INLINE void i_store(uint8_t* p, vi a) { _mm512_storeu_si512(p, a); }
INLINE vi i_load_i8(const uint8_t* p) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)p)); }
INLINE vi i_dot(vi acc, vi a, vi b) { return _mm512_dpwssd_epi32(acc, a, b); }
template <int I> INLINE vi i_nibble(vi a) {
    vi shifted = I ? _mm512_srli_epi16(a, 4 * I) : a;
    return I == 3 ? shifted : _mm512_and_si512(shifted, _mm512_set1_epi16(15));
}
// Nested planes: bytes 16 * high + low of each uint16's nibbles 0 and 2, or 1 and 3; then a byte of each uint16 as int16.
INLINE vi i_join_even(vi h, vi l) { return _mm512_ternarylogic_epi32(_mm512_set1_epi8(15), l, _mm512_slli_epi16(h, 4), 0xca); }
INLINE vi i_join_odd(vi h, vi l) { return _mm512_ternarylogic_epi32(_mm512_set1_epi8(15), _mm512_srli_epi16(l, 4), h, 0xca); }
INLINE vi i_low_bytes(vi a) { return _mm512_and_si512(a, _mm512_set1_epi16(255)); }
INLINE vi i_high_bytes(vi a) { return _mm512_srli_epi16(a, 8); }
INLINE void store_i16(int16_t* p, vf a) { _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(a))); }
INLINE void cpu_pause() { _mm_pause(); }
// Into the second level: a piece of 16 lanes is up to 17 lines at once, more than the first level can wait for beside its loads.
INLINE void prefetch(const void* p) { _mm_prefetch((const char*)p, _MM_HINT_T1); }

#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include <immintrin.h>
#define VARIANT "avx2"
constexpr int LANES = 8;
using vf = __m256;
using vi = __m256i;
INLINE vf f_zero() { return _mm256_setzero_ps(); }
INLINE vf f_load(const float* p) { return _mm256_loadu_ps(p); }
INLINE void f_store(float* p, vf a) { _mm256_storeu_ps(p, a); }
INLINE vf f_set(float a) { return _mm256_set1_ps(a); }
INLINE vf f_add(vf a, vf b) { return _mm256_add_ps(a, b); }
INLINE vf f_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
INLINE vf f_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
INLINE vf f_div(vf a, vf b) { return _mm256_div_ps(a, b); }
INLINE vf f_max(vf a, vf b) { return _mm256_max_ps(a, b); }
INLINE vf f_min(vf a, vf b) { return _mm256_min_ps(a, b); }
INLINE vf f_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vf f_round(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE vf f_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
INLINE float f_sum(vf a) {
    float lane[8];
    f_store(lane, a);
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}
INLINE float f_hmax(vf a) {
    float lane[8], best;
    f_store(lane, a);
    best = lane[0];
    for (int i = 1; i < 8; i++) best = lane[i] > best ? lane[i] : best;
    return best;
}
INLINE vf f_from_int(vi a) { return _mm256_cvtepi32_ps(a); }
INLINE vf f_from_half(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
INLINE vf f_from_i8(const int8_t* p) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p))); }
INLINE vf f_low_bfloat(vi a) { return _mm256_castsi256_ps(_mm256_slli_epi32(a, 16)); }
INLINE vf f_high_bfloat(vi a) { return _mm256_castsi256_ps(_mm256_and_si256(a, _mm256_set1_epi32((int32_t)0xffff0000))); }
INLINE vf f_pow2(vf n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
INLINE vi i_zero() { return _mm256_setzero_si256(); }
INLINE vi i_set(int32_t a) { return _mm256_set1_epi32(a); }
INLINE vi i_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
INLINE vi i_load(const uint8_t* p) { return _mm256_loadu_si256((const __m256i*)p); }
INLINE void i_store(uint8_t* p, vi a) { _mm256_storeu_si256((__m256i*)p, a); }
INLINE vi i_load_i8(const uint8_t* p) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p)); }
// The empty asm hides the sum from gcc, which would reassociate an unrolled chain into a tree and spill every product.
INLINE vi i_dot(vi acc, vi a, vi b) {
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(a, b));
    __asm__("" : "+x"(acc));
    return acc;
}
template <int I> INLINE vi i_nibble(vi a) {
    vi shifted = I ? _mm256_srli_epi16(a, 4 * I) : a;
    return I == 3 ? shifted : _mm256_and_si256(shifted, _mm256_set1_epi16(15));
}
INLINE vi i_select(vi mask, vi a, vi b) { return _mm256_or_si256(_mm256_and_si256(mask, a), _mm256_andnot_si256(mask, b)); }
INLINE vi i_join_even(vi h, vi l) { return i_select(_mm256_set1_epi8(15), l, _mm256_slli_epi16(h, 4)); }
INLINE vi i_join_odd(vi h, vi l) { return i_select(_mm256_set1_epi8(15), _mm256_srli_epi16(l, 4), h); }
INLINE vi i_low_bytes(vi a) { return _mm256_and_si256(a, _mm256_set1_epi16(255)); }
INLINE vi i_high_bytes(vi a) { return _mm256_srli_epi16(a, 8); }
INLINE void store_i16(int16_t* p, vf a) {
    __m256i wide = _mm256_cvtps_epi32(a);
    _mm_storeu_si128((__m128i*)p, _mm_packs_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1)));
}
INLINE void cpu_pause() { _mm_pause(); }
INLINE void prefetch(const void* p) { _mm_prefetch((const char*)p, _MM_HINT_T0); }

#else
// Portable variant: plain loops over eight lanes, left to the compiler's baseline vectoriser. Correct everywhere, slow.
#define VARIANT "generic"
#define PORTABLE
constexpr int LANES = 8;
struct vf { float v[LANES]; };
struct vi { int32_t v[LANES]; };
#define EACH for (int i = 0; i < LANES; i++)
INLINE vf f_set(float a) { vf r; EACH r.v[i] = a; return r; }
INLINE vf f_zero() { return f_set(0.0f); }
INLINE vf f_load(const float* p) { vf r; memcpy(r.v, p, sizeof r.v); return r; }
INLINE void f_store(float* p, vf a) { memcpy(p, a.v, sizeof a.v); }
INLINE vf f_add(vf a, vf b) { EACH a.v[i] += b.v[i]; return a; }
INLINE vf f_sub(vf a, vf b) { EACH a.v[i] -= b.v[i]; return a; }
INLINE vf f_mul(vf a, vf b) { EACH a.v[i] *= b.v[i]; return a; }
INLINE vf f_div(vf a, vf b) { EACH a.v[i] /= b.v[i]; return a; }
INLINE vf f_max(vf a, vf b) { EACH a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]; return a; }
INLINE vf f_min(vf a, vf b) { EACH a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i]; return a; }
INLINE vf f_fma(vf a, vf b, vf c) { EACH c.v[i] += a.v[i] * b.v[i]; return c; }
INLINE vf f_round(vf a) { EACH a.v[i] = (a.v[i] + 12582912.0f) - 12582912.0f; return a; }  // half to even, |a| < 2^22
INLINE vf f_abs(vf a) { EACH a.v[i] = __builtin_fabsf(a.v[i]); return a; }
INLINE float f_sum(vf a) { float s = 0; EACH s += a.v[i]; return s; }
INLINE float f_hmax(vf a) { float s = a.v[0]; EACH s = a.v[i] > s ? a.v[i] : s; return s; }
INLINE vf f_from_int(vi a) { vf r; EACH r.v[i] = (float)a.v[i]; return r; }
INLINE float half_to_float(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 1023, bits;
    float r;
    if (exponent == 0) {
        r = (float)fraction * 5.9604644775390625e-8f;  // 2^-24: zero and subnormals
        memcpy(&bits, &r, 4);
    } else {
        bits = (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
    }
    bits |= sign;
    memcpy(&r, &bits, 4);
    return r;
}
INLINE vf f_from_half(const uint16_t* p) { vf r; EACH r.v[i] = half_to_float(p[i]); return r; }
INLINE vf f_pow2(vf n) { EACH { int32_t b = ((int32_t)n.v[i] + 127) << 23; memcpy(&n.v[i], &b, 4); } return n; }
INLINE vi i_set(int32_t a) { vi r; EACH r.v[i] = a; return r; }
INLINE vi i_zero() { return i_set(0); }
INLINE vi i_add(vi a, vi b) { EACH a.v[i] += b.v[i]; return a; }
INLINE vi i_load(const uint8_t* p) { vi r; memcpy(r.v, p, sizeof r.v); return r; }
INLINE void i_store(uint8_t* p, vi a) { memcpy(p, a.v, sizeof a.v); }
INLINE vi i_load_i8(const uint8_t* p) {
    int16_t wide[2 * LANES];
    vi r;
    for (int i = 0; i < 2 * LANES; i++) wide[i] = (int8_t)p[i];
    memcpy(r.v, wide, sizeof r.v);
    return r;
}
INLINE vf f_from_i8(const int8_t* p) { vf r; EACH r.v[i] = (float)p[i]; return r; }
INLINE vf f_low_bfloat(vi a) { vf r; EACH { uint32_t b = (uint32_t)a.v[i] << 16; memcpy(&r.v[i], &b, 4); } return r; }
INLINE vf f_high_bfloat(vi a) { vf r; EACH { uint32_t b = (uint32_t)a.v[i] & 0xffff0000u; memcpy(&r.v[i], &b, 4); } return r; }
INLINE vi i_dot(vi acc, vi a, vi b) {
    int16_t x[2 * LANES], y[2 * LANES];
    memcpy(x, a.v, sizeof x);
    memcpy(y, b.v, sizeof y);
    EACH acc.v[i] += (int32_t)x[2 * i] * y[2 * i] + (int32_t)x[2 * i + 1] * y[2 * i + 1];
    return acc;
}
template <int I> INLINE vi i_nibble(vi a) { EACH a.v[i] = (int32_t)(((uint32_t)a.v[i] >> (4 * I)) & 0x000f000fu); return a; }
INLINE vi i_join_even(vi h, vi l) { EACH h.v[i] = (int32_t)(((uint32_t)h.v[i] << 4 & 0xf0f0f0f0u) | ((uint32_t)l.v[i] & 0x0f0f0f0fu)); return h; }
INLINE vi i_join_odd(vi h, vi l) { EACH h.v[i] = (int32_t)(((uint32_t)h.v[i] & 0xf0f0f0f0u) | ((uint32_t)l.v[i] >> 4 & 0x0f0f0f0fu)); return h; }
INLINE vi i_low_bytes(vi a) { EACH a.v[i] &= 0x00ff00ff; return a; }
INLINE vi i_high_bytes(vi a) { EACH a.v[i] = (int32_t)((uint32_t)a.v[i] >> 8 & 0x00ff00ffu); return a; }
INLINE void store_i16(int16_t* p, vf a) { EACH p[i] = (int16_t)f_round(a).v[i]; }
INLINE void cpu_pause() {}
INLINE void prefetch(const void* p) { __builtin_prefetch(p); }
#endif

// e^x for x <= 88, relative error 2e-7 (Cephes polynomial); arguments below -87 give about 1e-38 instead of 0.
// A NaN stays one: of two operands, min and max give the second when either is no number.
INLINE vf f_exp(vf x) {
    x = f_max(f_set(-87.0f), f_min(f_set(88.0f), x));
    vf n = f_round(f_mul(x, f_set(1.44269504088896341f)));
    x = f_fma(n, f_set(-0.693359375f), x);
    x = f_fma(n, f_set(2.12194440e-4f), x);
    vf y = f_set(1.9875691500e-4f);
    y = f_fma(y, x, f_set(1.3981999507e-3f));
    y = f_fma(y, x, f_set(8.3334519073e-3f));
    y = f_fma(y, x, f_set(4.1665795894e-2f));
    y = f_fma(y, x, f_set(1.6666665459e-1f));
    y = f_fma(y, x, f_set(5.0000001201e-1f));
    y = f_add(f_fma(f_mul(y, x), x, x), f_set(1.0f));
    return f_mul(y, f_pow2(n));
}
