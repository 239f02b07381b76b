{{/* The operator's settings as environment variables; the only place that knows their names. */}}
{{- define "adaptive-llm.settings" -}}
- name: ADAPTIVE_NAMESPACES
  value: {{ eq .Values.scope "cluster" | ternary list .Values.namespaces | uniq | toJson | quote }}
- name: ADAPTIVE_PROMETHEUS_URL
  value: {{ .Values.prometheus.url | quote }}
- name: ADAPTIVE_SCRAPE_INTERVAL_SECONDS
  value: {{ .Values.prometheus.scrapeIntervalSeconds | quote }}
- name: ADAPTIVE_ACCELERATOR_BUDGETS
  value: {{ .Values.accelerators.budgets | toJson | quote }}
- name: ADAPTIVE_ROUTER_IMAGE
  value: {{ include "adaptive-llm.image" .Values.images.router }}
- name: ADAPTIVE_ENGINE_IMAGE
  value: {{ include "adaptive-llm.image" .Values.images.engine }}
{{- end -}}
