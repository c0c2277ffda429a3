{{/*
A role and its binding to a component's ServiceAccount: in a namespace, or over the cluster for
the namespace "". Takes (list . "component" "namespace" "name of the rules' template").
*/}}
{{- define "plan2.role" -}}
{{- $component := index . 1 -}}
{{- $namespace := index . 2 -}}
{{- $rules := index . 3 -}}
{{- with index . 0 -}}
{{- $name := printf "%s-%s" (include "plan2.fullname" .) $component -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ ternary "Role" "ClusterRole" (ne $namespace "") }}
metadata:
  name: {{ $name }}
  {{- with $namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "plan2.labels" (list . $component) | nindent 4 }}
rules:
  {{- include $rules . | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ ternary "RoleBinding" "ClusterRoleBinding" (ne $namespace "") }}
metadata:
  name: {{ $name }}
  {{- with $namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "plan2.labels" (list . $component) | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ ternary "Role" "ClusterRole" (ne $namespace "") }}
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ $name }}
    namespace: {{ .Release.Namespace }}
{{- end -}}
{{- end -}}
