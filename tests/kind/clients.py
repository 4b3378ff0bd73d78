"""Clients of a gateway, until they are ended. Usage: clients.py steady|silent HOST:PORT

steady: ten requests a second, as relying parties and others send them: mostly for the key set, some with an ETag that they hold, now and then
one for another path and one that is malformed.
silent: ten connections a second, which send nothing and stay open.
"""

import contextlib
import http.client
import signal
import socket
import sys
import time

DISCOVERY, JWKS = "/.well-known/openid-configuration", "/openid/v1/jwks"


def steady(host, port):
    client, etag = http.client.HTTPConnection(host, port, timeout=5), ""
    for count in every_tenth_of_a_second():
        with contextlib.suppress(OSError, http.client.HTTPException):
            if count % 20 == 19:
                with socket.create_connection((host, port), 5) as malformed:
                    malformed.sendall(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n")
                    malformed.recv(1000)
                continue
            if count % 2:
                client.close()  # the next request has a new connection
            path = "/favicon.ico" if count % 20 == 9 else DISCOVERY if count % 3 == 0 else JWKS
            client.request("GET", path, headers={"If-None-Match": etag} if path == JWKS and count % 4 == 0 and etag else {})
            answer = client.getresponse()
            answer.read()
            if path == JWKS and answer.status == 200:
                etag = answer.headers["ETag"]
            continue
        client.close()


def silent(host, port):
    kept = []
    for _ in every_tenth_of_a_second():
        with contextlib.suppress(OSError):
            kept.append(socket.create_connection((host, port), 5))


def every_tenth_of_a_second():
    count, start = 0, time.monotonic()
    while True:
        yield count
        count += 1
        time.sleep(max(0, start + count / 10 - time.monotonic()))


if len(sys.argv) != 3 or sys.argv[1] not in ("steady", "silent"):
    sys.exit(__doc__)
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
host, port = sys.argv[2].rsplit(":", 1)
{"steady": steady, "silent": silent}[sys.argv[1]](host, int(port))
