"""Names shared by router and engine: routes, headers, ports, metric names.

The operator knows the same names from its own side; `tests/fixtures/contract.json` pins both. This module holds
names only: no behaviour, no I/O.
"""

from __future__ import annotations

from typing import Final

LABEL_MODEL: Final = "adaptivellm.dev/model"
LABEL_TIER: Final = "adaptivellm.dev/tier"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
COMPONENT_ENGINE: Final = "engine"
COMPONENT_ROUTER: Final = "router"

ENGINE_PORT: Final = 8000
ROUTER_PORT: Final = 8080

TABLE_KEY: Final = "table.json"
TABLE_SCHEMA_VERSION: Final = 1

HEADER_TIER: Final = "x-tier"
HEADER_LEVEL: Final = "x-level"
HEADER_PRIORITY: Final = "x-priority"
HEADER_QUALITY_MIN: Final = "x-quality-min"
HEADER_SPECULATE: Final = "x-speculate"
HEADER_DEADLINE_MS: Final = "x-deadline-ms"
HEADER_REQUEST_ID: Final = "x-request-id"
HEADER_TIER_SERVED: Final = "x-tier-served"
HEADER_LEVEL_SERVED: Final = "x-level-served"
HEADER_QUALITY_SERVED: Final = "x-quality-served"
HEADER_ROUTE_REASON: Final = "x-route-reason"

ROUTE_ROOT: Final = "/"
ROUTE_GENERATE: Final = "/generate"
ROUTE_GENERATE_STREAM: Final = "/generate_stream"
ROUTE_TOKENIZE: Final = "/tokenize"
ROUTE_CHAT_COMPLETIONS: Final = "/v1/chat/completions"
ROUTE_COMPLETIONS: Final = "/v1/completions"
ROUTE_MODELS: Final = "/v1/models"
ROUTE_INFO: Final = "/info"
ROUTE_HEALTH: Final = "/health"
ROUTE_PING: Final = "/ping"
ROUTE_METRICS: Final = "/metrics"
ROUTE_REQUEST_LEVEL: Final = "/requests/{request_id}/level"

ROUTER_REQUESTS: Final = "adaptive_router_requests_total"
ROUTER_QUALITY_SUM: Final = "adaptive_router_quality_sum_total"
ROUTER_ARRIVALS: Final = "adaptive_router_arrivals_total"
ROUTER_TTFT_SECONDS: Final = "adaptive_router_ttft_seconds"
ROUTER_TPOT_SECONDS: Final = "adaptive_router_tpot_seconds"
ROUTER_INFLIGHT: Final = "adaptive_router_inflight"
ROUTER_SHED: Final = "adaptive_router_shed_total"
ROUTER_REJECTED: Final = "adaptive_router_rejected_total"
ROUTER_QUEUE_LENGTH: Final = "adaptive_router_queue_length"
ROUTER_SHARE: Final = "adaptive_router_share"
ROUTER_TABLE_GENERATION: Final = "adaptive_router_table_generation"
ROUTER_READY_REPLICAS: Final = "adaptive_router_ready_replicas"

ENGINE_RUNNING: Final = "adaptive_engine_running"
ENGINE_WAITING: Final = "adaptive_engine_waiting"
ENGINE_KV_BLOCKS_USED: Final = "adaptive_engine_kv_blocks_used"
ENGINE_KV_BLOCKS_TOTAL: Final = "adaptive_engine_kv_blocks_total"
ENGINE_STEP_SECONDS: Final = "adaptive_engine_step_seconds"
ENGINE_PROMPT_TOKENS: Final = "adaptive_engine_prompt_tokens_total"
ENGINE_GENERATED_TOKENS: Final = "adaptive_engine_generated_tokens_total"
ENGINE_KERNELS_INFO: Final = "adaptive_engine_kernels_info"
ENGINE_LEVEL_REQUESTS: Final = "adaptive_engine_level_requests_total"
ENGINE_LEVEL_GENERATED_TOKENS: Final = "adaptive_engine_level_generated_tokens_total"
ENGINE_LOAD_SECONDS: Final = "adaptive_engine_load_seconds"
ENGINE_PREFIX_HIT_TOKENS: Final = "adaptive_engine_prefix_hit_tokens_total"
ENGINE_PREFIX_MISS_TOKENS: Final = "adaptive_engine_prefix_miss_tokens_total"
ENGINE_PREEMPTIONS: Final = "adaptive_engine_preemptions_total"
ENGINE_DEADLINES_PASSED: Final = "adaptive_engine_deadlines_passed_total"
ENGINE_INTEGRITY_FAILURES: Final = "adaptive_engine_integrity_failures_total"
ENGINE_BATCH_LIMIT: Final = "adaptive_engine_batch_limit"
ENGINE_BATCH_LIMIT_BOUND: Final = "adaptive_engine_batch_limit_bound"
ENGINE_DRAFT_TOKENS: Final = "adaptive_engine_draft_tokens_total"
ENGINE_ACCEPTED_TOKENS: Final = "adaptive_engine_accepted_tokens_total"
ENGINE_VERIFICATIONS: Final = "adaptive_engine_verifications_total"
ENGINE_SPECULATION_ACTIVE: Final = "adaptive_engine_speculation_active"
ENGINE_SPECULATION_GAIN: Final = "adaptive_engine_speculation_gain"
ENGINE_PLAN_HITS: Final = "adaptive_engine_plan_hits_total"
ENGINE_PLAN_MISSES: Final = "adaptive_engine_plan_misses_total"
ENGINE_PLAN_UNWARMED: Final = "adaptive_engine_plan_unwarmed_total"
ENGINE_PLAN_EVICTIONS: Final = "adaptive_engine_plan_evictions_total"
ENGINE_PLAN_BUILD_SECONDS: Final = "adaptive_engine_plan_build_seconds_total"
