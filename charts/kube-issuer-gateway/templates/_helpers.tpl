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
{{- /* Ports, probes and the grace period follow from config; and a setting given twice, by two names, ends the program. */ -}}
{{- $older := list (list "TOKEN_PATH" "config.upstream.tokenPath") (list "CA_CERT_PATH" "config.upstream.caCertPath") (list "CACHE_TTL_MINUTES" "config.cache.ttlSeconds") -}}
{{- range $setting := include "kube-issuer-gateway.settings" . | fromYamlArray | concat $older -}}
{{- range $.Values.extraEnv -}}
{{- if eq .name (first $setting) -}}
{{- fail (printf "extraEnv has %s: set %s instead." .name (last $setting)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.autoscaling -}}
{{- if and .enabled (lt (int .maxReplicas) (int .minReplicas)) -}}
{{- fail (printf "autoscaling.maxReplicas is %v: it must be at least autoscaling.minReplicas, %v." .maxReplicas .minReplicas) -}}
{{- end -}}
{{- if and .enabled (not (or .targetCPUUtilizationPercentage .targetMemoryUtilizationPercentage)) -}}
{{- fail "autoscaling.targetCPUUtilizationPercentage and targetMemoryUtilizationPercentage are both null: autoscaling needs one of them, such as 80." -}}
{{- end -}}
{{- end -}}
{{- $loopback := "^\\[?(127\\.|[0:]*:0*1\\]?$|[0:]*:ffff:127\\.)" -}}
{{- $address := ($config.listen).address | default "" -}}
{{- if regexMatch $loopback (lower $address) -}}
{{- fail (printf "config.listen.address is %s, which neither the Service nor the kubelet can reach: leave it empty for all addresses." $address) -}}
{{- end -}}
{{- $address = ($config.admin).address | default "" -}}
{{- $admin := include "kube-issuer-gateway.adminPort" . -}}
{{- if and $admin (regexMatch $loopback (lower $address)) -}}
{{- range $name := list "startupProbe" "livenessProbe" "readinessProbe" -}}
{{- $probe := index $.Values $name | default dict -}}
{{- $port := ($probe.httpGet | default $probe.tcpSocket | default dict).port | toString -}}
{{- if has $port (list "admin" $admin) -}}
{{- fail (printf "config.admin.address is %s, where %s asks, and the kubelet cannot reach it: leave it empty, or let the probes ask the port http." $address $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
