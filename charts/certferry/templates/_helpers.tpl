{{- define "certferry.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* The release, and the chart where the release is not named after it. Room is left for the longest suffix. */}}
{{- define "certferry.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "certferry.injector" -}}
{{- include "certferry.fullname" . }}-injector
{{- end -}}

{{/* Objects without a namespace name that of the release, unless the release is called like it: so no two releases share one. */}}
{{- define "certferry.clusterName" -}}
{{- if eq .Release.Namespace (include "certferry.fullname" .) -}}
{{- include "certferry.injector" . -}}
{{- else -}}
{{- printf "%s-%s" .Release.Namespace (include "certferry.injector" .) -}}
{{- end -}}
{{- end -}}

{{- define "certferry.selectorLabels" -}}
app.kubernetes.io/name: {{ include "certferry.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: injector
{{- end -}}

{{- define "certferry.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "certferry.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "certferry.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "certferry.injector" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: is needed where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The reference of an image: with its digest where there is one. */}}
{{- define "certferry.imageReference" -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository .tag -}}
{{- end -}}
{{- end -}}

{{- define "certferry.image" -}}
{{- include "certferry.imageReference" (dict "repository" .Values.image.repository "tag" (default .Chart.AppVersion .Values.image.tag) "digest" .Values.image.digest) -}}
{{- end -}}

{{- define "certferry.sidecarImage" -}}
{{- $image := .Values.sidecar.image -}}
{{- if $image.repository -}}
{{- include "certferry.imageReference" (dict "repository" $image.repository "tag" (default .Chart.AppVersion $image.tag) "digest" $image.digest) -}}
{{- else if or $image.tag $image.digest -}}
{{- include "certferry.imageReference" (dict "repository" .Values.image.repository "tag" (default .Chart.AppVersion $image.tag) "digest" $image.digest) -}}
{{- else -}}
{{- include "certferry.image" . -}}
{{- end -}}
{{- end -}}

{{/* The name that the API server asks for. */}}
{{- define "certferry.dnsName" -}}
{{- printf "%s.%s.svc" (include "certferry.injector" .) .Release.Namespace -}}
{{- end -}}

{{- define "certferry.caSecret" -}}
{{- default (printf "%s-ca" (include "certferry.injector" .)) .Values.certificate.devCa.secretName -}}
{{- end -}}

{{- define "certferry.usesVault" -}}
{{- if eq .Values.certificate.source "vault-pki" }}true{{ end -}}
{{- end -}}

{{/* Annotations that hold where a pod does not give them: those of `vault`, and over them `sidecar.defaults`. */}}
{{- define "certferry.defaults" -}}
{{- $defaults := dict -}}
{{- with .Values.vault.address }}{{ $_ := set $defaults "vault-address" . }}{{ end -}}
{{- with .Values.vault.ca }}{{ $_ := set $defaults "vault-ca" (trim .) }}{{ end -}}
{{- with .Values.vault.serverName }}{{ $_ := set $defaults "vault-server-name" . }}{{ end -}}
{{- with .Values.vault.namespace }}{{ $_ := set $defaults "vault-namespace" . }}{{ end -}}
{{- with .Values.vault.role }}{{ $_ := set $defaults "vault-role" . }}{{ end -}}
{{- $_ := set $defaults "auth-path" .Values.vault.authPath -}}
{{- $_ := set $defaults "token-audience" .Values.vault.tokenAudience -}}
{{- /* Annotations are text; Helm reads every number as a fraction. */ -}}
{{- range $name, $value := .Values.sidecar.defaults }}
{{- $_ := set $defaults $name (kindIs "float64" $value | ternary (toString (int64 (kindIs "float64" $value | ternary $value 0))) (toString $value)) }}
{{- end -}}
{{- toYaml $defaults -}}
{{- end -}}

{{/* The config of the injector: docs/configuration.md. */}}
{{- define "certferry.config" -}}
injector:
  listen: '0.0.0.0:{{ .Values.webhook.port }}'
  certificate: injector
  webhookConfiguration: {{ include "certferry.clusterName" . }}
  image: {{ include "certferry.sidecarImage" . | quote }}
  nativeSidecars: {{ .Values.sidecar.nativeSidecars }}
  vaultAnnotations: {{ .Values.sidecar.vaultAnnotations }}
  namespace: {{ .Release.Namespace | quote }}
  defaults:
    {{- include "certferry.defaults" . | nindent 4 }}
{{- if include "certferry.usesVault" . }}
vault:
  address: {{ required "vault.address: is needed where certificate.source is vault-pki" .Values.vault.address | quote }}
  {{- if .Values.vault.ca }}
  caFile: /etc/certferry/vault-ca.pem
  {{- end }}
  {{- with .Values.vault.serverName }}
  serverName: {{ . | quote }}
  {{- end }}
  {{- with .Values.vault.namespace }}
  namespace: {{ . | quote }}
  {{- end }}
  auth:
    kind: kubernetes
    mount: {{ .Values.vault.authPath | quote }}
    role: {{ required "certificate.vaultPki.authRole: is needed where certificate.source is vault-pki" .Values.certificate.vaultPki.authRole | quote }}
    tokenFile: /var/run/secrets/certferry/vault/token
{{- end }}
certificates:
  - name: injector
    source:
      {{- if include "certferry.usesVault" . }}
      kind: vault-pki
      mount: {{ .Values.certificate.vaultPki.mount | quote }}
      role: {{ required "certificate.vaultPki.role: is needed where certificate.source is vault-pki" .Values.certificate.vaultPki.role | quote }}
      {{- else }}
      kind: dev-ca
      secret: {{ include "certferry.caSecret" . }}
      {{- end }}
      {{- /* A common name holds 64 characters (RFC 5280); who checks looks at the alternative names. */}}
      {{- if le (len (include "certferry.dnsName" .)) 64 }}
      commonName: {{ include "certferry.dnsName" . }}
      {{- else }}
      altNames: [{{ include "certferry.dnsName" . }}]
      {{- end }}
      ttl: {{ .Values.certificate.ttl }}
    outputs: [{ kind: pem, directory: /tls/injector }]
    verify: [{ kind: tls, address: '127.0.0.1:{{ .Values.webhook.port }}', serverName: {{ include "certferry.dnsName" . }} }]
admin: { listen: '0.0.0.0:{{ .Values.metrics.port }}' }
log: { level: {{ .Values.log.level }}, format: {{ .Values.log.format }} }
{{- end -}}
