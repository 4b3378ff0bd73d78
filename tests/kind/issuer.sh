# shellcheck shell=bash
# What verify and rotation share: the issuer, which is nginx with TLS in front of one or more gateways, and relying parties that reach it by
# its name. Sourced, never run.
#
# The issuer's name leads nowhere, and has no port in it, so nginx listens on port 443 of a loopback address of its own, and each
# relying party runs in a mount namespace with a hosts file of its own. Nothing of the machine's is changed; but it takes root
# (and Linux).
# shellcheck disable=SC2034 # the variables are for those who source it
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need kind kubectl openssl curl python3 node npm unshare
[ "$(id -u)" = 0 ] || die "must be root, for port 443 and a hosts file of the relying parties' own (try sudo -E)"
unshare --mount true || die "may not make a mount namespace (in a container: run it with CAP_SYS_ADMIN)"
cluster_exists || die "there is no cluster $cluster: run 'make kind-up' first"

host=issuer.example.test
issuer=https://$host
address=127.0.0.83 # nginx's: any of 127.0.0.0/8 would do, and 127.0.0.1 may be in use
audience=sts.example.test
passed=0
failed=0

check() { # check WHAT COMMAND...: it must succeed; what it prints is shown
  local what=$1 note
  shift
  if note=$("$@" 2>&1); then
    passed=$((passed + 1))
    echo "ok   $what${note:+: $note}"
  else
    failed=$((failed + 1))
    echo "FAIL $what: $note"
  fi
}

within() { # within SECONDS COMMAND...: tried until it succeeds; prints after how long it did, or what it said last
  local limit=$1 start=$EPOCHREALTIME note spent
  shift
  while :; do
    spent=$(((${EPOCHREALTIME/[.,]/} - ${start/[.,]/}) / 1000)) # as it was when the try began
    if note=$("$@" 2>&1); then
      printf 'after %d.%d s\n' $((spent / 1000)) $((spent / 100 % 10))
      return
    fi
    [ "$spent" -lt $((limit * 1000)) ] || break
    sleep 0.2
  done
  echo "not within $limit s: $note"
  return 1
}

install_clients() { # kept for the next run
  tools=${CARGO_TARGET_DIR:-target}/kind
  case $tools in /*) ;; *) tools=$PWD/$tools ;; esac
  mkdir -p "$tools"
  [ -x "$tools/venv/bin/pip" ] || python3 -m venv "$tools/venv" || die "python3 -m venv failed: on Debian, install python3-venv"
  "$tools/venv/bin/pip" install --quiet --disable-pip-version-check -r tests/kind/parties/requirements.txt || die "pip install failed"
  cp tests/kind/parties/{package.json,package-lock.json,relying_party.mjs} "$tools"
  npm ci --prefix "$tools" --prefer-offline --ignore-scripts --no-audit --no-fund --loglevel=error >"$work/npm.log" ||
    die "npm ci failed: $(cat "$work/npm.log")"
  if ! command -v nginx >/dev/null; then
    echo "nginx is missing: apt-get install nginx-light"
    command -v apt-get >/dev/null || die "nginx is missing, and there is no apt-get: install nginx, and run this again"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends nginx-light; } \
      >"$work/apt.log" 2>&1 || die "apt-get install nginx-light failed, so install nginx by hand: $(tail -1 "$work/apt.log")"
  fi
}

run_gateway() { # run_gateway NAME: until the end of the script; its address in the variable NAME, and its log in $work/NAME.log
  local log=$work/$1.log
  start_gateway 2>"$log"
  within 10 grep -q 'listening public=' "$log" >/dev/null || die "the gateway does not listen: $(cat "$log")"
  printf -v "$1" %s "$(sed -n 's/.*listening public=\([^ ]*\).*/\1/p' "$log")"
  within 30 curl -sSf --noproxy '*' "http://${!1}/readyz" >/dev/null || die "the gateway is not ready: $(cat "$log")"
}

