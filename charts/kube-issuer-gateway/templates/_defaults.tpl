{{/*
What stands for a value that is null or not given, where that is not nothing. values.yaml says the same; tests/chart/agree compares
the two. What the pod gets as it is written (probes, contexts, resources) is null there, so that `{}` can mean none: Helm lays maps
of values over those of values.yaml.
*/}}
{{- define "kube-issuer-gateway.defaults" -}}
replicaCount: 2
image:
  pullPolicy: IfNotPresent
serviceAccount:
  create: true
  automount: true
rbac:
  create: true
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
  runAsNonRoot: true
  seccompProfile:
    type: RuntimeDefault
service:
  type: ClusterIP
  port: 80
  appProtocol: http
  ipFamilyPolicy: PreferDualStack
ingress:
  enabled: false
  pathType: Exact
httpRoute:
  enabled: false
  gatewayName: external-gateway
  gatewayNamespace: gateway-system
resources:
  requests: {cpu: 10m, memory: 32Mi}
  limits: {cpu: 100m, memory: 64Mi}
startupProbe:
  httpGet: {path: /livez, port: admin, scheme: HTTP}
  periodSeconds: 1
  timeoutSeconds: 1
  failureThreshold: 30
  successThreshold: 1
livenessProbe:
  httpGet: {path: /livez, port: admin, scheme: HTTP}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
  successThreshold: 1
readinessProbe:
  httpGet: {path: /readyz, port: admin, scheme: HTTP}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
  successThreshold: 1
minReadySeconds: 5
revisionHistoryLimit: 3
progressDeadlineSeconds: 600
strategy:
  type: RollingUpdate
  rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
enableServiceLinks: false
dnsPolicy: ClusterFirst
autoscaling:
  enabled: false
  minReplicas: 2
  maxReplicas: 4
  targetCPUUtilizationPercentage: 500
podDisruptionBudget:
  enabled: true
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
networkPolicy:
  enabled: true
metrics:
  podMonitor:
    enabled: false
  prometheusRule:
    enabled: false
  dashboard:
    enabled: false
    labels: {grafana_dashboard: "1"}
nodeSelector:
  kubernetes.io/os: linux
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    matchLabelKeys: [pod-template-hash]
{{- end }}

{{/*
Puts the defaults into .Values, wherever a value is null or missing; every template calls it first. A map that is given is laid over
the default's, except for an empty one, which means none. null is taken out of what is left.
*/}}
{{- define "kube-issuer-gateway.fill" -}}
{{- $defaults := include "kube-issuer-gateway.defaults" . | fromYaml -}}
{{- range $probe := list "startupProbe" "livenessProbe" "readinessProbe" -}}
{{- $given := index $.Values $probe | default dict -}}
{{- if or $given.tcpSocket $given.exec $given.grpc -}}
{{- $_ := unset (index $defaults $probe) "httpGet" -}}
{{- end -}}
{{- end -}}
{{- range $key, $default := $defaults -}}
{{- $value := index $.Values $key -}}
{{- if and (kindIs "map" $value) (not $value) (hasKey $default "enabled" | or (has $key (list "image" "serviceAccount" "rbac" "service" "metrics"))) -}}
{{- $_ := set $.Values $key $default -}}
{{- end -}}
{{- end -}}
{{- include "kube-issuer-gateway.layOver" (list .Values $defaults) -}}
{{- include "kube-issuer-gateway.withoutNull" .Values -}}
{{- end }}

{{/* Takes a list of a map and the one below it, and changes the first. */}}
{{- define "kube-issuer-gateway.layOver" -}}
{{- $map := first . -}}
{{- range $key, $default := last . -}}
{{- $value := index $map $key -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := set $map $key $default -}}
{{- else if and $value (kindIs "map" $value) (kindIs "map" $default) -}}
{{- include "kube-issuer-gateway.layOver" (list $value $default) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "kube-issuer-gateway.withoutNull" -}}
{{- $map := . -}}
{{- range $key, $value := $map -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $map $key -}}
{{- else if kindIs "map" $value -}}
{{- include "kube-issuer-gateway.withoutNull" $value -}}
{{- end -}}
{{- end -}}
{{- end }}
