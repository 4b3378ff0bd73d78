// A relying party with npm's openid-client (discovery) and jose (keys and tokens), both by panva and made for each other.
//
// Usage: node relying_party.mjs ISSUER AUDIENCE, tokens on standard input, one a line; for each a line `accepted SUBJECT KID`
// or `refused REASON`. It goes on running and keeps its keys, as a server does; jose asks again for a kid it does not know, but
// by default not within 30 s of its last answer, and here not within one second, as the test has no patience.
// The certificate authorities are Node's own and those of NODE_EXTRA_CA_CERTS.
import { createInterface } from "node:readline";
import { createRemoteJWKSet, jwtVerify } from "jose";
import { discovery } from "openid-client";

const [issuer, audience] = process.argv.slice(2);
let keys;

async function discover() {
  // It fetches {issuer}/.well-known/openid-configuration and refuses a document of another issuer.
  const { jwks_uri } = (await discovery(new URL(issuer), "relying-party")).serverMetadata();
  return createRemoteJWKSet(new URL(jwks_uri), { cooldownDuration: 1000 });
}

for await (const token of createInterface({ input: process.stdin })) {
  try {
    keys ??= await discover();
    // The algorithms are the relying party's own choice, never the token's (RFC 8725 §3.1).
    const { payload, protectedHeader } = await jwtVerify(token, keys, { issuer, audience, algorithms: ["RS256", "ES256"] });
    console.log("accepted", payload.sub, protectedHeader.kid);
  } catch (error) {
    console.log("refused", error.code ?? error.name, error.message);
  }
}
