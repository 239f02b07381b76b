// One decoder step in one call and one parallel region, and the C interface of this variant.
// A step takes rows (token, position, sequence); rows of one sequence may be a prompt's chunk or a single new token.
// Five barriers per layer: after qkv, attention, o, gate-up and down (one more when a sequence brings several rows).
// Rows come in groups that run one after another, each at its own level: planes read and layers left out.
#include "model.h"

namespace {

struct Step {
    Model* m;
    const Level* level;
    int64_t rows, outputs;
    const int32_t *tokens, *positions, *sequences, *tables, *output_rows;
    int64_t table_stride;
    bool many_rows;  // some sequence brings more than one row
    float* logits;
    int32_t* best;
    float* log_total;
    std::atomic<int64_t>* counters;
};

// One thread's walk through the phases; work is taken in runs of tiles from a shared counter, because a thread may lose
// its core to a neighbour at any time.
struct Walk {
    Step& s;
    Model& m;
    Scratch& own;
    int64_t phase = 0;

    // Runs of items: a thread takes its own contiguous part, run after run, and then what the others have left. Streams are
    // long that way, and what is prefetched behind a run is read next by the same core.
    template <class F> void share_runs(int64_t items, int64_t run, F&& body) {
        int64_t threads = m.team->size(), me = &own - m.own;
        std::atomic<int64_t>* taken = s.counters + threads * phase++;
        for (int64_t turn = 0; turn < threads; turn++) {
            int64_t owner = (me + turn) % threads, start = items * owner / threads, end = items * (owner + 1) / threads;
            for (;;) {
                int64_t from = start + taken[owner].fetch_add(run, std::memory_order_relaxed);
                if (from >= end) break;
                body(from, from + run < end ? from + run : end);
            }
        }
        m.team->barrier();
    }

    template <class F> void share(int64_t items, int64_t run, F&& body) {
        share_runs(items, run, [&](int64_t from, int64_t to) {
            for (int64_t i = from; i < to; i++) body(i);
        });
    }

    // Tiles (pairs of row blocks) `from` to the end of a matrix; P is the precision that is read, NESTED for both planes.
    template <int P, class Sink> void multiply(const uint8_t* w, int64_t tiles, int64_t columns, const Activations& a, int64_t rows,
                                               Sink&& sink, int64_t from = 0) {
        int64_t step = block_bytes(P, columns), threads = m.team->size();
        int64_t run = threads == 1 ? tiles - from : round_up((tiles - from) / (threads * 6), 2);
        share_runs(tiles - from, run > 2 ? run : 2, [&](int64_t first, int64_t last) {
            int64_t t = from + first, end = from + last;
            auto place = [&](int64_t row, vf one, vf two) { sink(t * 2 * LANES, row, one, two); };
            auto place_tile = [&](int64_t tile, vf one, vf two) { sink((t + tile) * 2 * LANES, 0, one, two); };
            for (; rows == 1 && t + 2 <= end; t += 2) {
                if constexpr (P == NESTED) multiply_nested_row<4>(w, 2 * tiles, t, columns, a, place_tile);
                else multiply_row<P, 4>(w + 2 * t * step, step, columns, a, place_tile);
            }
            for (; t < end; t++) {
                if constexpr (P == NESTED) multiply_nested_tile(w, 2 * tiles, t, columns, a, rows, place);
                else multiply_tile<P>(w + 2 * t * step, step, columns, a, rows, place);
            }
        });
    }

    Activations activations(int precision, const float* values, int64_t stride, int64_t columns, int64_t rows) {
        Activations a{values, own.codes, own.scales, own.sums, stride, own.joined};
        if (has_integer_codes(precision)) for (int64_t r = 0; r < rows; r++) quantise_activation(values + r * stride, columns, a, r);
        return a;
    }

    const float* normalise(const float* values, const float* weight, int64_t rows) {
        int64_t dim = m.c.dim;
        for (int64_t r = 0; r < rows; r++) {
            const float* in = values + r * m.dim_stride;
            float* out = own.fp32 + r * m.dim_stride;
            float squares = 0;
            int64_t k = 0;
            vf partial = f_zero();
            for (; k + LANES <= dim; k += LANES) partial = f_fma(f_load(in + k), f_load(in + k), partial);
            for (; k < dim; k++) squares += in[k] * in[k];
            float scale = 1.0f / sqrtf((squares + f_sum(partial)) / (float)dim + m.c.rms_eps);
            for (k = 0; k < dim; k++) out[k] = in[k] * scale * weight[k];
        }
        return own.fp32;
    }