start_nginx() { # start_nginx ADDRESS...: of the gateways, in turn; with a certificate of a CA of its own
  local gateways
  gateways=$(printf 'server %s; ' "$@")
  cat >"$work/openssl.cnf" <<CNF
[req]
distinguished_name = none
[none]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
subjectAltName = DNS:$host
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
CNF
  (
    cd "$work"
    request=(openssl req -config openssl.cnf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
    "${request[@]}" -x509 -extensions ca -subj "/CN=test CA" -days 2 -keyout tls-ca.key -out tls-ca.crt
    "${request[@]}" -subj "/CN=$host" -keyout tls.key -out tls.csr
    openssl x509 -req -in tls.csr -CA tls-ca.crt -CAkey tls-ca.key -CAcreateserial -days 2 -extfile openssl.cnf \
      -extensions server -out tls.crt
  ) 2>"$work/openssl.log" || die "openssl failed: $(cat "$work/openssl.log")"
  cat >"$work/nginx.conf" <<CONF
daemon off;
pid nginx.pid;
events {}
http {
  access_log off;
  upstream gateways { ${gateways}keepalive 8; }
  client_body_temp_path tmp/body;
  proxy_temp_path tmp/proxy;
  fastcgi_temp_path tmp/fastcgi;
  uwsgi_temp_path tmp/uwsgi;
  scgi_temp_path tmp/scgi;
  server {
    listen $address:443 ssl;
    server_name $host;
    ssl_certificate tls.crt;
    ssl_certificate_key tls.key;
    location / {
      proxy_pass http://gateways;
      proxy_http_version 1.1;
      proxy_set_header Host \$host;
      proxy_set_header Connection "";
    }
  }
}
CONF
  mkdir "$work/tmp"
  nginx -p "$work" -e stderr -c nginx.conf 2>"$work/nginx.log" &
  pids="$pids $!"
  within 10 curl -sS -o /dev/null --noproxy '*' --cacert "$work/tls-ca.crt" --resolve "$host:443:$address" "$issuer/livez" >/dev/null ||
    die "nginx does not answer: $(cat "$work/nginx.log")"
  printf '127.0.0.1 localhost\n%s %s\n' "$address" "$host" >"$work/hosts"
  export NO_PROXY=$host no_proxy=$host
}

outside() { # outside COMMAND...: where the issuer's name leads to nginx
  exec unshare --mount sh -ec 'mount --bind "$0" /etc/hosts; exec "$@"' "$work/hosts" "$@"
}

start_relying_party() { # start_relying_party NAME COMMAND...: it runs until the end, so that it has old keys to renew
  local name=$1 to from
  shift
  mkfifo "$work/to.$name" "$work/from.$name"
  outside "$@" "$issuer" "$audience" <"$work/to.$name" >"$work/from.$name" 2>"$work/$name.log" &
  pids="$pids $!"
  exec {to}>"$work/to.$name" {from}<"$work/from.$name"
  send[$name]=$to
  receive[$name]=$from
}

declare -A send receive

verdict() { # verdict NAME TOKEN: what the relying party NAME says of it
  local answer
  echo "$2" >&"${send[$1]}"
  read -rt 30 -u "${receive[$1]}" answer || answer="no answer: $(tail -1 "$work/$1.log")"
  echo "$answer"
}

part() { # part 0|1 TOKEN: its header or payload, decoded
  python3 -c 'import base64, sys; print(base64.urlsafe_b64decode(sys.argv[2].split(".")[int(sys.argv[1])] + "==").decode())' "$@"
}

kid() { part 0 "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["kid"])'; }

is_accepted() { # is_accepted ANSWER KID: whether a relying party accepted the workload's token of this key; prints the answer
  echo "$1"
  [ "$1" = "accepted system:serviceaccount:$namespace:workload $2" ]
}

accepts() { # accepts NAME TOKEN KID
  is_accepted "$(verdict "$1" "$2")" "$3"
}

signs_anew() { # signs_anew KID: whether the API server signs with another key; leaves its token in a file
  mint workload --audience "$audience" >"$work/new" && [ "$(kid "$(cat "$work/new")")" != "$1" ]
}

