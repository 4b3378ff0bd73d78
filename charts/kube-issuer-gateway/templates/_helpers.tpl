{{/* The chart's name, for labels. */}}
{{- define "kube-issuer-gateway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of what is made. 63 characters: a Service's name is a DNS label. */}}
{{- define "kube-issuer-gateway.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* The name of what belongs to no namespace: other than any other release's, in whatever namespace that is. */}}
{{- define "kube-issuer-gateway.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "kube-issuer-gateway.fullname" .) }}
{{- end }}

{{/* Never to be changed: a Deployment's selector is immutable. */}}
{{- define "kube-issuer-gateway.selectorLabels" -}}
app.kubernetes.io/name: {{ include "kube-issuer-gateway.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "kube-issuer-gateway.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "kube-issuer-gateway.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/*
The metadata of an object in the release's namespace, but its name. Takes a list of the root and of what has the object's own `labels`
and `annotations`. Labels of the chart stand above the object's, and those above commonLabels.
*/}}
{{- define "kube-issuer-gateway.metadata" -}}
{{- $root := first . -}}
namespace: {{ $root.Release.Namespace | quote }}
labels:
  {{- include "kube-issuer-gateway.allLabels" . | nindent 2 }}
{{- with (last . | default dict).annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "kube-issuer-gateway.allLabels" -}}
{{- $root := first . -}}
{{- $own := (last . | default dict).labels | default dict -}}
{{- merge (include "kube-issuer-gateway.labels" $root | fromYaml) $own ($root.Values.commonLabels | default dict) | toYaml }}
{{- end }}

{{- define "kube-issuer-gateway.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "kube-issuer-gateway.fullname" .) "default") }}
{{- end }}

{{/* global.imageRegistry takes the place of the repository's host, where it has one: a first part with a dot or a port. */}}
{{- define "kube-issuer-gateway.image" -}}
{{- $repository := .Values.image.repository -}}
{{- with (.Values.global | default dict).imageRegistry -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) (regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $repository "") -}}
{{- end -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* Those of global too, which may be names alone, as a JSON array. */}}
{{- define "kube-issuer-gateway.imagePullSecrets" -}}
{{- $secrets := .Values.imagePullSecrets | default list -}}
{{- range (.Values.global | default dict).imagePullSecrets -}}
{{- $secrets = append $secrets (kindIs "string" . | ternary (dict "name" .) .) -}}
{{- end -}}
{{- $secrets | uniq | toJson }}
{{- end }}

{{- define "kube-issuer-gateway.publicPort" -}}
{{- ((.Values.config).listen).port | default 8080 }}
{{- end }}

{{/* Empty when the admin listener is off. */}}
{{- define "kube-issuer-gateway.adminPort" -}}
{{- $port := ((.Values.config).admin).port | default 8081 | toString -}}
{{- if ne $port "off" }}{{ $port }}{{ end }}
{{- end }}

{{/* Each setting of the program, and the value that gives it. */}}
{{- define "kube-issuer-gateway.settings" -}}
- [ISSUER, issuer]
- [LISTEN_ADDR, config.listen.address]
- [LISTEN_PORT, config.listen.port]
- [ADMIN_ADDR, config.admin.address]
- [ADMIN_PORT, config.admin.port]
- [UPSTREAM_HOST, config.upstream.url]
- [UPSTREAM_TIMEOUT_SECONDS, config.upstream.timeoutSeconds]
- [SA_TOKEN_PATH, config.upstream.tokenPath]
- [SA_CA_CERT_PATH, config.upstream.caCertPath]
- [OWN_TOKEN_CHECK, config.upstream.ownTokenCheck]
- [CACHE_TTL_SECONDS, config.cache.ttlSeconds]
- [REVALIDATE_SECONDS, config.cache.revalidateSeconds]
- [KEY_GRACE_SECONDS, config.cache.keyGraceSeconds]
- [MAX_STALE_SECONDS, config.cache.maxStaleSeconds]
- [CLIENT_CACHE_TTL_SECONDS, config.cache.clientTtlSeconds]
- [SHARED_CACHE_TTL_SECONDS, config.cache.sharedTtlSeconds]
- [PRETTY_PRINT_JSON, config.documents.prettyPrint]
- [JWKS_URI, config.documents.jwksUri]
- [DISCOVERY_DEFAULTS, config.documents.discoveryDefaults]
- [WORKERS, config.limits.workers]
- [MAX_CONNECTIONS, config.limits.maxConnections]
- [SHUTDOWN_DELAY_SECONDS, config.shutdown.delaySeconds]
- [SHUTDOWN_TIMEOUT_SECONDS, config.shutdown.timeoutSeconds]
- [LOG_FORMAT, config.log.format]
- [LOG_LINES_PER_SECOND, config.log.linesPerSecond]
- [LOG_CLIENTS, config.log.clients]
- [RUST_LOG, config.log.level]
{{- end }}

{{/*
The settings that are set, one environment variable each. toJson for numbers: Helm holds them as floating point, and would print
a million as 1e+06.
*/}}
{{- define "kube-issuer-gateway.env" -}}
{{- range $setting := include "kube-issuer-gateway.settings" . | fromYamlArray }}
{{- $value := $.Values }}
{{- range last $setting | splitList "." }}
{{- $value = index ($value | default dict) . }}
{{- end }}
{{- if not (or (kindIs "invalid" $value) (eq (toString $value) "") (and (kindIs "map" $value) (empty $value))) }}
{{- if and (kindIs "bool" $value) (has (first $setting) (list "OWN_TOKEN_CHECK" "LOG_CLIENTS")) }}
{{- $value = ternary "on" "off" $value }}
{{- end }}
- name: {{ first $setting }}
  value: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* Whether a probe asks /healthz, however that is spelled; empty where it does not. */}}
{{- define "kube-issuer-gateway.asksHealthz" -}}
{{- with (. | default dict).httpGet -}}
{{- if regexMatch "^/?healthz/?([?].*)?$" (toString .path) }}true{{ end -}}
{{- end -}}
{{- end }}

{{/*
A probe as the values have it, but for two things. /healthz becomes what the probe is for: it speaks of the API server, and asked
by the kubelet would restart all pods in an outage. And where there is no admin listener, the public one is asked.
Takes a dict of `root`, `probe` and `path`.
*/}}
{{- define "kube-issuer-gateway.probe" -}}
{{- $probe := deepCopy .probe -}}
{{- with $probe.httpGet -}}
{{- if include "kube-issuer-gateway.asksHealthz" $probe }}{{ $_ := set . "path" $.path }}{{ end -}}
{{- if and (eq (toString .port) "admin") (not (include "kube-issuer-gateway.adminPort" $.root)) }}{{ $_ := set . "port" "http" }}{{ end -}}
{{- end -}}
{{- toYaml $probe }}
{{- end }}

{{/* The seconds between SIGTERM and SIGKILL. */}}
{{- define "kube-issuer-gateway.gracePeriod" -}}
{{- $stop := include "kube-issuer-gateway.stopSeconds" . | float64 | ceil | int -}}
{{- .Values.terminationGracePeriodSeconds | default (add $stop 5) | int }}
{{- end }}

{{/* How long a stop may take, by the settings. 0 is a value, and `default` would not take it. */}}
{{- define "kube-issuer-gateway.stopSeconds" -}}
{{- $shutdown := (.Values.config).shutdown | default dict -}}
{{- $delay := kindIs "invalid" $shutdown.delaySeconds | ternary 5 $shutdown.delaySeconds -}}
{{- $timeout := kindIs "invalid" $shutdown.timeoutSeconds | ternary 20 $shutdown.timeoutSeconds -}}
{{- addf $delay $timeout }}
{{- end }}

{{/* Pods at least, as a number. */}}
{{- define "kube-issuer-gateway.replicas" -}}
{{- .Values.autoscaling.enabled | ternary .Values.autoscaling.minReplicas .Values.replicaCount }}
{{- end }}

{{/* The issuer's host without its port, empty when the issuer is not given. Kubernetes takes small letters only. */}}
{{- define "kube-issuer-gateway.host" -}}
{{- with .Values.issuer }}{{ (urlParse .).hostname | lower }}{{ end }}
{{- end }}

{{/*
The paths of the documents, as a JSON array: below the issuer's path less one slash at its end (OpenID Connect Discovery §4.1), and
the path of a jwks_uri that is set to be on the issuer's host.
*/}}
{{- define "kube-issuer-gateway.paths" -}}
{{- $issuer := .Values.issuer | default "" -}}
{{- /* As it is written: urlParse would decode it. */ -}}
{{- $path := regexReplaceAll "^https://[^/]*" $issuer "" | trimSuffix "/" -}}
{{- $paths := list (printf "%s/.well-known/openid-configuration" $path) (printf "%s/openid/v1/jwks" $path) -}}
{{- $jwks := ((.Values.config).documents).jwksUri | default "" -}}
{{- /* Both are https, so :443 is no other port. */ -}}
{{- $host := (urlParse $issuer).host | default "" | lower | trimSuffix ":443" -}}
{{- if and $host (eq ((urlParse $jwks).host | default "" | lower | trimSuffix ":443") $host) -}}
{{- $paths = append $paths (regexReplaceAll "^https://[^/]*" $jwks "") | compact | uniq -}}
{{- end -}}
{{- toJson $paths }}
{{- end }}

{{/* The host of the Ingress; empty when there is none. */}}
{{- define "kube-issuer-gateway.ingressHost" -}}
{{- .Values.ingress.host | default (include "kube-issuer-gateway.host" .) }}
{{- end }}

{{/* The hostnames of the HTTPRoute, as a JSON array. */}}
{{- define "kube-issuer-gateway.hostnames" -}}
{{- .Values.httpRoute.hostnames | default (include "kube-issuer-gateway.host" . | list | compact) | toJson }}
{{- end }}