    void embed() {
        share(s.rows, 1, [&](int64_t r) {
            int64_t token = s.tokens[r];
            unpack_from(m.head_precision, m.head, blocks_of(m.c.vocab), token / LANES, m.c.dim, token % LANES, m.x + r * m.dim_stride);
        });
    }

    // Queries, keys and values; from row `first_row` on, a multiple of 32.
    template <int P> void project_qkv(const Layer& layer, int64_t first_row) {
        const float* normal = normalise(m.x, layer.attn_norm, s.rows);
        Activations a = activations(P, normal, m.dim_stride, m.c.dim, s.rows);
        multiply<P>(layer.qkv, blocks_of(m.qkv_dim) / 2, m.c.dim, a, s.rows, [&](int64_t at, int64_t row, vf first, vf second) {
            f_store(m.qkv + row * m.qkv_stride + at, first);
            f_store(m.qkv + row * m.qkv_stride + at + LANES, second);
        }, first_row / (2 * LANES));
    }

    void rotate(float* v, int64_t position) const {
        int half = m.c.head_dim / 2;
        const float *cosine = m.rope_cos + position * half, *sine = m.rope_sin + position * half;
        for (int i = 0; i < half; i++) {
            float a = v[i], b = v[i + half];
            v[i] = a * cosine[i] - b * sine[i];
            v[i + half] = b * cosine[i] + a * sine[i];
        }
    }

    void store_kv(int layer, int64_t row, int head) const {
        int64_t position = s.positions[row], hd = m.c.head_dim;
        int block = s.tables[s.sequences[row] * s.table_stride + position / BLOCK_TOKENS], slot = position % BLOCK_TOKENS;
        float* key = m.qkv + row * m.qkv_stride + m.q_dim + head * hd;
        rotate(key, position);
        if (m.c.kv_precision == INT8) {
            store_codes(key, hd, BLOCK_TOKENS, slot, m.keys<int8_t>(layer, block, head) + slot, m.keys<int8_t>(layer, block, head));
            store_codes(key + m.kv_dim, hd, 1, slot, m.values<int8_t>(layer, block, head) + slot * hd, m.values<int8_t>(layer, block, head));
            return;
        }
        float* keys = m.keys<float>(layer, block, head);
        for (int64_t d = 0; d < hd; d++) keys[d * BLOCK_TOKENS + slot] = key[d];
        memcpy(m.values<float>(layer, block, head) + slot * hd, key + m.kv_dim, hd * 4);
    }

    // Rounds one vector to int8 codes at `out`, `stride` apart; its scale goes behind the block. Not a number stays that.
    static void store_codes(const float* x, int64_t hd, int64_t stride, int64_t slot, int8_t* out, int8_t* block) {
        float peak = 0, sum = 0;
        for (int64_t d = 0; d < hd; d++) {
            float magnitude = __builtin_fabsf(x[d]);
            peak = magnitude > peak ? magnitude : peak;
            sum += magnitude;
        }
        bool finite = sum < __builtin_inff();
        float inverse = finite && peak > 1e-30f ? 127.0f / peak : 0.0f;
        for (int64_t d = 0; d < hd; d++) out[d * stride] = inverse > 0 ? (int8_t)round_even(x[d] * inverse) : 0;
        kv_scales(block, hd)[slot] = finite ? peak / 127.0f : __builtin_nanf("");
    }

    static vf load_kv(const float* p) { return f_load(p); }
    static vf load_kv(const int8_t* p) { return f_from_i8(p); }

    // Scores of all query heads that share this KV head, against one block of 16 keys.
    template <int G, class T> void score_block(T* keys, const float* queries, float* scores, int64_t stride) const {
        int64_t hd = m.c.head_dim;
        for (int v = 0; v < BLOCK_TOKENS; v += LANES) {
            vf even[G], odd[G];
#pragma GCC unroll 8
            for (int g = 0; g < G; g++) even[g] = odd[g] = f_zero();
            for (int64_t d = 0; d < hd; d += 2) {
                vf k0 = load_kv(keys + d * BLOCK_TOKENS + v), k1 = load_kv(keys + (d + 1) * BLOCK_TOKENS + v);
#pragma GCC unroll 8
                for (int g = 0; g < G; g++) {
                    even[g] = f_fma(k0, f_set(queries[g * hd + d]), even[g]);
                    odd[g] = f_fma(k1, f_set(queries[g * hd + d + 1]), odd[g]);
                }
            }
#pragma GCC unroll 8
            for (int g = 0; g < G; g++) {
                vf score = f_add(even[g], odd[g]);
                if constexpr (sizeof(T) == 1) score = f_mul(score, f_load(kv_scales(keys, hd) + v));
                f_store(scores + g * stride + v, score);
            }
        }
    }

