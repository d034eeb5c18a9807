package auth

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
)

// tokenUser is the user name that stands for "the password is an identity token" in Docker's
// credential helper protocol.
const tokenUser = "<token>"

// Credential is what a registry or its token server is given. The zero Credential is anonymous.
// It does not show its secrets when it is printed, logged or encoded as JSON.
type Credential struct {
	// Username and Password are for Basic authentication, with the registry or its token server.
	// The user name "<token>" makes Password an identity token.
	Username string
	Password string `json:"-"`
	// IdentityToken is exchanged for access tokens by OAuth2 (RFC 6749, 6: a refresh token). It
	// takes precedence over Password where a token is asked for.
	IdentityToken string `json:"-"`
	// AccessToken is given to the registry as it is (RFC 6750), where that asks for a Bearer
	// token. It takes precedence over all others.
	AccessToken string `json:"-"`
}

// String says what kind of credential it is, and whose: "anonymous", "alice", "identity token",
// "identity token of alice", "access token", "password without user name". It is one line of bounded
// length, whatever the user is called.
func (c Credential) String() string {
	switch {
	case c == Credential{}:
		return "anonymous"
	case c.AccessToken != "":
		return "access token"
	case c.Username == tokenUser, c.Username == "" && c.IdentityToken != "":
		return "identity token"
	case c.IdentityToken != "":
		return "identity token of " + line(c.Username)
	case c.Username == "":
		return "password without user name"
	}
	return line(c.Username)
}

// Format writes String for every verb, also for those that would show the fields.
func (c Credential) Format(f fmt.State, verb rune) {
	text := c.String()
	switch {
	case verb == 'q':
		text = strconv.Quote(text)
	case verb == 'v' && f.Flag('#'):
		text = "auth.Credential(" + text + ")"
	}
	io.WriteString(f, text)
}

// LogValue is String, for log/slog.
func (c Credential) LogValue() slog.Value { return slog.StringValue(c.String()) }

// resolved returns c with an identity token where the user name says that the password is one.
func (c Credential) resolved() Credential {
	if c.Username != tokenUser {
		return c
	}
	if c.IdentityToken == "" {
		c.IdentityToken = c.Password
	}
	c.Username, c.Password = "", ""
	return c
}

// basic returns what a token server that takes Basic authentication is given: the password, or an
// identity token in its place.
func (c Credential) basic() (username, password string) {
	if c.Password != "" || c.IdentityToken == "" {
		return c.Username, c.Password
	}
	if c.Username == "" {
		return tokenUser, c.IdentityToken
	}
	return c.Username, c.IdentityToken
}

// CredentialFunc returns the credential for a host, "registry.example:5000", in lower case. None
// stored is the zero Credential and no error; an error fails the request that the credential is for.
//
// A [Transport] asks when a host has sent a challenge and no cached token answers it: for each token,
// and with Basic for each request. So a function that is slow keeps its results, and one
// that returns access tokens of its own returns a valid one each time; [TokenSource] makes one of a
// source of OAuth2 tokens.
//
// The context has the scopes that the credential will be used for: see [Scopes]. Calls may run at once.
type CredentialFunc func(ctx context.Context, host string) (Credential, error)

// Static returns c for one host, and nothing for any other. Docker Hub's three names are one host.
func Static(host string, c Credential) CredentialFunc {
	return func(_ context.Context, asked string) (Credential, error) {
		if plainHost(asked) == plainHost(host) {
			return c, nil
		}
		return Credential{}, nil
	}
}

// Chain returns what the first of fs has that has any. An error ends the search, for a credential
// that cannot be read must not be replaced by another's.
func Chain(fs ...CredentialFunc) CredentialFunc {
	return func(ctx context.Context, host string) (Credential, error) {
		for _, f := range fs {
			c, err := f(ctx, host)
			if err != nil || c != (Credential{}) {
				return c, err
			}
		}
		return Credential{}, nil
	}
}

// Docker Hub serves its API under one name, is called by another, and has a third for its index;
// its credential is stored under the address that the index had first.
const (
	hubHost = "docker.io"
	hubKey  = "https://index.docker.io/v1/"
)

// plainHost returns host in lower case, with one name for Docker Hub.
func plainHost(host string) string {
	host = strings.ToLower(host)
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		return hubHost
	}
	return host
}
