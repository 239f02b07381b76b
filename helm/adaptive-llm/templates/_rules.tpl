{{/*
What the operator may do where models live. Every line is used; tests/integration/test_chart_rbac.py asks a real API
server for each of them, and for what must be refused. Server-side apply needs patch, and create for a new object.
*/}}
{{- define "adaptive-llm.modelRules" -}}
# The specification is only ever read; the operator writes the status.
- apiGroups: [adaptivellm.dev]
  resources: [adaptivemodels]
  verbs: [get, list, watch]
- apiGroups: [adaptivellm.dev]
  resources: [adaptivemodels/status]
  verbs: [patch]
# A model's children.
- apiGroups: [apps]
  resources: [statefulsets, deployments]
  verbs: [get, list, create, patch, delete]
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs: [get, list, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, create, patch, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, create, patch, delete]
# "watch" here, and the rule on EndpointSlices, are not used by the operator: its routers' Role grants them, and nobody
# may grant what he doesn't hold.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
# Who is Pending, loading, failed or ready; those of a node that went silent are deleted.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{/* What is of the cluster: pools, and what the framework reads to learn when definitions and namespaces come and go. */}}
{{- define "adaptive-llm.clusterRules" -}}
# The specification is only ever read; the operator writes the status.
- apiGroups: [adaptivellm.dev]
  resources: [acceleratorpools]
  verbs: [get, list, watch]
- apiGroups: [adaptivellm.dev]
  resources: [acceleratorpools/status]
  verbs: [patch]
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [namespaces]
  verbs: [list, watch]
{{- if .Values.accelerators.discover }}
# What nodes advertise is the budget of a resource for which nobody names one. Where a budget is named, they tell whether
# any of them has room for a replica that takes several accelerators.
- apiGroups: [""]
  resources: [nodes]
  verbs: [list]
{{- end }}
{{- end -}}
