{{/*
What the schema cannot say, each mistake in one sentence: which value, and what would be right. The Deployment's template calls it, so
that nothing is rendered.
*/}}
{{- define "kube-issuer-gateway.validate" -}}
{{- range $part := list "Image" "Global" "Names" "Ports" "Addresses" "Upstream" "Cache" "Stop" "Token" "ExtraEnv" "Scale" "Hosts" "Metrics" -}}
{{- include (printf "kube-issuer-gateway.validate%s" $part) $ -}}
{{- end -}}
{{- end }}

{{- define "kube-issuer-gateway.validateImage" -}}
{{- if not .Values.image.repository -}}
{{- fail "image.repository is empty: nothing publishes the image, so set it to where you pushed it, such as registry.example.com/kube-issuer-gateway." -}}
{{- end -}}
{{- if hasSuffix "k8s-jwks-proxy" .Values.image.repository -}}
{{- fail (printf "image.repository is %q, the program that this one replaces: set image.repository and image.tag to kube-issuer-gateway's image." .Values.image.repository) -}}
{{- end -}}
{{- end }}

{{- define "kube-issuer-gateway.validateGlobal" -}}
{{- /* A parent chart's global may hold more, for its other parts. */ -}}
{{- if .Chart.IsRoot -}}
{{- range $name, $_ := .Values.global | default dict -}}
{{- if not (has $name (list "imageRegistry" "imagePullSecrets")) -}}
{{- fail (printf "global.%s is unknown: of global, imageRegistry and imagePullSecrets are used." $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "kube-issuer-gateway.validateNames" -}}
{{- $name := include "kube-issuer-gateway.fullname" . -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "%q cannot be the name of a Service, which has small letters, digits and dashes and begins with a letter: set fullnameOverride." $name) -}}
{{- end -}}
{{- end }}

{{- define "kube-issuer-gateway.validatePorts" -}}
{{- $public := include "kube-issuer-gateway.publicPort" . -}}
{{- if eq $public (include "kube-issuer-gateway.adminPort" .) -}}
{{- fail (printf "config.listen.port and config.admin.port are both %s: they must differ, or config.admin.port be \"off\"." $public) -}}
{{- end -}}
{{- end }}

{{/* What an address of loopback looks like. */}}
{{- define "kube-issuer-gateway.loopback" -}}
^\[?(127\.|[0:]*:0*1\]?$|[0:]*:ffff:127\.)
{{- end }}

{{- define "kube-issuer-gateway.validateAddresses" -}}
{{- $config := .Values.config | default dict -}}
{{- $number := "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])" -}}
{{- $ipv4 := printf "^(%s\\.){3}%s$" $number $number -}}
{{- $ipv6 := "^\\[?[0-9a-f]*:[0-9a-f:]*:?[0-9a-f:.]*\\]?$" -}}
{{- range $listener := list "listen" "admin" -}}
{{- $address := lower ((index $config $listener | default dict).address | default "") -}}
{{- if not (or (eq $address "") (regexMatch $ipv4 $address) (regexMatch $ipv6 $address)) -}}
{{- fail (printf "config.%s.address is %s: it must be an IP address, such as 0.0.0.0 or ::, or empty." $listener $address) -}}
{{- end -}}
{{- end -}}
{{- $loopback := include "kube-issuer-gateway.loopback" . -}}
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

{{- define "kube-issuer-gateway.validateUpstream" -}}
{{- $config := .Values.config | default dict -}}
{{- range $name, $url := dict "issuer" .Values.issuer "config.upstream.url" ($config.upstream).url "config.documents.jwksUri" ($config.documents).jwksUri -}}
{{- $port := regexFind "^https?://[^/]*:[0-9]+(/|$)" ($url | default "") | trimSuffix "/" | splitList ":" | last -}}
{{- if and $port (gt (int64 $port) 65535) -}}
{{- fail (printf "%s is %s: its port must be from 0 to 65535." $name $url) -}}
{{- end -}}
{{- end -}}
{{- with ((.Values.config).upstream).url -}}
{{- $loopback := regexMatch "^http://(127\\.[0-9.]+|localhost|\\[::1\\])(:[0-9]+)?(/.*)?$" . -}}
{{- $https := regexMatch "^https://[^/?#@\\s]+(/[^?#\\s]*)?$" . -}}
{{- if not (or $loopback $https) -}}
{{- fail (printf "config.upstream.url is %s: it must be an https URL without query, such as https://kubernetes.default.svc (http only for loopback)." .) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "kube-issuer-gateway.validateCache" -}}
{{- $cache := (.Values.config).cache | default dict -}}
{{- $ttl := $cache.ttlSeconds | default 60 | float64 -}}
{{- $stale := $cache.maxStaleSeconds | default 86400 | float64 -}}
{{- if lt $stale $ttl -}}
{{- fail (printf "config.cache.maxStaleSeconds is %v: it must be at least config.cache.ttlSeconds, %v." $stale $ttl) -}}
{{- end -}}
{{- end }}

