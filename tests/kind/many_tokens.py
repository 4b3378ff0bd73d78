"""Tokens of the new key, one every tenth of a second, each verified with the key set of each gateway at that moment.

Usage: many_tokens.py WORK NAMESPACE AUDIENCE KID URL...: until there is a file WORK/whole. WORK has the cluster's CA and the
administrator's certificate. Prints how many there were; the exit code is 1 when one was refused.
"""

import http.client
import json
import pathlib
import ssl
import sys
import time
import urllib.request

import jwt

work, namespace, audience, kid, *urls = sys.argv[1:]
work = pathlib.Path(work)
tls = ssl.create_default_context(cafile=work / "ca.crt")
tls.load_cert_chain(work / "admin.pem")
request = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": [audience], "expirationSeconds": 600}})


def mint():
    connection = http.client.HTTPSConnection("127.0.0.1", 6443, context=tls, timeout=10)
    connection.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/workload/token", request, {"Content-Type": "application/json"})
    return json.load(connection.getresponse())["status"]["token"]


def refusal(token, url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        keys = jwt.PyJWKSet.from_dict(json.load(answer))
    try:
        jwt.decode(token, keys[jwt.get_unverified_header(token)["kid"]], algorithms=["RS256"], audience=audience)
    except (KeyError, jwt.PyJWTError) as error:
        return f"{type(error).__name__} {error}"


tokens, refused, due = 0, [], time.monotonic()
while not (work / "whole").exists():
    token = mint()
    if jwt.get_unverified_header(token)["kid"] != kid:
        sys.exit("a token of another key")
    tokens += 1
    refused += [(time.strftime("%X"), url, why) for url in urls if (why := refusal(token, url))]
    due += 0.1
    time.sleep(max(0, due - time.monotonic()))
print(f"{tokens} tokens, {len(refused)} refused", *refused[:3])
sys.exit(bool(refused))
