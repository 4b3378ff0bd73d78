// A relying party with jwx's jwk.Cache and its default settings; those with other Go modules are in tests/kind/parties/go.
//
// Usage: jwx ISSUER AUDIENCE, tokens on standard input, one a line; for each a line `accepted SUBJECT` or `refused REASON`.
// The certificate authorities are those of SSL_CERT_FILE.
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
	"time"

	"github.com/lestrrat-go/httprc/v3"
	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jwt"
)

func connect(ctx context.Context, issuer string) (jwk.Set, error) {
	// jwx wants the key set's address, which the discovery document has.
	response, err := http.Get(strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration")
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
	cache, err := jwk.NewCache(ctx, httprc.NewClient())
	if err != nil {
		return nil, err
	}
	// Register waits for the first key set, and without an end where it cannot be read.
	first, cancel := context.WithTimeout(ctx, 12*time.Second)
	defer cancel()
	if err := cache.Register(first, document.JWKSURI); err != nil {
		return nil, err
	}
	return cache.CachedSet(document.JWKSURI)
}

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: jwx ISSUER AUDIENCE")
	}
	var keys jwk.Set
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var err error
		if keys == nil {
			keys, err = connect(context.Background(), os.Args[1])
		}
		var token jwt.Token
		if err == nil {
			token, err = jwt.Parse([]byte(strings.TrimSpace(lines.Text())), jwt.WithKeySet(keys),
				jwt.WithIssuer(os.Args[1]), jwt.WithAudience(os.Args[2]))
		}
		if err != nil {
			fmt.Println("refused", strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		subject, _ := token.Subject()
		fmt.Println("accepted", subject)
	}
}
