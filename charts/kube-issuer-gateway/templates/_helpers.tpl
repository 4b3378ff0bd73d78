{{/*
A key with nothing after it, `service:` or `port:` in it, takes Helm's default away. These are the defaults of values.yaml that
the templates cannot do without, put back where they are missing; tests/chart/check holds them against that file. Each template
calls it first. In the second level only where a key is a section of the chart's own: null takes a member away from what the pod
gets as it is given, such as podSecurityContext.runAsUser.
*/}}
{{- define "kube-issuer-gateway.fill" -}}
{{- $sections := list "image" "serviceAccount" "rbac" "service" "ingress" "httpRoute" "autoscaling" "podDisruptionBudget" "networkPolicy" -}}
{{- range $key, $default := include "kube-issuer-gateway.defaults" . | fromYaml -}}
{{- $value := index $.Values $key -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := set $.Values $key $default -}}
{{- else if has $key $sections -}}
{{- range $inner, $innerDefault := $default -}}
{{- if kindIs "invalid" (index $value $inner) -}}
{{- $_ := set $value $inner $innerDefault -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "kube-issuer-gateway.defaults" -}}
replicaCount: 2
image:
  repository: ghcr.io/kube-issuer-gateway/kube-issuer-gateway
  pullPolicy: IfNotPresent
commonLabels: {}
serviceAccount:
  create: true
  automount: true
rbac:
  create: true
extraEnv: []
podLabels: {}
podSecurityContext:
  runAsNonRoot: true
  runAsUser: 65534
  runAsGroup: 65534
  seccompProfile:
    type: RuntimeDefault
securityContext:
  allowPrivilegeEscalation: false
  capabilities:
    drop: [ALL]
  readOnlyRootFilesystem: true
service:
  type: ClusterIP
  port: 80
  ipFamilyPolicy: PreferDualStack
ingress:
  enabled: false
  pathType: Exact
httpRoute:
  enabled: false
  gatewayName: external-gateway
  gatewayNamespace: gateway-system
  hostnames: []
resources:
  requests: {cpu: 10m, memory: 32Mi}
  limits: {cpu: 100m, memory: 64Mi}
minReadySeconds: 5
revisionHistoryLimit: 3
strategy:
  type: RollingUpdate
  rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
enableServiceLinks: false
autoscaling:
  enabled: false
  minReplicas: 2
  maxReplicas: 4
podDisruptionBudget:
  enabled: true
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
networkPolicy:
  enabled: true
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
{{- end }}

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
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "kube-issuer-gateway.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "kube-issuer-gateway.fullname" .) "default") }}
{{- end }}

