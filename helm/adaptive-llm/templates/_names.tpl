{{/* Names, labels and images. */}}

{{- define "adaptive-llm.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "adaptive-llm.fullname" -}}
{{- $name := include "adaptive-llm.name" . -}}
{{- $default := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- default $default .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "adaptive-llm.operatorName" -}}
{{- include "adaptive-llm.fullname" . }}-operator
{{- end -}}

{{/* The same in every release, so that two releases in one namespace don't both act. */}}
{{- define "adaptive-llm.leaseName" -}}
adaptive-llm-operator
{{- end -}}

{{- define "adaptive-llm.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "adaptive-llm.operatorName" .) -}}
{{- end -}}

{{- define "adaptive-llm.selectorLabels" -}}
app.kubernetes.io/name: {{ include "adaptive-llm.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{/* The component is left out: it tells the operator from the test's pod. */}}
{{- define "adaptive-llm.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "adaptive-llm.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: adaptive-llm
{{- end -}}

{{/* repository:tag, or repository@digest: a digest wins, because a tag beside it would only mislead. */}}
{{- define "adaptive-llm.image" -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag }}
{{- end -}}
{{- end -}}