{{- define "kube-issuer-gateway.validateStop" -}}
{{- $stop := include "kube-issuer-gateway.stopSeconds" . | float64 -}}
{{- $grace := include "kube-issuer-gateway.gracePeriod" . | float64 -}}
{{- if lt $grace $stop -}}
{{- fail (printf "terminationGracePeriodSeconds is %v: it must be at least config.shutdown.delaySeconds and timeoutSeconds together, %v." $grace $stop) -}}
{{- end -}}
{{- end }}

{{- define "kube-issuer-gateway.validateToken" -}}
{{- if not (or .Values.serviceAccount.automount .Values.volumeMounts) -}}
{{- fail "serviceAccount.automount is false and volumeMounts is empty, so the gateway has no token: mount token and CA, and name them in config.upstream.tokenPath and caCertPath." -}}
{{- end -}}
{{- end }}

{{- define "kube-issuer-gateway.validateExtraEnv" -}}
{{- /* Ports, probes and the grace period follow from config; and a setting given twice, by two names, ends the program. */ -}}
{{- $older := list (list "TOKEN_PATH" "config.upstream.tokenPath") (list "CA_CERT_PATH" "config.upstream.caCertPath") (list "CACHE_TTL_MINUTES" "config.cache.ttlSeconds") -}}
{{- range $setting := include "kube-issuer-gateway.settings" . | fromYamlArray | concat $older -}}
{{- range $.Values.extraEnv -}}
{{- if eq .name (first $setting) -}}
{{- fail (printf "extraEnv has %s: set %s instead." .name (last $setting)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "kube-issuer-gateway.validateScale" -}}
{{- with .Values.autoscaling -}}
{{- if and .enabled (lt (int .maxReplicas) (int .minReplicas)) -}}
{{- fail (printf "autoscaling.maxReplicas is %v: it must be at least autoscaling.minReplicas, %v." .maxReplicas .minReplicas) -}}
{{- end -}}
{{- end -}}
{{- with .Values.podDisruptionBudget -}}
{{- $replicas := include "kube-issuer-gateway.replicas" $ | int -}}
{{- if and .enabled (gt $replicas 0) -}}
{{- $all := list (toString $replicas) "100%" -}}
{{- if and (not (kindIs "invalid" .minAvailable)) (or (has (toString .minAvailable) $all) (gt (int .minAvailable) $replicas)) -}}
{{- fail (printf "podDisruptionBudget.minAvailable is %v of %d pods, so that no node with one of them could ever be drained: lower it, or set podDisruptionBudget.enabled to false." .minAvailable $replicas) -}}
{{- end -}}
{{- if and (kindIs "invalid" .minAvailable) (has (toString .maxUnavailable) (list "0" "0%")) -}}
{{- fail (printf "podDisruptionBudget.maxUnavailable is %v, so that no node with one of the pods could ever be drained: set it to 1, or podDisruptionBudget.enabled to false." .maxUnavailable) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "kube-issuer-gateway.validateHosts" -}}
{{- $hosts := dict -}}
{{- if .Values.ingress.enabled -}}
{{- $_ := set $hosts "ingress" (list (include "kube-issuer-gateway.ingressHost" .) | compact) -}}
{{- end -}}
{{- if .Values.httpRoute.enabled -}}
{{- $_ := set $hosts "httpRoute" (include "kube-issuer-gateway.hostnames" . | fromJsonArray) -}}
{{- end -}}
{{- $setting := dict "ingress" "ingress.host" "httpRoute" "httpRoute.hostnames" -}}
{{- range $kind, $names := $hosts -}}
{{- if not $names -}}
{{- fail (printf "%s.enabled is true without a host: set issuer, or %s." $kind (index $setting $kind)) -}}
{{- end -}}
{{- range $names -}}
{{- $isName := regexMatch "^(\\*\\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$" . -}}
{{- if or (not $isName) (regexMatch "^[0-9.]+$" .) -}}
{{- fail (printf "the host %q is none that can be given to an Ingress or HTTPRoute, which is a DNS name in small letters without a dot at its end: set %s." . (index $setting $kind)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "kube-issuer-gateway.validateMetrics" -}}
{{- $address := ((.Values.config).admin).address | default "" | lower -}}
{{- range $kind, $values := .Values.metrics -}}
{{- if $values.enabled -}}
{{- if not (include "kube-issuer-gateway.adminPort" $) -}}
{{- fail (printf "metrics.%s.enabled is true and config.admin.port is \"off\", the port that has /metrics: set it to a port, or metrics.%s.enabled to false." $kind $kind) -}}
{{- end -}}
{{- if regexMatch (include "kube-issuer-gateway.loopback" $) $address -}}
{{- fail (printf "metrics.%s.enabled is true and config.admin.address is %s, where Prometheus cannot reach /metrics: leave it empty." $kind $address) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
