// Package auth is an [http.RoundTripper] for OCI registries: it answers their challenges, gets and
// keeps the tokens that they ask for, and finds the credentials for it.
//
// It stands alone: put a [Transport] into any [http.Client] and speak the distribution API through
// it. The zero Transport is anonymous, which public registries ask for a token all the same.
//
// # Challenges
//
// A registry that wants authentication answers 401 with one or more challenges (RFC 9110, 11.6.1).
// Bearer is preferred to Basic, whatever their order, and of several the first one that can be
// answered is; where that is none, the 401 is the response. What a host demanded is remembered, so
// that later requests are authorised before they are sent; of those that come first, one goes ahead to hear
// it, for a second at most. A password is sent to a registry only after
// that has asked for Basic.
//
// A 401 to a token that was kept from earlier gets a new token and sends the request again, once, if
// it has no body or one that GetBody returns anew. A 401 to a token that is new is the response:
// the credential has not the right, and the body says what the registry thinks of it. [WithTrace]
// tells these apart.
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
// Authentication"), or by GET where the server turns out to take only that. Where the server gives
// another identity token with the answer, that one is used from then on, by this Transport; what is
// stored is not changed.
//
// # Where credentials go
//
// The credential of a host goes to that host, and to the realm that the host names for its tokens:
//
//   - A realm is https, or on this machine, or the registry's own address.
//   - A realm at an address that means something else on each network is refused, unless the registry
//     is at such an address too, or has the same host; one on this machine, unless the registry is on
//     it; one at a link-local address always.
//   - That is judged by the address as it is written and, with [GuardDial] in the transport below, by
//     what its name resolves to when it is connected to. A registry is where it was connected to.
//     What a proxy connects to, and a connection that is open already, are not looked at.
//   - [Transport.AllowRealm] can allow what these rules refuse.
//   - A token server's redirect to another host is not followed.
//
// A redirect that leaves the registry is followed by http.Client without authorisation, to the end,
// and what challenges it meets are not answered.
//
// # Errors
//
// A token that cannot be had is an [*Error], which matches [berth.ErrUnauthorized] or
// [berth.ErrDenied] with errors.Is. No error, and no Credential that is printed, shows a secret; a
// registry's refusal that repeats one comes without it.
//
// # Example
//
//	client := &http.Client{Transport: &auth.Transport{Credentials: auth.Docker(), UserAgent: "tool/1.0"}}
//	ctx := auth.WithScopes(ctx, auth.Repository("library/alpine", "pull"))
//	req, err := http.NewRequestWithContext(ctx, "GET", "https://registry-1.docker.io/v2/library/alpine/manifests/latest", nil)
//	resp, err := client.Do(req)
package auth
