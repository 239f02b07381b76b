// The decoder's memory: configuration, one arena for weights, one for the KV cache, scratch of a step, and loading.
// Knows the llama tensor names' roles, not files, tokens' meaning or scheduling.
#pragma once
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "nested.h"
#include "pool.h"

constexpr int BLOCK_TOKENS = 16;  // one KV block; also the widest vector, so that keys are stored with tokens as lanes
constexpr int SEGMENT = 4 * BLOCK_TOKENS;  // tokens that attention takes at once; what it finds in several is merged
constexpr int SLICE = 4096;  // of the vocabulary, in which logits are summarised
constexpr int ROWS_AT_ONCE = 64;  // of a prompt, that a run of weights is multiplied with before the next ones
constexpr int64_t RUN_BYTES = 512 << 10;  // of such a run, half of a second-level cache
constexpr int PARTS_PER_THREAD = 4;  // that attention is split into where a step has few rows and heads

struct Config {
    int32_t layers, dim, ffn, heads, kv_heads, head_dim, vocab;
    int32_t max_rows, max_outputs, max_positions, kv_blocks, precision, kv_precision, threads, span;
    float rms_eps, rope_base;
};

enum Tensor : int32_t { ATTN_NORM, FFN_NORM, OUTPUT_NORM, Q, K, V, O, GATE, UP, DOWN, HEAD };

struct Layer {
    float *attn_norm, *ffn_norm;
    uint8_t *qkv, *o, *gate_up, *down;
};

