package auth

import (
	"context"
	"errors"
	"net/http"
	"strings"
)

// TokenSource has a source of OAuth2 tokens stand in for the stored credential of one host. A
// golang.org/x/oauth2.TokenSource is such a source as it is, and T is its *oauth2.Token, which the
// compiler finds out:
//
//	Credentials: auth.Chain(auth.TokenSource("registry.example", source), auth.Docker())
//
// Each token is sent to that registry as it is (RFC 6750, 2.1), where the registry asks for a Bearer
// token. The source is asked for each request, from several goroutines at once, so it should keep a
// token for as long as that is valid, as oauth2.ReuseTokenSource does. Docker Hub's three names are one
// host.
//
// A source knows no context: one that asks a server is bounded by what it was made with. It is not asked
// once the request's context has ended.
//
// Errors: what source returns, on one line of bounded length; one for a token that is no Bearer token.
func TokenSource[T interface{ SetAuthHeader(*http.Request) }](host string, source interface{ Token() (T, error) }) CredentialFunc {
	return func(ctx context.Context, asked string) (Credential, error) {
		if plainHost(asked) != plainHost(host) {
			return Credential{}, nil
		}
		if err := ctx.Err(); err != nil {
			return Credential{}, err
		}
		token, err := source.Token()
		if err != nil {
			return Credential{}, &sourceError{err}
		}
		return bearerCredential(token)
	}
}

// bearerCredential finds out what a token is: the header that it sets is all that can be seen of it.
func bearerCredential(token interface{ SetAuthHeader(*http.Request) }) (Credential, error) {
	req := &http.Request{Header: make(http.Header)}
	token.SetAuthHeader(req)
	scheme, value, _ := strings.Cut(req.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, schemeBearer) || !isTokenValue(value) {
		return Credential{}, errors.New("the token source gave no Bearer token")
	}
	return Credential{AccessToken: value}, nil
}

// sourceError is the error of a token source, which may quote a whole web page.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return "the token source gave none: " + line(e.err.Error()) }

func (e *sourceError) Unwrap() error { return e.err }
