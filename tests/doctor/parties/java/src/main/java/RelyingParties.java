import com.auth0.jwk.JwkProviderBuilder;
import com.nimbusds.jose.JWSAlgorithm;
import com.nimbusds.jose.crypto.factories.DefaultJWSVerifierFactory;
import com.nimbusds.jose.jwk.source.JWKSourceBuilder;
import com.nimbusds.jose.proc.JWSVerificationKeySelector;
import com.nimbusds.jose.proc.SecurityContext;
import com.nimbusds.jwt.JWTClaimsSet;
import com.nimbusds.jwt.SignedJWT;
import com.nimbusds.jwt.proc.DefaultJWTClaimsVerifier;
import com.nimbusds.jwt.proc.DefaultJWTProcessor;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.Set;
import java.util.regex.Pattern;
import org.jose4j.jwa.AlgorithmConstraints;
import org.jose4j.jwk.HttpsJwks;
import org.jose4j.jwt.consumer.JwtConsumer;
import org.jose4j.jwt.consumer.JwtConsumerBuilder;
import org.jose4j.keys.resolvers.HttpsJwksVerificationKeyResolver;

/**
 * A relying party with one of three Java libraries and its default settings; Spring's is in tests/kind/parties/java.
 *
 * Usage: RelyingParties nimbus|jose4j|auth0-java ISSUER AUDIENCE, tokens on standard input, one a line; for each a line `accepted
 * SUBJECT` or `refused REASON`. The certificate authorities are those of javax.net.ssl.trustStore.
 */
class RelyingParties {
  interface Verifier {
    String subject(String token) throws Exception;
  }

  /** The address of the key set, which these libraries leave to their user. */
  static String keySet(String issuer) throws Exception {
    URI discovery = URI.create(issuer.replaceAll("/$", "") + "/.well-known/openid-configuration");
    HttpRequest request = HttpRequest.newBuilder(discovery).build();
    String document = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString()).body();
    var found = Pattern.compile("\"jwks_uri\": *\"([^\"]*)\"").matcher(document);
    if (!found.find()) {
      throw new Exception("no jwks_uri");
    }
    return found.group(1);
  }

  static Verifier nimbus(String issuer, String audience) throws Exception {
    var processor = new DefaultJWTProcessor<SecurityContext>();
    processor.setJWSKeySelector(
        new JWSVerificationKeySelector<>(
            Set.of(JWSAlgorithm.RS256, JWSAlgorithm.ES256), JWKSourceBuilder.create(URI.create(keySet(issuer)).toURL()).build()));
    processor.setJWTClaimsSetVerifier(
        new DefaultJWTClaimsVerifier<>(audience, new JWTClaimsSet.Builder().issuer(issuer).build(), Set.of("sub")));
    return token -> processor.process(token, null).getSubject();
  }

  static Verifier jose4j(String issuer, String audience) throws Exception {
    JwtConsumer consumer =
        new JwtConsumerBuilder()
            .setVerificationKeyResolver(new HttpsJwksVerificationKeyResolver(new HttpsJwks(keySet(issuer))))
            .setJwsAlgorithmConstraints(AlgorithmConstraints.ConstraintType.PERMIT, "RS256", "ES256")
            .setExpectedIssuer(issuer)
            .setExpectedAudience(audience)
            .build();
    return token -> consumer.processToClaims(token).getSubject();
  }

  static Verifier auth0(String issuer, String audience) throws Exception {
    var keys = new JwkProviderBuilder(URI.create(keySet(issuer)).toURL()).build();
    return token -> {
      SignedJWT jwt = SignedJWT.parse(token);
      var key = keys.get(jwt.getHeader().getKeyID()).getPublicKey();
      if (!jwt.verify(new DefaultJWSVerifierFactory().createJWSVerifier(jwt.getHeader(), key))) {
        throw new Exception("bad signature");
      }
      JWTClaimsSet claims = jwt.getJWTClaimsSet();
      if (!issuer.equals(claims.getIssuer()) || !claims.getAudience().contains(audience)) {
        throw new Exception("another issuer or audience");
      }
      return claims.getSubject();
    };
  }

  public static void main(String[] arguments) throws Exception {
    Verifier verifier = null;
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
    for (String token; (token = lines.readLine()) != null;) {
      try {
        if (verifier == null) {
          verifier =
              switch (arguments[0]) {
                case "nimbus" -> nimbus(arguments[1], arguments[2]);
                case "jose4j" -> jose4j(arguments[1], arguments[2]);
                case "auth0-java" -> auth0(arguments[1], arguments[2]);
                default -> throw new IllegalArgumentException(arguments[0]);
              };
        }
        System.out.println("accepted " + verifier.subject(token.trim()));
      } catch (Exception error) {
        System.out.println("refused " + String.valueOf(error).replace('\n', ' '));
      }
    }
  }
}