    // Turns `length` scores (followed by padding to a block) into exp(score - max); returns their sum.
    static float soften(float* scores, int64_t length) {
        int64_t padded = round_up(length, BLOCK_TOKENS);
        for (int64_t t = length; t < padded; t++) scores[t] = -1e30f;
        vf top = f_load(scores);
        for (int64_t t = LANES; t < padded; t += LANES) top = f_max(top, f_load(scores + t));
        vf peak = f_set(f_hmax(top)), total = f_zero();
        for (int64_t t = 0; t < padded; t += LANES) {
            vf e = f_exp(f_sub(f_load(scores + t), peak));
            f_store(scores + t, e);
            total = f_add(total, e);
        }
        return f_sum(total);
    }

    // Weighted sum of the values for all query heads of this KV head; each value vector is loaded once.
    template <int G, class T> void mix_values(int layer, int head, const int32_t* table, int64_t length, int64_t stride,
                                     const float (&scales)[G], float* out) const {
        int64_t hd = m.c.head_dim;
        for (int64_t d = 0; d < hd; d += 2 * LANES) {
            vf first[G], second[G];
#pragma GCC unroll 8
            for (int g = 0; g < G; g++) first[g] = second[g] = f_zero();
            for (int64_t t = 0; t < length; t++) {
                T* block = m.values<T>(layer, table[t / BLOCK_TOKENS], head);
                const T* value = block + t % BLOCK_TOKENS * hd + d;
                vf low = load_kv(value), high = load_kv(value + LANES);
                float scale = 1.0f;
                if constexpr (sizeof(T) == 1) scale = kv_scales(block, hd)[t % BLOCK_TOKENS];
#pragma GCC unroll 8
                for (int g = 0; g < G; g++) {
                    vf weight = f_set(own.scores[g * stride + t] * scale);
                    first[g] = f_fma(low, weight, first[g]);
                    second[g] = f_fma(high, weight, second[g]);
                }
            }
#pragma GCC unroll 8
            for (int g = 0; g < G; g++) {
                f_store(out + g * hd + d, f_mul(first[g], f_set(scales[g])));
                f_store(out + g * hd + d + LANES, f_mul(second[g], f_set(scales[g])));
            }
        }
    }

    template <int G, class T> void attend_over(int layer, int64_t row, int head) const {
        int64_t length = s.positions[row] + 1, hd = m.c.head_dim, stride = round_up(m.c.max_positions, BLOCK_TOKENS);
        const int32_t* table = s.tables + s.sequences[row] * s.table_stride;
        float* queries = m.qkv + row * m.qkv_stride + (int64_t)head * G * hd;
        float scale = 1.0f / sqrtf((float)hd);
        for (int g = 0; g < G; g++) {
            rotate(queries + g * hd, s.positions[row]);
            for (int64_t d = 0; d < hd; d++) queries[g * hd + d] *= scale;
        }
        for (int64_t b = 0; b * BLOCK_TOKENS < length; b++)
            score_block<G>(m.keys<T>(layer, table[b], head), queries, own.scores + b * BLOCK_TOKENS, stride);
        float scales[G];
        for (int g = 0; g < G; g++) scales[g] = 1.0f / soften(own.scores + g * stride, length);
        mix_values<G, T>(layer, head, table, length, stride, scales, m.attention + row * m.q_stride + (int64_t)head * G * hd);
    }

    template <int G> void attend(int layer, int64_t row, int head) const {
        if (m.c.kv_precision == INT8) attend_over<G, int8_t>(layer, row, head);
        else attend_over<G, float>(layer, row, head);
    }

    void attend_any(int layer, int64_t row, int head) const {
        switch (m.c.heads / m.c.kv_heads) {
            case 1: return attend<1>(layer, row, head);
            case 2: return attend<2>(layer, row, head);
            case 3: return attend<3>(layer, row, head);
            case 4: return attend<4>(layer, row, head);
            case 8: return attend<8>(layer, row, head);
        }
    }

