# shellcheck shell=bash
# What the scripts of this folder share; sourced, never run. It works with bash 3.2 (macOS).
# It leaves the working directory at the repository's root: cluster.yaml has a path relative to it.
# shellcheck disable=SC2034 # the variables are for those who source it
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

cluster=kube-issuer-gateway
context=kind-$cluster
namespace=kube-issuer-gateway # of the gateway's service account, which has the same name, and of all in deploy.yaml
image=kube-issuer-gateway:kind # as it is called in the cluster
discovery_path=/.well-known/openid-configuration
jwks_path=/openid/v1/jwks

die() {
  echo "${0##*/}: $*" >&2
  exit 1
}

need() { # need PROGRAM...
  local program
  for program in "$@"; do
    command -v "$program" >/dev/null || die "$program is missing: install it, or put it on PATH"
  done
}

k() { kubectl --context "$context" "$@"; }

cluster_exists() { kind get clusters 2>/dev/null | grep -x "$cluster" >/dev/null; }

is_stand_in() { case $(kind version) in *stand-in*) ;; *) return 1 ;; esac } # for kind, on this machine

# $work: a folder of this run's own, gone at exit with every process that was put into $pids.
pids=""
work=$(mktemp -d)
clean_up() {
  local pid
  trap - EXIT
  for pid in $pids; do kill "$pid" 2>/dev/null || true; done
  for pid in $pids; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap clean_up EXIT

read_kubeconfig() { # sets $server, and writes the cluster's CA to $work/ca.crt
  local view=(config view --raw --minify)
  server=$(k "${view[@]}" -o jsonpath='{.clusters[0].cluster.server}' 2>/dev/null) ||
    die "the kubeconfig has no context $context: run 'make kind-up' first"
  k "${view[@]}" -o go-template='{{index (index .clusters 0).cluster "certificate-authority-data" | base64decode}}' >"$work/ca.crt"
}

anonymous() { # anonymous PATH: the status that the API server answers to a request without credentials
  curl -sS -o /dev/null -w '%{http_code}' --noproxy '*' --max-time 10 --cacert "$work/ca.crt" "$server$1"
}

mint() { # mint ACCOUNT [OPTION...]: a token that is valid for ten minutes, the least that Kubernetes gives
  local account=$1
  shift
  k -n "$namespace" create token "$account" --duration=10m "$@"
}

write_token() { # the gateway's; by rename, as the kubelet does it, so that nobody ever reads half a token
  (umask 077 && mint "$namespace" >"$work/token.new") && mv "$work/token.new" "$work/token"
}

renew_token() { # every four minutes until killed; while the API server is away, every fifteen seconds
  local pause=240
  trap 'kill "$!" 2>/dev/null; exit' TERM
  while sleep "$pause" & wait "$!"; do
    if write_token; then pause=240; else pause=15; fi
  done
}

prepare_gateway() { # all that can go wrong before it starts
  program=${GATEWAY:-${CARGO_TARGET_DIR:-target}/release/kube-issuer-gateway}
  [ -x "$program" ] || die "$program is missing: run 'cargo build --release --locked' first, or set GATEWAY"
  read_kubeconfig
  renew_token & # first, so that its trap is set long before anything can end this script
  pids="$pids $!"
  write_token || die "no token for the service account $namespace/$namespace: run 'make kind-up' first"
}

start_gateway() { # on this machine against the cluster's API server, in the background, with the token file $token; sets $gateway
  # A process group of its own: otherwise Ctrl-C would reach the gateway twice, from the terminal and from the caller's trap,
  # and a second signal ends it at once.
  set -m
  UPSTREAM_HOST=$server SA_TOKEN_PATH=${token:-$work/token} SA_CA_CERT_PATH=$work/ca.crt "$program" &
  gateway=$!
  set +m
  pids="$pids $gateway"
}

restricted_namespace() { # restricted_namespace NAME: made where it is missing; takes no pod that asks for more than `restricted`
  k create namespace "$1" --dry-run=client -o yaml | k apply -f -
  k label namespace "$1" pod-security.kubernetes.io/enforce=restricted pod-security.kubernetes.io/warn=restricted --overwrite
}

answers_at_node_port() { curl -sSf -o /dev/null --noproxy '*' --max-time 5 "http://127.0.0.1:30080$discovery_path" 2>/dev/null; }

expose() { # expose NAMESPACE: http://127.0.0.1:30080 leads to the gateway of this namespace, and to no other
  local service=kube-issuer-gateway-nodeport other
  for other in $(k get services -A --field-selector "metadata.name=$service" \
    -o jsonpath='{range .items[*]}{.metadata.namespace}{"\n"}{end}'); do
    [ "$other" != "$1" ] || continue
    k -n "$other" delete service "$service"
    for _ in $(seq 60); do # kube-proxy is told of it later: what answers then is the new one
      answers_at_node_port || break
      sleep 0.5
    done
  done
  sed "s/^  namespace: .*/  namespace: $1/" deploy/examples/nodeport.yaml | k apply -f -
  for _ in $(seq 60); do
    ! answers_at_node_port || { echo "http://127.0.0.1:30080$discovery_path answers" && return; }
    sleep 0.5
  done
  die "http://127.0.0.1:30080$discovery_path does not answer: 'make kind-logs' shows why"
}

find_helm() { # sets $helm: $HELM, or the one on PATH, or one that is built here and kept
  local tools=${CARGO_TARGET_DIR:-target}/kind
  case $tools in /*) ;; *) tools=$PWD/$tools ;; esac
  helm=$(command -v "${HELM:-helm}" || echo "$tools/helm")
  if ! [ -x "$helm" ]; then
    need go
    echo "helm is missing: go install, into ${tools#"$PWD"/} (some minutes, once)" >&2
    GOBIN=$tools go install helm.sh/helm/v3/cmd/helm@v3.22.0 >"$work/helm.log" 2>&1 ||
      die "go install helm failed, so install helm by hand: $(tail -1 "$work/helm.log")"
  fi
}
