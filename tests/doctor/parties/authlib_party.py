"""A relying party with Authlib's Flask client and its default settings.

Usage: authlib_party.py ISSUER AUDIENCE, tokens on standard input, one a line; for each a line `accepted SUBJECT` or `refused REASON`.
The certificate authorities are those of REQUESTS_CA_BUNDLE.
"""

import sys

from authlib.integrations.flask_client import OAuth
from flask import Flask

issuer, audience = sys.argv[1:]
app = Flask(__name__)
discovery = issuer.rstrip("/") + "/.well-known/openid-configuration"
client = OAuth(app).register("it", client_id=audience, client_secret="-", server_metadata_url=discovery)

for token in map(str.strip, sys.stdin):
    try:
        with app.test_request_context():
            # An access token beside: else a nonce is required. By default any issuer is accepted that the document has.
            answer = {"id_token": token, "access_token": "-"}
            claims = client.parse_id_token(answer, nonce=None, claims_options={"iss": {"values": [issuer]}})
        print("accepted", claims["sub"], flush=True)
    except Exception as error:  # pylint: disable=broad-except
        print("refused", type(error).__name__, str(error).replace("\n", " "), flush=True)
