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
    int64_t parts;   // that the tokens of a row and KV head are split into
    std::atomic<int32_t>* parts_done;   // [layers][rows][kv_heads] where there are several
    std::atomic<int32_t>* slices_done;  // [outputs]
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

    // Tiles `from` to the end of a matrix; P is the precision that is read, NESTED for both planes.
    template <int P, class Sink> void multiply(const uint8_t* w, int64_t tiles, int64_t columns, const Activations& a, int64_t rows,
                                               Sink&& sink, int64_t from = 0) {
        // Of a prompt of several strips, a run's tiles stay in the second-level cache until all strips have met them.
        constexpr int64_t strip = P == NESTED ? INT32_MAX : ROWS_AT_ONCE;
        int64_t tile_bytes = 2 * block_bytes(P, columns), runs = 6 * m.team->size();
        int64_t run = (tiles - from + runs - 1) / runs, kept = RUN_BYTES / tile_bytes > 1 ? RUN_BYTES / tile_bytes : 1;
        if (rows > strip && run > kept) run = kept;
        share_runs(tiles - from, run, [&](int64_t first, int64_t last) {
            for (int64_t at = 0; at < rows; at += strip) {
                int64_t count = rows - at < strip ? rows - at : strip;
                Activations some = from_row(a, at);
                for (int64_t t = from + first; t < from + last; t++) {
                    auto place = [&](int64_t row, vf one, vf two) { sink(t * 2 * LANES, at + row, one, two); };
                    if constexpr (P == NESTED) multiply_nested_tile(w, 2 * tiles, t, columns, some, count, place);
                    else multiply_tile<P>(w + t * tile_bytes, columns, some, count, place);
                }
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
        if (m.c.kv_precision == FP16) {
            uint16_t *keys = m.keys<uint16_t>(layer, block, head), *values = m.values<uint16_t>(layer, block, head) + slot * hd;
            for (int64_t d = 0; d < hd; d++) keys[d * BLOCK_TOKENS + slot] = to_half(key[d]), values[d] = to_half(key[m.kv_dim + d]);
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
    static vf load_kv(const uint16_t* p) { return f_from_half(p); }
    static vf load_kv(const int8_t* p) { return f_from_i8(p); }

    // Scores of all query heads that share this KV head, against one block of 16 keys.
    // FETCH: what comes next, a block of values and one of keys, is fetched meanwhile, because the weights have driven them out of
    // the cache. The rows of a prompt find them there, and fetching would take a fifth of the loads.
    template <int G, bool FETCH, class T> void score_block(T* keys, const float* queries, float* scores, const T* values, const T* next_keys) const {
        int64_t hd = m.c.head_dim;
        for (int v = 0; v < BLOCK_TOKENS; v += LANES) {
            vf even[G], odd[G];
#pragma GCC unroll 8
            for (int g = 0; g < G; g++) even[g] = odd[g] = f_zero();
            for (int64_t d = 0; d < hd; d += 2) {
                for (int64_t line = 0; FETCH && line < 2 * LANES; line += 64 / sizeof(T)) prefetch(values + line), prefetch(next_keys + line);
                if (FETCH) values += 2 * LANES, next_keys += 2 * LANES;
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
                f_store(scores + g * SEGMENT + v, score);
            }
        }
    }

    // Turns `length` scores (followed by padding to a block) into exp(score - peak); returns their sum.
    static float soften(float* scores, int64_t length, float* peak) {
        int64_t padded = round_up(length, BLOCK_TOKENS);
        for (int64_t t = length; t < padded; t++) scores[t] = -1e30f;
        vf top = f_load(scores);
        for (int64_t t = LANES; t < padded; t += LANES) top = f_max(top, f_load(scores + t));
        *peak = f_hmax(top);
        vf most = f_set(*peak), total = f_zero();
        for (int64_t t = 0; t < padded; t += LANES) {
            vf e = f_exp(f_sub(f_load(scores + t), most));
            f_store(scores + t, e);
            total = f_add(total, e);
        }
        return f_sum(total);
    }

    // Sum of `count` tokens' values, weighted by their scores, for all query heads of this KV head; each value vector is
    // loaded once.
    template <int G, class T> void mix_values(int layer, int head, const int32_t* table, int64_t count, float* out) const {
        int64_t hd = m.c.head_dim;
        for (int64_t d = 0; d < hd; d += 2 * LANES) {
            vf first[G], second[G];
#pragma GCC unroll 8
            for (int g = 0; g < G; g++) first[g] = second[g] = f_zero();
            for (int64_t t = 0; t < count; t++) {
                T* block = m.values<T>(layer, table[t / BLOCK_TOKENS], head);
                const T* value = block + t % BLOCK_TOKENS * hd + d;
                vf low = load_kv(value), high = load_kv(value + LANES);
                float scale = 1.0f;
                if constexpr (sizeof(T) == 1) scale = kv_scales(block, hd)[t % BLOCK_TOKENS];
#pragma GCC unroll 8
                for (int g = 0; g < G; g++) {
                    vf weight = f_set(own.scores[g * SEGMENT + t] * scale);
                    first[g] = f_fma(low, weight, first[g]);
                    second[g] = f_fma(high, weight, second[g]);
                }
            }
#pragma GCC unroll 8
            for (int g = 0; g < G; g++) {
                f_store(out + g * hd + d, first[g]);
                f_store(out + g * hd + d + LANES, second[g]);
            }
        }
    }

    // What `count` tokens from block `at` on add to each query head, as [G] peaks, [G] sums of exp(score - peak) and
    // [G][head_dim] sums of values weighted by it. `blocks`: of all tokens.
    template <int G, class T> void attend_segment(int layer, int head, const int32_t* table, int64_t at, int64_t count,
                                                  int64_t blocks, const float* queries, float* part) const {
        for (int64_t b = at; (b - at) * BLOCK_TOKENS < count; b++) {
            T *keys = m.keys<T>(layer, table[b], head), *values = m.values<T>(layer, table[b], head);
            T* next = m.keys<T>(layer, table[b + 1 < blocks ? b + 1 : b], head);
            float* scores = own.scores + (b - at) * BLOCK_TOKENS;
            if (s.many_rows) score_block<G, false>(keys, queries, scores, values, next);
            else score_block<G, true>(keys, queries, scores, values, next);
        }
        for (int g = 0; g < G; g++) part[G + g] = soften(own.scores + g * SEGMENT, count, part + g);
        mix_values<G, T>(layer, head, table + at, count, part + 2 * G);
    }

    // Adds the part of later tokens to the sum of earlier ones.
    template <int G> void merge(float* sum, const float* part) const {
        for (int g = 0; g < G; g++) {
            float peak = sum[g] > part[g] ? sum[g] : part[g];
            float before = expf(sum[g] - peak), scale = expf(part[g] - peak);
            sum[g] = peak;
            sum[G + g] = sum[G + g] * before + part[G + g] * scale;
            float* values = sum + 2 * G + g * m.c.head_dim;
            const float* more = part + 2 * G + g * m.c.head_dim;
            for (int64_t d = 0; d < m.c.head_dim; d += LANES)
                f_store(values + d, f_fma(f_load(more + d), f_set(scale), f_mul(f_load(values + d), f_set(before))));
        }
    }

    // This thread's copy of the queries that share a KV head, rotated and scaled.
    template <int G> const float* prepare_queries(int64_t row, int head) const {
        int64_t hd = m.c.head_dim;
        float scale = 1.0f / sqrtf((float)hd);
        memcpy(own.queries, m.qkv + row * m.qkv_stride + (int64_t)head * G * hd, G * hd * 4);
        for (int g = 0; g < G; g++) {
            rotate(own.queries + g * hd, s.positions[row]);
            for (int64_t d = 0; d < hd; d++) own.queries[g * hd + d] *= scale;
        }
        return own.queries;
    }

    template <int G> void finish_attention(const float* sum, float* out) const {
        int64_t hd = m.c.head_dim;
        for (int g = 0; g < G; g++) {
            vf inverse = f_set(1.0f / sum[G + g]);
            for (int64_t d = 0; d < hd; d += LANES) f_store(out + g * hd + d, f_mul(f_load(sum + 2 * G + g * hd + d), inverse));
        }
    }

    // Part `part` of the segments of one row and KV head. Segments are always of the same size and merged in order, so a result
    // does not depend on who computed which. Where there are several parts, who ends last merges.
    template <int G, class T> void attend_over(int layer, int64_t row, int head, int64_t part) const {
        int64_t length = s.positions[row] + 1, segments = (length + SEGMENT - 1) / SEGMENT, size = partial_floats(m.c);
        const int32_t* table = s.tables + s.sequences[row] * s.table_stride;
        const float* queries = prepare_queries<G>(row, head);
        int64_t at = row * m.c.kv_heads + head;
        bool alone = s.parts == 1;
        float* sum = alone ? own.partials : m.partials + at * m.most_segments * size;
        for (int64_t i = segments * part / s.parts; i < segments * (part + 1) / s.parts; i++) {
            int64_t left = length - i * SEGMENT, blocks = (length + BLOCK_TOKENS - 1) / BLOCK_TOKENS;
            float* found = sum + (alone && i > 1 ? 1 : i) * size;
            attend_segment<G, T>(layer, head, table, i * SEGMENT / BLOCK_TOKENS, left < SEGMENT ? left : SEGMENT, blocks, queries, found);
            if (alone && i > 0) merge<G>(sum, found);
        }
        if (!alone) {
            auto& done = s.parts_done[layer * s.rows * m.c.kv_heads + at];
            if (done.fetch_add(1, std::memory_order_acq_rel) + 1 < s.parts) return;
            for (int64_t i = 1; i < segments; i++) merge<G>(sum, sum + i * size);
        }
        finish_attention<G>(sum, m.attention + row * m.q_stride + (int64_t)head * G * m.c.head_dim);
    }

    template <int G> void attend(int layer, int64_t row, int head, int64_t part) const {
        if (m.c.kv_precision == INT8) attend_over<G, int8_t>(layer, row, head, part);
        else if (m.c.kv_precision == FP16) attend_over<G, uint16_t>(layer, row, head, part);
        else attend_over<G, float>(layer, row, head, part);
    }

    void attend_any(int layer, int64_t row, int head, int64_t part) const {
        switch (m.c.heads / m.c.kv_heads) {
            case 1: return attend<1>(layer, row, head, part);
            case 2: return attend<2>(layer, row, head, part);
            case 3: return attend<3>(layer, row, head, part);
            case 4: return attend<4>(layer, row, head, part);
            case 8: return attend<8>(layer, row, head, part);
        }
    }

    // The newest token is in the last part, which stores its key and value before it reads them.
    void attention(int layer) {
        int64_t heads = m.c.kv_heads, parts = s.parts;
        if (s.many_rows) share(s.rows * heads, 1, [&](int64_t i) { store_kv(layer, i / heads, i % heads); });
        share(s.rows * heads * parts, 1, [&](int64_t i) {
            int64_t row = i / parts / heads, head = i / parts % heads, part = i % parts;
            if (!s.many_rows && part == parts - 1) store_kv(layer, row, head);
            attend_any(layer, row, head, part);
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

    // First index of the largest logit, and log(sum(exp(logits))) for its log-probability: the vocabulary in slices of a fixed
    // size, so that a single row occupies all threads, joined in order by whoever finishes last.
    void summarise() {
        int64_t slices = (m.c.vocab + SLICE - 1) / SLICE;
        share(s.outputs * slices, 1, [&](int64_t i) {
            int64_t o = i / slices, slice = i % slices;
            summarise_slice(s.logits + o * m.vocab_stride, slice, m.slices + i * 2);
            if (s.slices_done[o].fetch_add(1, std::memory_order_acq_rel) + 1 == slices) join_slices(o, slices);
        });
    }

    int64_t slice_end(int64_t slice) const { return (slice + 1) * SLICE < m.c.vocab ? (slice + 1) * SLICE : m.c.vocab; }

    // The largest logit of a slice, and the sum of exp(logit - largest).
    void summarise_slice(const float* logits, int64_t slice, float* found) const {
        int64_t first = slice * SLICE, end = slice_end(slice), t = first;
        vf top = f_set(logits[first]), total = f_zero();
        for (; t + LANES <= end; t += LANES) top = f_max(f_load(logits + t), top);
        float peak = f_hmax(top), sum = 0;
        for (; t < end; t++) peak = logits[t] > peak ? logits[t] : peak;
        vf most = f_set(peak);
        for (t = first; t + LANES <= end; t += LANES) total = f_add(total, f_exp(f_sub(f_load(logits + t), most)));
        for (; t < end; t++) sum += expf(logits[t] - peak);
        found[0] = peak;
        found[1] = sum + f_sum(total);
    }

    void join_slices(int64_t o, int64_t slices) const {
        const float *found = m.slices + o * slices * 2, *logits = s.logits + o * m.vocab_stride;
        int64_t best = 0;
        for (int64_t i = 1; i < slices; i++) best = found[2 * i] > found[2 * best] ? i : best;
        float peak = found[2 * best], total = 0;
        for (int64_t i = 0; i < slices; i++) total += found[2 * i + 1] * expf(found[2 * i] - peak);
        int64_t at = best * SLICE, end = slice_end(best);
        while (at + 1 < end && logits[at] != peak) at++;
        s.best[o] = (int32_t)at;
        s.log_total[o] = peak + logf(total);
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
    if (c.precision < FP32 || c.precision > NESTED) return false;
    if (c.kv_precision != FP32 && c.kv_precision != FP16 && c.kv_precision != INT8) return false;
    if (c.span != GROUP && c.span != 2 * GROUP && c.span != 4 * GROUP) return false;
    return 2.0 * c.layers * c.kv_blocks * c.kv_heads * (double)kv_block_bytes(c) < 0x1p61;
}

bool supported(const Config& c) {
    if (!in_range(c) || c.heads % c.kv_heads) return false;
    int group = c.heads / c.kv_heads;
    bool group_ok = group <= 4 || group == 8;
    return group_ok && c.head_dim % 32 == 0 && c.dim % 32 == 0 && c.ffn % 32 == 0;
}

template <int P> void multiply_all(const uint8_t* w, int64_t rows, int64_t columns, const Activations& a, int64_t count, float* y) {
    int64_t blocks = blocks_of(rows);
    for (int64_t t = 0; t < blocks / 2; t++) {
        auto place = [&](int64_t row, vf first, vf second) {
            float lanes[2 * LANES];
            f_store(lanes, first);
            f_store(lanes + LANES, second);
            for (int64_t i = 0; i < 2 * LANES && t * 2 * LANES + i < rows; i++) y[row * rows + t * 2 * LANES + i] = lanes[i];
        };
        if constexpr (P == NESTED) multiply_nested_tile(w, blocks, t, columns, a, count, place);
        else multiply_tile<P>(w + 2 * t * block_bytes(P, columns), columns, a, count, place);
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

// Parts for each row and KV head, so that every thread has some: three KV heads on two threads would leave one idle for a
// third of the time.
int64_t attention_parts(const Model& m, int64_t rows, const int32_t* positions) {
    int64_t items = rows * m.c.kv_heads, wanted = PARTS_PER_THREAD * m.team->size(), longest = 0;
    if (m.team->size() == 1 || items >= wanted) return 1;
    for (int64_t r = 0; r < rows; r++) longest = positions[r] > longest ? positions[r] : longest;
    int64_t segments = longest / SEGMENT + 1, parts = (wanted + items - 1) / items;
    return parts < segments ? parts : segments;
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
        int64_t parts = attention_parts(*m, count, positions);
        std::vector<std::atomic<int32_t>> parts_done(parts > 1 ? m->c.layers * count * m->c.kv_heads : 0), slices_done(group[g].outputs);
        Step step{m, &m->levels[group[g].level], count, group[g].outputs, tokens, positions, sequences, tables, output_rows,
                  table_stride, many_rows, parts, parts_done.data(), slices_done.data(), logits, best, log_total, counters.data()};
        m->team->run(walk, &step);
        tokens += count, positions += count, sequences += count;
        output_rows += group[g].outputs, best += group[g].outputs, log_total += group[g].outputs;
        logits += group[g].outputs * m->vocab_stride;
    }
    return 0;
}

API int64_t al_packed_bytes(int precision, int64_t rows, int64_t columns) { return packed_bytes(precision, rows, columns); }

// span: columns that share an int4 grid, 32, 64 or 128.
API void al_pack(int precision, const float* w, int64_t rows, int64_t columns, int64_t span, uint8_t* packed) {
    memset(packed, 0, packed_bytes(precision, rows, columns));
    for (int64_t r = 0; r < rows; r++)
        pack_into(precision, w + r * columns, columns, packed, blocks_of(rows), r / LANES, r % LANES, span);
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
