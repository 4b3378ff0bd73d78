#!/usr/bin/env bash
# Debian 12's package prometheus 2.42.0+ds: the program and promtool do not know kubernetes_sd_configs. A configuration that another
# build takes (promtool of 3.5.0 does) is refused as a spelling mistake, and nothing says that this build was made without it.
#
# Seen on 2026-11-27:
#
#   kubernetes_sd_configs: field kubernetes_sd_configs not found in type config.ScrapeConfig
#   file_sd_configs: SUCCESS
#
# What follows: outside a cluster, write the pods into a file for file_sd_configs, or use another build.
# Needs apt-get with Debian 12's package lists.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
chmod 755 .
apt-get download -q prometheus=2.42.0+ds-5+deb12u1 >/dev/null 2>&1
dpkg -x prometheus_*.deb .
check() { # check DISCOVERY
  printf 'scrape_configs:\n  - job_name: a\n    %s\n' "$1" >config.yml
  usr/bin/promtool check config config.yml 2>&1 || true
}
kubernetes=$(check 'kubernetes_sd_configs: [{role: pod}]')
file=$(check 'file_sd_configs: [{files: [pods.json]}]')
echo "kubernetes_sd_configs: $(grep -o 'field .*' <<<"$kubernetes")"
echo "file_sd_configs: $(grep -o SUCCESS <<<"$file")"
grep -q 'field kubernetes_sd_configs not found in type config.ScrapeConfig' <<<"$kubernetes"
