// Serves one file with given headers, as a Go program would: usage: server ADDRESS FILE HEADERS.json
package main

import (
	"encoding/json"
	"log"
	"net/http"
	"os"
)

func main() {
	body, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	text, err := os.ReadFile(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	headers := map[string]string{}
	if err := json.Unmarshal(text, &headers); err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("GET /openid/v1/jwks", func(w http.ResponseWriter, r *http.Request) {
		for name, value := range headers {
			w.Header().Set(name, value)
		}
		w.Write(body)
	})
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