    void attention(int layer) {
        int64_t heads = m.c.kv_heads;
        if (s.many_rows) share(s.rows * heads, 1, [&](int64_t i) { store_kv(layer, i / heads, i % heads); });
        share(s.rows * heads, 1, [&](int64_t i) {
            if (!s.many_rows) store_kv(layer, i / heads, i % heads);
            attend_any(layer, i / heads, i % heads);
        });
    }

    template <int P> void add_projection(const uint8_t* w, const float* values, int64_t stride, int64_t columns) {
        Activations a = activations(P, values, stride, columns, s.rows);
        multiply<P>(w, blocks_of(m.c.dim) / 2, columns, a, s.rows, [&](int64_t at, int64_t row, vf first, vf second) {
            float* x = m.x + row * m.dim_stride + at;
            f_store(x, f_add(f_load(x), first));
            f_store(x + LANES, f_add(f_load(x + LANES), second));
        });
    }

    template <int P> void gate_up(const Layer& layer) {
        const float* normal = normalise(m.x, layer.ffn_norm, s.rows);
        Activations a = activations(P, normal, m.dim_stride, m.c.dim, s.rows);
        multiply<P>(layer.gate_up, gate_up_tiles(m.c), m.c.dim, a, s.rows,
                    [&](int64_t at, int64_t row, vf gate, vf up) {
                        vf denominator = f_add(f_set(1.0f), f_exp(f_sub(f_zero(), gate)));
                        f_store(m.hidden + row * m.ffn_stride + at / 2, f_mul(f_div(gate, denominator), up));
                    });
    }

    template <int P> void head() {
        share(s.outputs, 1, [&](int64_t o) {
            memcpy(m.gathered + o * m.dim_stride, m.x + s.output_rows[o] * m.dim_stride, m.c.dim * 4);
        });
        const float* normal = normalise(m.gathered, m.output_norm, s.outputs);
        Activations a = activations(P, normal, m.dim_stride, m.c.dim, s.outputs);
        multiply<P>(m.head, blocks_of(m.c.vocab) / 2, m.c.dim, a, s.outputs, [&](int64_t at, int64_t row, vf first, vf second) {
            f_store(s.logits + row * m.vocab_stride + at, first);
            f_store(s.logits + row * m.vocab_stride + at + LANES, second);
        });
    }

    // First index of the largest logit, and log(sum(exp(logits))) for its log-probability.
    void summarise() {
        share(s.outputs, 1, [&](int64_t o) {
            const float* logits = s.logits + o * m.vocab_stride;
            int64_t best = 0;
            vf total = f_zero();
            for (int64_t t = 1; t < m.c.vocab; t++) best = logits[t] > logits[best] ? t : best;
            vf peak = f_set(logits[best]);
            int64_t t = 0;
            for (; t + LANES <= m.c.vocab; t += LANES) total = f_add(total, f_exp(f_sub(f_load(logits + t), peak)));
            float sum = f_sum(total);
            for (; t < m.c.vocab; t++) sum += expf(logits[t] - logits[best]);
            s.best[o] = (int32_t)best;
            s.log_total[o] = logits[best] + logf(sum);
        });
    }

    template <int P> void run_layer(int l) {
        const Layer& layer = m.layers[l];
        project_qkv<P>(layer, 0);
        attention(l);
        add_projection<P>(layer.o, m.attention, m.q_stride, m.q_dim);
        gate_up<P>(layer);
        add_projection<P>(layer.down, m.hidden, m.ffn_stride, m.c.ffn);
    }

    // A layer that the level leaves out: only the keys and values, for tokens that will run it.
    template <int P> void propagate(int l) {
        project_qkv<P>(m.layers[l], m.q_dim);
        share(s.rows * m.c.kv_heads, 1, [&](int64_t i) { store_kv(l, i / m.c.kv_heads, i % m.c.kv_heads); });
    }