// Anonymous memory. Huge pages give +9..34 % read bandwidth; memory that fills slowly (the KV cache) goes without, because
// one token in each of its planes would make 2 MiB resident per plane.
struct Arena {
    uint8_t* base = nullptr;
    int64_t bytes = 0;
    void* mapping = MAP_FAILED;
    static constexpr int64_t HUGE_PAGE = 2 << 20;
    bool map(int64_t size, bool huge_pages) {
        bytes = size;
        mapping = mmap(nullptr, size + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (mapping == MAP_FAILED) return false;
        base = (uint8_t*)(((uintptr_t)mapping + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
#ifdef MADV_HUGEPAGE
        madvise(base, size, huge_pages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
#endif
        return true;
    }
    ~Arena() { if (mapping != MAP_FAILED) munmap(mapping, bytes + HUGE_PAGE); }
};

// One way to run the decoder: the precision that its products read the weights in, and which layers it leaves out.
struct Level {
    int precision;
    std::vector<uint8_t> skipped;  // [layers], 1 for a layer that only stores its keys and values
};

// One thread's own copies: normalised and quantised activations, attention's queries, scores and what two segments found.
struct Scratch {
    float *fp32, *scales, *sums, *queries, *scores, *partials;
    int16_t* codes;
    uint8_t* joined;
};

// Keys or values of one block and head: [dim][token] keys or [token][dim] values, fp32, fp16, or int8 followed by one scale a token.
INLINE int64_t kv_block_bytes(const Config& c) {
    int64_t numbers = (int64_t)c.head_dim * BLOCK_TOKENS;
    return c.kv_precision == INT8 ? numbers + BLOCK_TOKENS * 4 : numbers * (c.kv_precision == FP16 ? 2 : 4);
}
// What one segment finds for the query heads of a KV head: a peak, a sum and a weighted sum of values for each.
INLINE int64_t partial_floats(const Config& c) { return (int64_t)c.heads / c.kv_heads * (2 + c.head_dim) + 15 & ~15; }
// Rows times KV heads of the largest step whose attention is split (attention_parts).
INLINE int64_t most_split_items(const Config& c) {
    int64_t items = (int64_t)c.max_rows * c.kv_heads, most = PARTS_PER_THREAD * (int64_t)c.threads - 1;
    return c.threads == 1 ? 0 : items < most ? items : most;
}
INLINE float* kv_scales(int8_t* block, int64_t head_dim) { return (float*)(block + head_dim * BLOCK_TOKENS); }

struct Model {
    Config c;
    int head_precision;
    int64_t q_dim, kv_dim, qkv_dim, qkv_stride, dim_stride, ffn_stride, q_stride, vocab_stride;
    Arena weights, kv, scratch;
    Layer* layers;
    std::vector<Level> levels;
    float *output_norm, *rope_cos, *rope_sin;
    uint8_t* head;
    float *x, *qkv, *attention, *hidden, *gathered;
    float* partials;  // [row, KV head][most_segments][partial_floats] of a step whose attention is split
    int64_t most_segments;
    float* slices;  // [output][slice][2]: the largest logit, and the sum of exp(logit - largest)
    Scratch* own;
    Team* team;

    template <class T> T* keys(int layer, int block, int head) const { return (T*)kv_at(2 * layer, block, head); }
    template <class T> T* values(int layer, int block, int head) const { return (T*)kv_at(2 * layer + 1, block, head); }
    uint8_t* kv_at(int64_t plane, int block, int head) const {
        return kv.base + ((plane * c.kv_blocks + block) * c.kv_heads + head) * kv_block_bytes(c);
    }
};

// Hands out 64-byte aligned pieces; run once without memory to count, once with it.
struct Cursor {
    uint8_t* base;
    int64_t used = 0;
    template <class T> T* take(int64_t count) {
        T* at = (T*)(base + used);
        used += (count * (int64_t)sizeof(T) + 63) & ~(int64_t)63;
        return at;
    }
};

INLINE int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

INLINE int64_t gate_up_tiles(const Config& c) { return round_up(c.ffn, LANES) / LANES; }  // a block of gate, one of up

static int64_t place_weights(Model& m, uint8_t* base) {
    Cursor at{base};
    const Config& c = m.c;
    for (int l = 0; l < c.layers; l++) {
        Layer& layer = m.layers[l];
        layer.attn_norm = at.take<float>(c.dim);
        layer.qkv = at.take<uint8_t>(packed_bytes(c.precision, m.qkv_dim, c.dim));
        layer.o = at.take<uint8_t>(packed_bytes(c.precision, c.dim, m.q_dim));
        layer.ffn_norm = at.take<float>(c.dim);
        layer.gate_up = at.take<uint8_t>(2 * block_bytes(c.precision, c.dim) * gate_up_tiles(c));
        layer.down = at.take<uint8_t>(packed_bytes(c.precision, c.dim, c.ffn));
    }
    m.output_norm = at.take<float>(c.dim);
    m.head = at.take<uint8_t>(packed_bytes(m.head_precision, c.vocab, c.dim));
    m.rope_cos = at.take<float>((int64_t)c.max_positions * c.head_dim / 2);
    m.rope_sin = at.take<float>((int64_t)c.max_positions * c.head_dim / 2);
    return at.used;
}

static int64_t place_scratch(Model& m, uint8_t* base) {
    Cursor at{base};
    const Config& c = m.c;
    int64_t widest = m.ffn_stride > m.dim_stride ? m.ffn_stride : m.dim_stride;
    widest = m.q_stride > widest ? m.q_stride : widest;
    m.x = at.take<float>(c.max_rows * m.dim_stride);
    m.qkv = at.take<float>(c.max_rows * m.qkv_stride);
    m.attention = at.take<float>(c.max_rows * m.q_stride);
    m.hidden = at.take<float>(c.max_rows * m.ffn_stride);
    m.gathered = at.take<float>(c.max_outputs * m.dim_stride);
    m.slices = at.take<float>((int64_t)c.max_outputs * ((c.vocab + SLICE - 1) / SLICE) * 2);
    m.partials = at.take<float>(most_split_items(c) * m.most_segments * partial_floats(c));
    for (int t = 0; t < c.threads; t++) {
        Scratch& own = m.own[t];
        own.fp32 = at.take<float>(c.max_rows * m.dim_stride);
        own.codes = at.take<int16_t>(c.max_rows * widest);
        own.scales = at.take<float>(c.max_rows);
        own.sums = at.take<float>(c.max_rows * widest / GROUP);
        own.joined = at.take<uint8_t>(c.precision == NESTED ? joined_tile_bytes(widest) : 0);
        own.queries = at.take<float>((int64_t)c.heads / c.kv_heads * c.head_dim);
        own.scores = at.take<float>((int64_t)c.heads / c.kv_heads * SEGMENT);
        own.partials = at.take<float>(2 * partial_floats(c));
    }
    return at.used;
}

// Rounded like the reference implementation: frequencies and angles in fp32.
static void fill_rope(Model& m) {
    int half = m.c.head_dim / 2;
    for (int64_t p = 0; p < m.c.max_positions; p++) {
        for (int i = 0; i < half; i++) {
            float frequency = 1.0f / (float)pow((double)m.c.rope_base, (double)(2.0f * i / m.c.head_dim));
            float angle = (float)p * frequency;
            m.rope_cos[p * half + i] = (float)cos((double)angle);
            m.rope_sin[p * half + i] = (float)sin((double)angle);
        }
    }
}

static void destroy_model(Model* m) {
    delete m->team;
    delete[] m->layers;
    delete[] m->own;
    delete m;
}

// A model without memory: only its sizes are set.
static Model* plan_model(const Config& c) {
    Model* m = new Model();
    m->c = c;
    m->head_precision = c.precision == INT4 || c.precision == NESTED ? INT8 : c.precision;
    m->q_dim = (int64_t)c.heads * c.head_dim;
    m->kv_dim = (int64_t)c.kv_heads * c.head_dim;
    m->qkv_dim = m->q_dim + 2 * m->kv_dim;
    m->qkv_stride = round_up(m->qkv_dim, 32);
    m->dim_stride = round_up(c.dim, 32);
    m->ffn_stride = round_up(c.ffn, 32);
    m->q_stride = round_up(m->q_dim, 32);
    m->vocab_stride = round_up(c.vocab, 32);
    m->most_segments = ((int64_t)c.max_positions + SEGMENT - 1) / SEGMENT;
    m->layers = new Layer[c.layers];
    m->own = new Scratch[c.threads];
    m->team = nullptr;
    return m;
}

static int64_t kv_bytes(const Model& m) { return 2LL * m.c.layers * m.c.kv_blocks * m.c.kv_heads * kv_block_bytes(m.c); }

static int64_t required_bytes(const Config& c) {
    Model* m = plan_model(c);
    int64_t bytes = place_weights(*m, nullptr) + place_scratch(*m, nullptr) + kv_bytes(*m);
    destroy_model(m);
    return bytes;
}

static Model* create_model(const Config& c) {
    Model* m = plan_model(c);
    bool mapped = m->weights.map(place_weights(*m, nullptr), true) && m->scratch.map(place_scratch(*m, nullptr), false) &&
                  m->kv.map(kv_bytes(*m), false);
    if (!mapped) {
        destroy_model(m);
        return nullptr;
    }
    place_weights(*m, m->weights.base);
    place_scratch(*m, m->scratch.base);
    fill_rope(*m);
    m->team = new Team(c.threads);
    return m;
}

struct Target {
    uint8_t* base;
    int64_t blocks, first_row, rows, columns;
    int precision, first_block, block_step;  // gate and up share a matrix, their blocks alternate
};

static bool find_target(Model& m, int tensor, int layer, Target* t) {
    const Config& c = m.c;
    if (tensor == HEAD) { *t = {m.head, blocks_of(c.vocab), 0, c.vocab, c.dim, m.head_precision, 0, 1}; return true; }
    if (layer < 0 || layer >= c.layers) return false;
    Layer& at = m.layers[layer];
    int p = c.precision;
    int64_t qkv = blocks_of(m.qkv_dim), gate_up = 2 * gate_up_tiles(c), narrow = blocks_of(c.dim);
    switch (tensor) {
        case Q: *t = {at.qkv, qkv, 0, m.q_dim, c.dim, p, 0, 1}; return true;
        case K: *t = {at.qkv, qkv, m.q_dim, m.kv_dim, c.dim, p, 0, 1}; return true;
        case V: *t = {at.qkv, qkv, m.q_dim + m.kv_dim, m.kv_dim, c.dim, p, 0, 1}; return true;
        case O: *t = {at.o, narrow, 0, c.dim, m.q_dim, p, 0, 1}; return true;
        case GATE: *t = {at.gate_up, gate_up, 0, c.ffn, c.dim, p, 0, 2}; return true;
        case UP: *t = {at.gate_up, gate_up, 0, c.ffn, c.dim, p, 1, 2}; return true;
        case DOWN: *t = {at.down, narrow, 0, c.dim, c.ffn, p, 0, 1}; return true;
        default: return false;
    }
}

static float* find_vector(Model& m, int tensor, int layer) {
    if (tensor == OUTPUT_NORM) return m.output_norm;
    if (layer < 0 || layer >= m.c.layers) return nullptr;
    return tensor == ATTN_NORM ? m.layers[layer].attn_norm : tensor == FFN_NORM ? m.layers[layer].ffn_norm : nullptr;
}

// Reads a source tensor row by row, gathers rows and columns through the maps (null: identity), packs it in place.
static int load_tensor(Model& m, int tensor, int layer, int type, const uint8_t* src, int64_t rows, int64_t columns,
                       const int32_t* row_map, const int32_t* column_map) {
    int64_t row_bytes = source_row_bytes(type, columns);
    if (row_bytes < 0) return 1;
    float* vector = find_vector(m, tensor, layer);
    Target t{};
    if (vector ? rows != 1 || columns != m.c.dim : !find_target(m, tensor, layer, &t) || rows != t.rows || columns != t.columns)
        return 2;
    std::vector<float> plain(columns), gathered(columns);
    for (int64_t r = 0; r < rows; r++) {
        read_source_row(type, src + (row_map ? row_map[r] : r) * row_bytes, columns, plain.data());
        for (int64_t k = 0; k < columns; k++) gathered[k] = plain[column_map ? column_map[k] : k];
        if (vector) { memcpy(vector, gathered.data(), columns * 4); continue; }
        int64_t row = t.first_row + r;
        pack_into(t.precision, gathered.data(), columns, t.base, t.blocks, t.first_block + row / LANES * t.block_step, row % LANES,
                  m.c.span);
    }
    return 0;
}
