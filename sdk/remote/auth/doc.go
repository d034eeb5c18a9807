// Package auth is an [http.RoundTripper] for OCI registries: it answers their challenges, gets and
// keeps the tokens that they ask for, and finds the credentials for it.
//
// It stands alone: put a [Transport] into any [http.Client] and speak the distribution API through
// it. The zero Transport is anonymous, which public registries ask for a token all the same.
//
// # Challenges
//
// A registry that wants authentication answers 401 with one or more challenges (RFC 9110, 11.6.1).
// Bearer is preferred to Basic, whatever their order; of others none is answered, and the 401 is the
// response. What a host demanded is remembered, so that later requests are authorised before they
// are sent. A password is sent to a registry only after that has asked for Basic.
//
// A 401 to a token that was kept from earlier gets a new token and sends the request again, once, if
// it has no body or one that GetBody returns anew. A 401 to a token that is new is the response:
// the credential has not the right, and the body says what the registry thinks of it.
//
// # Tokens
//
// A token is asked for by what one request needs, and no more: the scopes of [WithScopes], and what
// the registry's challenge adds for the same repository. Requests without scopes get those that
// the challenge names. A token serves all requests whose scopes it covers, until a margin
// before its end; one that does not say when it ends is taken to last 60 seconds. Of requests that
// need the same token at the same time, one gets it.
//
// With a user name and password, and with no credential, tokens are had by GET (distribution's
// "Token Authentication Specification"); with an identity token by POST (its "OAuth2 Token
// Authentication"), or by GET where the server turns out to take only that.
//
// # Where credentials go
//
// The credential of a host goes to that host, and to the realm that the host names for its tokens:
//
//   - A realm is https, or on this machine, or the registry's own address.
//   - A realm at a private, link-local or loopback address is refused, unless the registry is itself at
//     one. Names are not resolved: a name that resolves to a private address is not noticed. A
//     dialer below can see to that; see net.Dialer.Control.
//   - [Transport.AllowRealm] can allow what these rules refuse.
//   - A token server's redirect to another host is not followed.
//
// A redirect that leaves the registry is followed by http.Client without authorisation, to the end,
// and what challenges it meets are not answered.
//
// # Errors
//
// A token that cannot be had is an [*Error], which matches [berth.ErrUnauthorized] or
// [berth.ErrDenied] with errors.Is. No error, and no Credential that is printed, shows a secret.
//
// # Example
//
//	client := &http.Client{Transport: &auth.Transport{Credentials: auth.Docker(), UserAgent: "tool/1.0"}}
//	ctx := auth.WithScopes(ctx, auth.Repository("library/alpine", "pull"))
//	req, err := http.NewRequestWithContext(ctx, "GET", "https://registry-1.docker.io/v2/library/alpine/manifests/latest", nil)
//	resp, err := client.Do(req)
package auth
