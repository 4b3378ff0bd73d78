"""A relying party of the common kind, with PyJWT's PyJWKClient: discovery, then its jwks_uri, then the key of the token's kid.

Usage: relying_party.py ISSUER AUDIENCE, tokens on standard input, one a line; for each a line `accepted SUBJECT KID` or
`refused REASON`. It goes on running and keeps its keys, as a server does. PyJWKClient asks again for a kid that it does not
know, but not within 30 s of its last answer, or within COOLDOWN_SECONDS where that is set.
The certificate authorities are OpenSSL's (SSL_CERT_FILE).
"""

import json
import os
import sys
import urllib.request

import jwt

issuer, audience = sys.argv[1:]
keys = None


def discover():
    with urllib.request.urlopen(issuer + "/.well-known/openid-configuration", timeout=10) as answer:
        document = json.load(answer)
    if document["issuer"] != issuer:
        raise ValueError(f"the document is of the issuer {document['issuer']}")
    cooldown = os.environ.get("COOLDOWN_SECONDS")
    patience = {"cooldown_duration": float(cooldown)} if cooldown else {}
    return jwt.PyJWKClient(document["jwks_uri"], **patience)


for token in map(str.strip, sys.stdin):
    try:
        keys = keys or discover()
        key = keys.get_signing_key_from_jwt(token)
        # The algorithms are the relying party's own choice, never the token's (RFC 8725 §3.1).
        claims = jwt.decode(token, key, algorithms=["RS256", "ES256"], issuer=issuer, audience=audience)
        print("accepted", claims["sub"], key.key_id, flush=True)
    except (jwt.PyJWTError, OSError, ValueError) as error:
        print("refused", type(error).__name__, error, flush=True)
