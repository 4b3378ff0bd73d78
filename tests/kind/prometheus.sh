# shellcheck shell=bash
# What watch and dashboard share: a Prometheus on this machine. Sourced, never run; common.sh comes first.
# What it scrapes are the files in $work/targets, which may change while it runs. Debian's Prometheus cannot ask Kubernetes for pods.
# shellcheck disable=SC2034,SC2154 # some variables are for those who source it, and $work is set by common.sh
alerts=${ALERTS:-$PWD/charts/kube-issuer-gateway/files/alerts.yaml}
prometheus=${PROMETHEUS:-prometheus}
mkdir "$work/targets"

need_prometheus() {
  command -v "$prometheus" >/dev/null || die "$prometheus is missing: install Prometheus (Debian's package is prometheus), or set PROMETHEUS"
}

# start_prometheus PORT INTERVAL [RULES]: on 127.0.0.1, in the background, until the end of the script; sets $prometheus_pid and $url.
# It scrapes pods through the API server, as the kubeconfig's user, if $work/client.crt is there.
start_prometheus() {
  local rules='[]' tls=''
  [ -z "${3:-}" ] || rules="[$3]"
  [ ! -e "$work/client.crt" ] ||
    tls='tls_config: {ca_file: ca.crt, cert_file: client.crt, key_file: client.key}'
  url=http://127.0.0.1:$1
  cat >"$work/prometheus.yml" <<YAML
global: {scrape_interval: $2, scrape_timeout: $2, evaluation_interval: $2}
rule_files: $rules
scrape_configs:
  - job_name: kube-issuer-gateway
    $tls
    file_sd_configs: [{files: [targets/*.json]}]
YAML
  # A process group of its own: Ctrl-C reaches this script alone, which then ends it.
  set -m
  "$prometheus" --config.file="$work/prometheus.yml" --storage.tsdb.path="$work/data" --web.listen-address="127.0.0.1:$1" \
    --log.level=warn >"$work/prometheus.log" 2>&1 &
  prometheus_pid=$!
  set +m
  pids="$pids $prometheus_pid"
  for _ in $(seq 120); do
    kill -0 "$prometheus_pid" 2>/dev/null || die "Prometheus does not start: $(tail -n 1 "$work/prometheus.log")"
    ! curl -sSf -o /dev/null --noproxy '*' "$url/-/ready" 2>/dev/null || return 0
    sleep 0.25
  done
  die "Prometheus does not answer: $(tail -n 1 "$work/prometheus.log")"
}

target() { # target NAME ADDRESS: a gateway on this machine, scraped at ADDRESS from now on
  printf '[{"targets": ["%s"], "labels": {"instance": "%s"}}]\n' "$2" "$1" >"$work/$1.json"
  mv "$work/$1.json" "$work/targets/$1.json"
}