    template <int P> void run() {
        embed();
        for (int l = 0; l < m.c.layers; l++) {
            if (s.level->skipped[l]) propagate<P>(l);
            else run_layer<P>(l);
        }
        if (s.outputs == 0) return;
        head<P == INT4 || P == NESTED ? INT8 : P>();
        summarise();
    }
};

void walk(void* context, int thread) {
    Step& step = *(Step*)context;
    Walk path{step, *step.m, step.m->own[thread]};
    switch (step.level->precision) {
        case INT8: return path.run<INT8>();
        case INT4: return path.run<INT4>();
        case NESTED: return path.run<NESTED>();
        case BF16: return path.run<BF16>();
        case FP16: return path.run<FP16>();
        default: return path.run<FP32>();
    }
}

bool within(int64_t value, int64_t most) { return value >= 1 && value <= most; }

// Bounds that no size computed from them, in int64, can leave; the KV cache is the one product that needs its own check.
bool in_range(const Config& c) {
    constexpr int64_t WIDE = 1 << 20, MANY = 1 << 12;
    if (!within(c.layers, MANY) || !within(c.dim, WIDE) || !within(c.ffn, WIDE) || !within(c.vocab, WIDE)) return false;
    if (!within(c.heads, WIDE) || !within(c.kv_heads, c.heads) || !within(c.head_dim, WIDE)) return false;
    if (!within((int64_t)c.heads * c.head_dim, WIDE) || !within(c.threads, MANY)) return false;
    if (!within(c.max_rows, WIDE) || !within(c.max_outputs, WIDE) || c.max_positions < 1 || c.kv_blocks < 1) return false;
    if (c.precision < FP32 || c.precision > NESTED || (c.kv_precision != FP32 && c.kv_precision != INT8)) return false;
    return 2.0 * c.layers * c.kv_blocks * c.kv_heads * (double)kv_block_bytes(c) < 0x1p61;
}

bool supported(const Config& c) {
    if (!in_range(c) || c.heads % c.kv_heads) return false;
    int group = c.heads / c.kv_heads;
    bool group_ok = group <= 4 || group == 8;
    return group_ok && c.head_dim % 32 == 0 && c.dim % 32 == 0 && c.ffn % 32 == 0;
}

template <int P> void multiply_all(const uint8_t* w, int64_t rows, int64_t columns, const Activations& a, int64_t count, float* y) {
    int64_t step = block_bytes(P, columns), blocks = blocks_of(rows);
    for (int64_t t = 0; t < blocks / 2; t++) {
        auto place = [&](int64_t row, vf first, vf second) {
            float lanes[2 * LANES];
            f_store(lanes, first);
            f_store(lanes + LANES, second);
            for (int64_t i = 0; i < 2 * LANES && t * 2 * LANES + i < rows; i++) y[row * rows + t * 2 * LANES + i] = lanes[i];
        };
        if constexpr (P == NESTED) multiply_nested_tile(w, blocks, t, columns, a, count, place);
        else multiply_tile<P>(w + 2 * t * step, step, columns, a, count, place);
    }
}

bool valid_rows(const Model& m, int64_t rows, const int32_t* tokens, const int32_t* positions, const int32_t* sequences,
                const int32_t* tables, int64_t table_stride) {
    for (int64_t r = 0; r < rows; r++) {
        if (tokens[r] < 0 || tokens[r] >= m.c.vocab || positions[r] < 0 || positions[r] >= m.c.max_positions) return false;
        for (int64_t b = 0; b <= positions[r] / BLOCK_TOKENS; b++) {
            int32_t block = tables[sequences[r] * table_stride + b];
            if (block < 0 || block >= m.c.kv_blocks) return false;
        }
    }
    return true;
}

}  // namespace

#define API extern "C" __attribute__((visibility("default")))

API const char* al_variant() { return VARIANT; }

API Model* al_create(const Config* config) { return supported(*config) ? create_model(*config) : nullptr; }
// What a model will have mapped, in bytes, or -1 for a shape that is not supported. Maps nothing.
API int64_t al_required_bytes(const Config* config) { return supported(*config) ? required_bytes(*config) : -1; }
API void al_destroy(Model* m) { destroy_model(m); }
API int64_t al_weight_bytes(const Model* m) { return m->weights.bytes; }
API int64_t al_kv_bytes(const Model* m) { return m->kv.bytes; }

API int al_load(Model* m, int tensor, int layer, int type, const uint8_t* src, int64_t rows, int64_t columns,
                const int32_t* row_map, const int32_t* column_map) {
    return load_tensor(*m, tensor, layer, type, src, rows, columns, row_map, column_map);
}

// Adds a level (the first is level 0): `precision` is the model's, or, of a nested model, INT4 or NESTED for both planes;
// skipped: [layers], 1 for a layer that is left out. Returns 0, or 1 for a precision that the weights cannot be read in.
API int al_add_level(Model* m, int precision, const uint8_t* skipped) {
    if (precision != m->c.precision && !(m->c.precision == NESTED && precision == INT4)) return 1;
    m->levels.push_back({precision, std::vector<uint8_t>(skipped, skipped + m->c.layers)});
    return 0;
}