{{- define "kube-issuer-gateway.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "kube-issuer-gateway.publicPort" -}}
{{- ((.Values.config).listen).port | default 8080 }}
{{- end }}

{{/* Empty when the admin listener is off. */}}
{{- define "kube-issuer-gateway.adminPort" -}}
{{- $port := ((.Values.config).admin).port | default 8081 | toString -}}
{{- if ne $port "off" }}{{ $port }}{{ end }}
{{- end }}

{{/*
The settings that are set, one environment variable each. toJson for numbers: Helm holds them as floating point, and would print
a million as 1e+06.
*/}}
{{- define "kube-issuer-gateway.env" -}}
{{- $config := .Values.config | default dict -}}
{{- range $setting := list
  (list "LISTEN_ADDR" ($config.listen).address)
  (list "LISTEN_PORT" ($config.listen).port)
  (list "ADMIN_ADDR" ($config.admin).address)
  (list "ADMIN_PORT" ($config.admin).port)
  (list "UPSTREAM_HOST" ($config.upstream).url)
  (list "UPSTREAM_TIMEOUT_SECONDS" ($config.upstream).timeoutSeconds)
  (list "SA_TOKEN_PATH" ($config.upstream).tokenPath)
  (list "SA_CA_CERT_PATH" ($config.upstream).caCertPath)
  (list "CACHE_TTL_SECONDS" ($config.cache).ttlSeconds)
  (list "MAX_STALE_SECONDS" ($config.cache).maxStaleSeconds)
  (list "CLIENT_CACHE_TTL_SECONDS" ($config.cache).clientTtlSeconds)
  (list "PRETTY_PRINT_JSON" ($config.documents).prettyPrint)
  (list "JWKS_URI" ($config.documents).jwksUri)
  (list "DISCOVERY_DEFAULTS" (($config.documents).discoveryDefaults | default ""))
  (list "WORKERS" ($config.limits).workers)
  (list "MAX_CONNECTIONS" ($config.limits).maxConnections)
  (list "SHUTDOWN_DELAY_SECONDS" ($config.shutdown).delaySeconds)
  (list "SHUTDOWN_TIMEOUT_SECONDS" ($config.shutdown).timeoutSeconds)
  (list "LOG_FORMAT" ($config.log).format)
  (list "LOG_LINES_PER_SECOND" ($config.log).linesPerSecond)
  (list "RUST_LOG" ($config.log).level)
}}
{{- $value := index $setting 1 }}
{{- if not (or (kindIs "invalid" $value) (eq (toString $value) "")) }}
- name: {{ index $setting 0 }}
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

{{/* The issuer's host without its port, empty when the issuer is not given. Kubernetes takes small letters only. */}}
{{- define "kube-issuer-gateway.host" -}}
{{- with .Values.issuer }}{{ (urlParse .).hostname | lower }}{{ end }}
{{- end }}

{{/*
The paths of the documents, as a JSON array: below the issuer's path less one slash at its end (OpenID Connect Discovery §4.1), and
the path of a jwks_uri that is set to be on the issuer's host.
*/}}
{{- define "kube-issuer-gateway.paths" -}}
{{- $issuer := urlParse (.Values.issuer | default "") -}}
{{- $path := $issuer.path | trimSuffix "/" -}}
{{- $paths := list (printf "%s/.well-known/openid-configuration" $path) (printf "%s/openid/v1/jwks" $path) -}}
{{- $jwks := urlParse (((.Values.config).documents).jwksUri | default "") -}}
{{- /* Both are https, so :443 is no other port. */ -}}
{{- if and $issuer.host (eq ($jwks.host | lower | trimSuffix ":443") ($issuer.host | lower | trimSuffix ":443")) $jwks.path -}}
{{- $paths = append $paths $jwks.path | uniq -}}
{{- end -}}
{{- toJson $paths }}
{{- end }}

{{/* What the schema cannot say, each mistake in one sentence. */}}
{{- define "kube-issuer-gateway.validate" -}}
{{- $config := .Values.config | default dict -}}
{{- if hasSuffix "k8s-jwks-proxy" .Values.image.repository -}}
{{- fail (printf "image.repository is %q, the program that this one replaces: set image.repository and image.tag to kube-issuer-gateway's image." .Values.image.repository) -}}
{{- end -}}
{{- $public := include "kube-issuer-gateway.publicPort" . -}}
{{- if eq $public (include "kube-issuer-gateway.adminPort" .) -}}
{{- fail (printf "config.listen.port and config.admin.port are both %s: they must differ, or config.admin.port be \"off\"." $public) -}}
{{- end -}}
{{- $ttl := ($config.cache).ttlSeconds | default 60 | float64 -}}
{{- $stale := ($config.cache).maxStaleSeconds | default 86400 | float64 -}}
{{- if lt $stale $ttl -}}
{{- fail (printf "config.cache.maxStaleSeconds is %v: it must be at least config.cache.ttlSeconds, %v." $stale $ttl) -}}
{{- end -}}
{{- $stop := include "kube-issuer-gateway.stopSeconds" . | float64 -}}
{{- $grace := include "kube-issuer-gateway.gracePeriod" . | float64 -}}
{{- if lt $grace $stop -}}
{{- fail (printf "terminationGracePeriodSeconds is %v: it must be at least config.shutdown.delaySeconds and timeoutSeconds together, %v." $grace $stop) -}}
{{- end -}}
{{- if not (or .Values.serviceAccount.automount .Values.volumeMounts) -}}
{{- fail "serviceAccount.automount is false and volumeMounts is empty, so the gateway has no token: mount token and CA, and name them in config.upstream.tokenPath and caCertPath." -}}
{{- end -}}
{{- range $setting := include "kube-issuer-gateway.env" . | fromYamlArray -}}
{{- range $.Values.extraEnv -}}
{{- if eq .name $setting.name -}}
{{- fail (printf "extraEnv has %s, which config sets too: give it once." .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
