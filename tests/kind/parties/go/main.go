// A relying party with one of three Go modules, each with its default settings.
//
// Usage: relyingparty go-oidc|cap|keyfunc ISSUER AUDIENCE, tokens on standard input, one a line; for each a line `accepted SUBJECT
// KID` or `refused REASON`. It goes on running and keeps its keys, as a server does. The certificate authorities are those of
// SSL_CERT_FILE.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/coreos/go-oidc/v3/oidc"
	gojwt "github.com/golang-jwt/jwt/v5"
	"github.com/hashicorp/cap/jwt"
)

// verify returns the subject of a token, or why it is refused.
type verify func(token string) (string, error)

func goOIDC(ctx context.Context, issuer, audience string) (verify, error) {
	provider, err := oidc.NewProvider(ctx, issuer)
	if err != nil {
		return nil, err
	}
	verifier := provider.Verifier(&oidc.Config{ClientID: audience})
	return func(token string) (string, error) {
		verified, err := verifier.Verify(ctx, token)
		if err != nil {
			return "", err
		}
		return verified.Subject, nil
	}, nil
}

func hashicorpCap(ctx context.Context, issuer, audience string) (verify, error) {
	keys, err := jwt.NewOIDCDiscoveryKeySet(ctx, issuer, "")
	if err != nil {
		return nil, err
	}
	validator, err := jwt.NewValidator(keys)
	if err != nil {
		return nil, err
	}
	expected := jwt.Expected{Issuer: issuer, Audiences: []string{audience}, SigningAlgorithms: []jwt.Alg{jwt.RS256, jwt.ES256}}
	return func(token string) (string, error) {
		claims, err := validator.Validate(ctx, token, expected)
		if err != nil {
			return "", err
		}
		return fmt.Sprint(claims["sub"]), nil
	}, nil
}

func keyFunc(ctx context.Context, issuer, audience string) (verify, error) {
	// keyfunc wants the key set's address, which the discovery document has.
	response, err := http.Get(issuer + "/.well-known/openid-configuration")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var document struct {
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.NewDecoder(response.Body).Decode(&document); err != nil {
		return nil, err
	}
	keys, err := keyfunc.NewDefaultCtx(ctx, []string{document.JWKSURI})
	if err != nil {
		return nil, err
	}
	return func(token string) (string, error) {
		parsed, err := gojwt.Parse(token, keys.Keyfunc, gojwt.WithIssuer(issuer), gojwt.WithAudience(audience),
			gojwt.WithValidMethods([]string{"RS256", "ES256"}))
		if err != nil {
			return "", err
		}
		return parsed.Claims.GetSubject()
	}, nil
}

func kid(token string) string {
	parsed, _, err := gojwt.NewParser().ParseUnverified(token, gojwt.MapClaims{})
	if err != nil {
		return ""
	}
	return fmt.Sprint(parsed.Header["kid"])
}

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: relyingparty go-oidc|cap|keyfunc ISSUER AUDIENCE")
	}
	connect := map[string]func(context.Context, string, string) (verify, error){
		"go-oidc": goOIDC, "cap": hashicorpCap, "keyfunc": keyFunc,
	}[os.Args[1]]
	if connect == nil {
		log.Fatalf("there is no %q", os.Args[1])
	}
	var accepts verify
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		token := strings.TrimSpace(lines.Text())
		var err error
		if accepts == nil {
			accepts, err = connect(context.Background(), os.Args[2], os.Args[3])
		}
		var subject string
		if err == nil {
			subject, err = accepts(token)
		}
		if err != nil {
			fmt.Println("refused", strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		fmt.Println("accepted", subject, kid(token))
	}
}