struct Group {
    int32_t level, rows, outputs;
};

// Rows lie in groups, one parallel region each; output_rows count from the group's first row.
// logits: [outputs][vocabulary rounded up to 32]; best, log_total: [outputs]. Returns 0, or 1 for arguments out of range,
// before anything has run.
API int al_step(Model* m, int64_t groups, const Group* group, const int32_t* tokens, const int32_t* positions,
                const int32_t* sequences, const int32_t* tables, int64_t table_stride, const int32_t* output_rows, float* logits,
                int32_t* best, float* log_total) {
    int64_t rows = 0, outputs = 0;
    for (int64_t g = 0; g < groups; g++) {
        if (group[g].level < 0 || group[g].level >= (int64_t)m->levels.size() || group[g].rows < 1 || group[g].outputs < 0) return 1;
        rows += group[g].rows;
        outputs += group[g].outputs;
    }
    if (rows < 1 || rows > m->c.max_rows || outputs > m->c.max_outputs) return 1;
    if (!valid_rows(*m, rows, tokens, positions, sequences, tables, table_stride)) return 1;
    for (int64_t g = 0; g < groups; g++) {
        int64_t count = group[g].rows;
        bool many_rows = false;
        for (int64_t r = 1; r < count; r++) many_rows |= sequences[r] == sequences[r - 1];
        std::vector<std::atomic<int64_t>> counters((6 * m->c.layers + 4) * m->team->size());
        Step step{m, &m->levels[group[g].level], count, group[g].outputs, tokens, positions, sequences, tables, output_rows,
                  table_stride, many_rows, logits, best, log_total, counters.data()};
        m->team->run(walk, &step);
        tokens += count, positions += count, sequences += count;
        output_rows += group[g].outputs, best += group[g].outputs, log_total += group[g].outputs;
        logits += group[g].outputs * m->vocab_stride;
    }
    return 0;
}

API int64_t al_packed_bytes(int precision, int64_t rows, int64_t columns) { return packed_bytes(precision, rows, columns); }

API void al_pack(int precision, const float* w, int64_t rows, int64_t columns, uint8_t* packed) {
    memset(packed, 0, packed_bytes(precision, rows, columns));
    for (int64_t r = 0; r < rows; r++)
        pack_into(precision, w + r * columns, columns, packed, blocks_of(rows), r / LANES, r % LANES);
}

API void al_unpack(int precision, const uint8_t* packed, int64_t rows, int64_t columns, float* w) {
    for (int64_t r = 0; r < rows; r++)
        unpack_from(precision, packed, blocks_of(rows), r / LANES, columns, r % LANES, w + r * columns);
}

API int al_dequantise(int type, const uint8_t* src, int64_t rows, int64_t columns, float* w) {
    int64_t bytes = source_row_bytes(type, columns);
    for (int64_t r = 0; bytes >= 0 && r < rows; r++) read_source_row(type, src + r * bytes, columns, w + r * columns);
    return bytes < 0;
}

// y[count][rows] = x[count][columns] times the transposed packed matrix, on the calling thread.
API void al_matmul(int precision, const uint8_t* packed, int64_t rows, int64_t columns, const float* x, int64_t count, float* y) {
    bool quantised = has_integer_codes(precision);
    int64_t stride = groups_of(columns) * GROUP;
    std::vector<int16_t> codes(count * stride);
    std::vector<float> scales(count), sums(count * stride / GROUP);
    std::vector<uint8_t> joined(precision == NESTED ? joined_tile_bytes(columns) : 0);
    Activations a{x, codes.data(), scales.data(), sums.data(), quantised ? stride : columns, joined.data()};
    for (int64_t r = 0; quantised && r < count; r++) quantise_activation(x + r * columns, columns, a, r);
    switch (precision) {
        case INT8: return multiply_all<INT8>(packed, rows, columns, a, count, y);
        case INT4: return multiply_all<INT4>(packed, rows, columns, a, count, y);
        case NESTED: return multiply_all<NESTED>(packed, rows, columns, a, count, y);
        case BF16: return multiply_all<BF16>(packed, rows, columns, a, count, y);
        case FP16: return multiply_all<FP16>(packed, rows, columns, a, count, y);
        default: return multiply_all<FP32>(packed, rows, columns, a, count, y);
    }
}
