// A relying party with aws-jwt-verify and its default settings; those with other npm packages are in tests/kind/parties.
//
// Usage: node aws_jwt_verify.mjs ISSUER AUDIENCE, tokens on standard input, one a line; for each a line `accepted SUBJECT` or
// `refused REASON`. The certificate authorities are Node's own and those of NODE_EXTRA_CA_CERTS.
import { createInterface } from "node:readline";
import { JwtVerifier } from "aws-jwt-verify";

const [issuer, audience] = process.argv.slice(2);
let verifier;

for await (const line of createInterface({ input: process.stdin })) {
  try {
    if (!verifier) {
      // It wants the key set's address, which the discovery document has.
      const answer = await fetch(`${issuer.replace(/\/$/, "")}/.well-known/openid-configuration`);
      verifier = JwtVerifier.create({ issuer, audience, jwksUri: (await answer.json()).jwks_uri });
    }
    console.log("accepted", (await verifier.verify(line.trim())).sub);
  } catch (error) {
    console.log("refused", error.name, String(error.message).replaceAll("\n", " "));
  }
}
