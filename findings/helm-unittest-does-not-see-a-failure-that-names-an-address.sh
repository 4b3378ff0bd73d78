#!/usr/bin/env bash
# helm-unittest 1.1.2: where the sentence of a template's `fail` has two numbers between colons (an IPv6 address, a time) and later a
# colon and a space, `failedTemplate` says that no document failed, though the template did.
#
# It takes the template's name out of Helm's error by a regular expression that looks for NAME:LINE:COLUMN anywhere, so that the numbers in
# the sentence count as line and column, and the failure is filed under a template that does not exist. The test fails with "No failed
# document", which points to the chart; the same sentence without the numbers passes. An assertion that it does not fail is not fooled.
#
# Seen on 2026-11-27 (built with go 1.26.8; `go install` refuses a module with replace directives):
#
#   a sentence without numbers: seen
#   a sentence with an IPv6 address: not seen
#   a sentence with a time of day: not seen
#   the address without a colon after it: seen
#
# What follows for a chart's tests: try such a sentence by `helm template`, or leave the address out of the value under test.
set -euo pipefail
folder=$(mktemp -d)
trap 'chmod -R u+w "$folder"; rm -rf "$folder"' EXIT
cd "$folder"
source=$(go mod download -json github.com/helm-unittest/helm-unittest@v1.1.2 | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",$/\1/p')
cp -r "$source" untt
chmod -R u+w untt
(cd untt && GOFLAGS=-buildvcs=false go build -o ../helm-unittest ./cmd/helm-unittest)
mkdir -p chart/templates chart/tests
printf 'apiVersion: v2\nname: chart\nversion: 0.1.0\n' >chart/Chart.yaml
echo '{{- fail .Values.sentence }}' >chart/templates/object.yaml
seen() { # seen WHAT SENTENCE
  cat >chart/tests/failure_test.yaml <<END
suite: failure
templates: [object.yaml]
tests:
  - it: fails
    set: {sentence: "$2"}
    asserts:
      - failedTemplate: {errorPattern: "leave it|empty"}
END
  if ./helm-unittest chart >said 2>&1; then echo "$1: seen"; else grep -q 'No failed document' said && echo "$1: not seen"; fi
}
{
  seen 'a sentence without numbers' 'the address cannot be used: leave it empty'
  seen 'a sentence with an IPv6 address' 'the address 0:0:0:0:0:0:0:1 cannot be used: leave it empty'
  seen 'a sentence with a time of day' 'the time 12:30:10 cannot be used: leave it empty'
  seen 'the address without a colon after it' 'leave the address 0:0:0:0:0:0:0:1 empty'
} >out
cat out
diff out - <<'END'
a sentence without numbers: seen
a sentence with an IPv6 address: not seen
a sentence with a time of day: not seen
the address without a colon after it: seen
END
