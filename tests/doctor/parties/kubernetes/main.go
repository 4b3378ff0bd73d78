// kube-apiserver's authenticator, k8s.io/apiserver's plugin/pkg/authenticator/token/oidc, as kube-apiserver makes it from this file of
// --authentication-config:
//
//	apiVersion: apiserver.config.k8s.io/v1
//	kind: AuthenticationConfiguration
//	jwt:
//	- issuer: {url: ISSUER, audiences: [AUDIENCE]}
//	  claimMappings: {username: {claim: sub, prefix: ""}}
//
// Usage: kubernetes ISSUER AUDIENCE, tokens on standard input, one a line; for each a line `accepted SUBJECT` or `refused REASON`.
// The certificate authorities are those of SSL_CERT_FILE.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"
)

// It gives up a discovery document after 30 s.
const discoveryTimeout = 40 * time.Second

func connect(ctx context.Context, issuer, audience string) (oidc.AuthenticatorTokenWithHealthCheck, error) {
	noPrefix := ""
	authenticator, err := oidc.New(ctx, oidc.Options{
		JWTAuthenticator: apiserver.JWTAuthenticator{
			Issuer:        apiserver.Issuer{URL: issuer, Audiences: []string{audience}},
			ClaimMappings: apiserver.ClaimMappings{Username: apiserver.PrefixedClaimOrExpression{Claim: "sub", Prefix: &noPrefix}},
		},
		// With a file kube-apiserver allows all; --oidc-signing-algs is for a configuration by flags.
		SupportedSigningAlgs: oidc.AllValidSigningAlgorithms(),
	})
	if err != nil {
		return nil, err
	}
	// It reads the discovery document in the background, and again every 10 s where it failed: the first attempt counts here.
	for deadline := time.Now().Add(discoveryTimeout); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		err = authenticator.HealthCheck()
		if err == nil || !strings.Contains(err.Error(), "is not initialized") {
			break
		}
	}
	return authenticator, err
}

func authenticate(ctx context.Context, authenticator oidc.AuthenticatorTokenWithHealthCheck, token string) (string, error) {
	response, ok, err := authenticator.AuthenticateToken(ctx, token)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", errors.New("it is not a token of this issuer")
	}
	return response.User.GetName(), nil
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: kubernetes ISSUER AUDIENCE")
	}
	ctx := context.Background()
	authenticator, initial := connect(ctx, os.Args[1], os.Args[2])
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		subject, err := "", initial
		if err == nil {
			subject, err = authenticate(ctx, authenticator, strings.TrimSpace(lines.Text()))
		}
		if err != nil {
			fmt.Println("refused", strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		fmt.Println("accepted", subject)
	}
}
