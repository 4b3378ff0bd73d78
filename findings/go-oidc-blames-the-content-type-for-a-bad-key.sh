#!/usr/bin/env bash
# go-oidc 3.21.0: one key that cannot be decoded makes the whole key set unusable, and if the set came as application/jwk-set+json, the error
# begins with a Content-Type that was expected, which is not what is wrong.
#
# application/jwk-set+json is the registered type of a key set (RFC 7517, section 8.5.2), and the one that kube-apiserver sends. go-oidc takes
# it while each key can be decoded. Once one cannot (here a point that is not on its curve), whoever believes the error changes the
# Content-Type, in vain: as application/json the same set is refused too.
#
# Seen on 2026-11-28 (what follows in the errors is the whole set):
#
#   good, application/json: <nil>
#   good, application/jwk-set+json: <nil>
#   good and bad, application/json: fetching keys oidc: failed to decode keys: got Content-Type = application/json, but could not unmarshal as JSON: go-jose/go-jose: invalid EC key, X/Y are not on declared curve
#   good and bad, application/jwk-set+json: fetching keys oidc: failed to decode keys: expected Content-Type = application/json, got "application/jwk-set+json": go-jose/go-jose: invalid EC key, X/Y are not on declared curve
#
# What follows for whoever publishes keys: check each one; the good ones beside a bad one are lost too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >go.mod <<'END'
module finding

go 1.24

require github.com/coreos/go-oidc/v3 v3.21.0

require github.com/go-jose/go-jose/v4 v4.1.4
END
cat >main.go <<'END'
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

func main() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "good"}}, nil)
	if err != nil {
		panic(err)
	}
	signed, err := signer.Sign([]byte("payload"))
	if err != nil {
		panic(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		panic(err)
	}
	public := jose.JSONWebKey{Key: key.Public(), KeyID: "good"}
	good, err := public.MarshalJSON()
	if err != nil {
		panic(err)
	}
	// An EC key whose point is not on the curve.
	bad := `{"kty":"EC","kid":"bad","crv":"P-256","x":"` + strings.Repeat("A", 42) + `E","y":"` + strings.Repeat("A", 42) + `E"}`
	for _, set := range []struct{ name, keys string }{{"good", string(good)}, {"good and bad", string(good) + "," + bad}} {
		for _, contentType := range []string{"application/json", "application/jwk-set+json"} {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", contentType)
				fmt.Fprintf(w, `{"keys":[%s]}`, set.keys)
			}))
			_, err := oidc.NewRemoteKeySet(context.Background(), server.URL).VerifySignature(context.Background(), token)
			answer, _, _ := strings.Cut(fmt.Sprint(err), " {") // what follows is the whole set
			fmt.Printf("%s, %s: %s\n", set.name, contentType, answer)
			server.Close()
		}
	}
}
END
export GOFLAGS=-mod=mod
printed=$(go run . 2>go.log) || { cat go.log >&2; exit 1; }
echo "$printed"
expected='good, application/json: <nil>
good, application/jwk-set+json: <nil>
good and bad, application/json: fetching keys oidc: failed to decode keys: got Content-Type = application/json, but could not unmarshal as JSON: go-jose/go-jose: invalid EC key, X/Y are not on declared curve
good and bad, application/jwk-set+json: fetching keys oidc: failed to decode keys: expected Content-Type = application/json, got "application/jwk-set+json": go-jose/go-jose: invalid EC key, X/Y are not on declared curve'
[ "$printed" = "$expected" ]
