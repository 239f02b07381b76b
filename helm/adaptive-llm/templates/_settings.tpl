{{/*
The operator's settings as environment variables: the only place that knows their names. A test loads them with the
operator's own code.
*/}}
{{- define "adaptive-llm.settings" -}}
- name: ADAPTIVE_NAMESPACES
  value: {{ eq .Values.scope "cluster" | ternary list .Values.namespaces | uniq | toJson | quote }}
- name: ADAPTIVE_LEASE_NAME
  value: {{ include "adaptive-llm.leaseName" . }}
- name: ADAPTIVE_LEASE_SECONDS
  value: {{ .Values.operator.leaseSeconds | quote }}
{{- with .Values.operator.decisionLog }}
{{- if .enabled }}
- name: ADAPTIVE_DECISION_LOG
  value: /var/log/adaptive/decisions.jsonl
- name: ADAPTIVE_DECISION_LOG_MEBIBYTES
  value: {{ .mebibytes | quote }}
{{- end }}
{{- end }}
- name: ADAPTIVE_LOG_LEVEL
  value: {{ .Values.operator.logLevel }}
{{- with .Values.prometheus }}
- name: ADAPTIVE_PROMETHEUS_URL
  value: {{ .url | quote }}
{{- if .tokenSecret.name }}
- name: ADAPTIVE_PROMETHEUS_TOKEN_FILE
  value: {{ include "adaptive-llm.tokenFolder" $ }}/token
{{- end }}
- name: ADAPTIVE_SCRAPE_INTERVAL_SECONDS
  value: {{ .scrapeIntervalSeconds | quote }}
{{- end }}
- name: ADAPTIVE_ACCELERATOR_BUDGETS
  value: {{ .Values.accelerators.budgets | toJson | quote }}
- name: ADAPTIVE_DISCOVER_ACCELERATORS
  value: {{ and .Values.accelerators.discover (eq .Values.scope "cluster") | quote }}
{{- with .Values.planner }}
{{- $interval := int $.Values.prometheus.scrapeIntervalSeconds }}
{{- if lt (int .holdAfterStaleSeconds) $interval }}
{{- fail (printf "planner.holdAfterStaleSeconds is %v, less than prometheus.scrapeIntervalSeconds (%v): replicas would be held between any two scrapes; raise the first" .holdAfterStaleSeconds $interval) }}
{{- end }}
- name: ADAPTIVE_PLANNER_PERIOD_SECONDS
  value: {{ .periodSeconds | quote }}
- name: ADAPTIVE_STALE_AFTER_SCRAPES
  value: {{ .staleAfterScrapes | quote }}
- name: ADAPTIVE_HOLD_AFTER_STALE_SECONDS
  value: {{ .holdAfterStaleSeconds | quote }}
- name: ADAPTIVE_QUARANTINE_SECONDS
  value: {{ .quarantineSeconds | quote }}
- name: ADAPTIVE_SEASON_PERIOD_SECONDS
  value: {{ mul .seasonHours 3600 | quote }}
- name: ADAPTIVE_UTILISATION
  value: {{ divf .utilisationPercent 100 | quote }}
{{- end }}
{{- with .Values.images }}
- name: ADAPTIVE_ENGINE_IMAGE
  value: {{ include "adaptive-llm.image" .engine }}
- name: ADAPTIVE_ROUTER_IMAGE
  value: {{ include "adaptive-llm.image" .router }}
- name: ADAPTIVE_IMAGE_PULL_POLICY
  value: {{ .pullPolicy }}
- name: ADAPTIVE_IMAGE_PULL_SECRETS
  value: {{ .pullSecrets | toJson | quote }}
{{- end }}
{{- with .Values.engine }}
- name: ADAPTIVE_ENGINE_NODE_SELECTOR
  value: {{ .nodeSelector | toJson | quote }}
- name: ADAPTIVE_ACCELERATOR_TOLERATION
  value: {{ .tolerateAccelerators | quote }}
- name: ADAPTIVE_ENGINE_MAX_BATCH_SIZE
  value: {{ .maxBatchSize | quote }}
- name: ADAPTIVE_ENGINE_MAX_WAITING
  value: {{ .maxWaiting | quote }}
- name: ADAPTIVE_ENGINE_STARTUP_SECONDS
  value: {{ .startupSeconds | quote }}
{{- end }}
{{- with .Values.router }}
- name: ADAPTIVE_ROUTER_CPU
  value: {{ .cpu | quote }}
- name: ADAPTIVE_ROUTER_MEMORY
  value: {{ .memory | quote }}
- name: ADAPTIVE_ROUTER_DRAIN_SECONDS
  value: {{ .drainSeconds | quote }}
{{- end }}
{{- with .Values.modelPriorityClassName }}
- name: ADAPTIVE_PRIORITY_CLASS
  value: {{ . }}
{{- end }}
{{- end -}}

{{- define "adaptive-llm.tokenFolder" -}}
/var/run/adaptive-llm/prometheus
{{- end -}}
