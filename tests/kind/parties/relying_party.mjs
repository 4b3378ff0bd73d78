// A relying party with one of three npm packages, each with its default settings.
//
// Usage: node relying_party.mjs jose|openid-client|jwks-rsa ISSUER AUDIENCE, tokens on standard input, one a line; for each a line
// `accepted SUBJECT KID` or `refused REASON`. It goes on running and keeps its keys, as a server does. jose asks again for a kid
// that it does not know, but not within 30 s of its last answer, or within COOLDOWN_SECONDS where that is set.
// The certificate authorities are Node's own and those of NODE_EXTRA_CA_CERTS.
import { createInterface } from "node:readline";
import { createRemoteJWKSet, decodeProtectedHeader, jwtVerify } from "jose";
import jwt from "jsonwebtoken";
import jwksRsa from "jwks-rsa";
import * as oauth from "oauth4webapi";
import { discovery } from "openid-client";

// The relying party's own choice, never the token's (RFC 8725 §3.1).
const algorithms = ["RS256", "ES256"];

// Each returns a function from a token to its subject, which throws for a token that is refused.
const parties = {
  async jose(issuer, audience, { jwks_uri }) {
    const cooldown = process.env.COOLDOWN_SECONDS;
    const keys = createRemoteJWKSet(new URL(jwks_uri), cooldown ? { cooldownDuration: 1000 * cooldown } : {});
    return async (token) => (await jwtVerify(token, keys, { issuer, audience, algorithms })).payload.sub;
  },

  // By oauth4webapi, on which openid-client stands: the token as the ID token of a token endpoint's answer.
  async "openid-client"(issuer, audience, server) {
    return async (token) => {
      const answer = Response.json({ access_token: "-", token_type: "bearer", id_token: token });
      const client = { client_id: audience };
      const tokens = await oauth.processGenericTokenEndpointResponse(server, client, answer);
      await oauth.validateApplicationLevelSignature(server, answer);
      return oauth.getValidatedIdTokenClaims(tokens).sub;
    };
  },

  async "jwks-rsa"(issuer, audience, { jwks_uri }) {
    const client = jwksRsa({ jwksUri: jwks_uri });
    return async (token) => {
      const key = await client.getSigningKey(decodeProtectedHeader(token).kid);
      return jwt.verify(token, key.getPublicKey(), { issuer, audience, algorithms }).sub;
    };
  },
};

const [party, issuer, audience] = process.argv.slice(2);
let verify;

for await (const line of createInterface({ input: process.stdin })) {
  const token = line.trim();
  try {
    // It fetches {issuer}/.well-known/openid-configuration and refuses a document of another issuer.
    verify ??= await parties[party](issuer, audience, (await discovery(new URL(issuer), audience)).serverMetadata());
    console.log("accepted", await verify(token), decodeProtectedHeader(token).kid);
  } catch (error) {
    console.log("refused", error.code ?? error.name, String(error.message).replaceAll("\n", " "), error.cause?.code ?? "");
  }
}
