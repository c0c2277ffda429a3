{{- define "plan2.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "plan2.operator" -}}{{ include "plan2.fullname" . }}-operator{{- end -}}
{{- define "plan2.injector" -}}{{ include "plan2.fullname" . }}-injector{{- end -}}

{{/* Never change: a Deployment's selector is immutable. Takes (list . "component"). */}}
{{- define "plan2.selector" -}}
{{- $component := index . 1 -}}
{{- with index . 0 -}}
app.kubernetes.io/name: plan2-{{ $component }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
{{- end -}}

{{/* Takes (list . "component"). */}}
{{- define "plan2.labels" -}}
{{ include "plan2.selector" . }}
{{- $component := index . 1 }}
{{- with index . 0 }}
app.kubernetes.io/component: {{ $component }}
app.kubernetes.io/part-of: plan2
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}
{{- end -}}

{{- define "plan2.operatorImage" -}}
{{ .Values.operator.image.repository }}:{{ .Values.operator.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "plan2.sidecarImage" -}}
{{ .Values.sidecar.image.repository }}:{{ .Values.sidecar.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* What operator and injector must know alike: the operator tells outdated and missed sidecars. */}}
{{- define "plan2.sharedEnvironment" -}}
- name: PLAN2_OPERATOR_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: PLAN2_WATCH_NAMESPACES
  value: {{ join "," .Values.watchNamespaces | quote }}
- name: PLAN2_SIDECAR_IMAGE
  value: {{ include "plan2.sidecarImage" . | quote }}
- name: PLAN2_SIDECAR_IMAGE_PULL_POLICY
  value: {{ .Values.sidecar.image.pullPolicy | default "IfNotPresent" | quote }}
{{- with .Values.injector.excludedNamespaces }}
- name: PLAN2_INJECTOR_EXCLUDED_NAMESPACES
  value: {{ join "," . | quote }}
{{- end }}
{{- end -}}

{{- define "plan2.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "plan2.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Namespaces that are never injected. */}}
{{- define "plan2.excludedNamespaces" -}}
{{- $system := list "kube-system" "kube-public" "kube-node-lease" "local-path-storage" -}}
{{- concat $system (list .Release.Namespace) .Values.injector.excludedNamespaces | uniq | toJson -}}
{{- end -}}
