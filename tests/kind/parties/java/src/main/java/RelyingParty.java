import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.List;
import org.springframework.security.oauth2.core.DelegatingOAuth2TokenValidator;
import org.springframework.security.oauth2.jwt.Jwt;
import org.springframework.security.oauth2.jwt.JwtClaimValidator;
import org.springframework.security.oauth2.jwt.JwtValidators;
import org.springframework.security.oauth2.jwt.NimbusJwtDecoder;

/**
 * A relying party with Spring Security's NimbusJwtDecoder and its default settings.
 *
 * Usage: RelyingParty ISSUER AUDIENCE, tokens on standard input, one a line; for each a line `accepted SUBJECT KID` or `refused
 * REASON`. It goes on running and keeps its keys, as a server does. The certificate authorities are those of
 * javax.net.ssl.trustStore.
 */
class RelyingParty {
  public static void main(String[] arguments) throws Exception {
    String issuer = arguments[0];
    String audience = arguments[1];
    NimbusJwtDecoder decoder = null;
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
    for (String token; (token = lines.readLine()) != null;) {
      try {
        if (decoder == null) {
          decoder = NimbusJwtDecoder.withIssuerLocation(issuer).build();
          decoder.setJwtValidator(
              new DelegatingOAuth2TokenValidator<>(
                  JwtValidators.createDefaultWithIssuer(issuer),
                  new JwtClaimValidator<List<String>>("aud", it -> it != null && it.contains(audience))));
        }
        Jwt jwt = decoder.decode(token.trim());
        System.out.println("accepted " + jwt.getSubject() + " " + jwt.getHeaders().get("kid"));
      } catch (RuntimeException error) {
        System.out.println("refused " + String.valueOf(error.getMessage()).replace('\n', ' '));
      }
    }
  }
}
