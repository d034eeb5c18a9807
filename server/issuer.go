package server

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/berthoci/berth"
)

const (
	// TokenPath is where an [Issuer] gives its tokens, beside the API.
	TokenPath = "/token"

	// tokenService is what a registry with an issuer of its own calls itself, and who its tokens are
	// from and for. It need not be unique: each issuer has its own key.
	tokenService = "berth"
	// tokenLife is how long a token is good. What begins in time may last longer.
	tokenLife = 15 * time.Minute
	// tokenLeeway is by how much the clock may be set back or forth meanwhile.
	tokenLeeway = 10 * time.Second
	// maxToken bounds a token that is looked at, in bytes: one for maxScopes scopes fits.
	maxToken = 64 << 10
	// tokenKeySize is that of the key, in bytes: as many as the hash has (RFC 7518, 3.2).
	tokenKeySize = 32
)

// Issuer is an [Authorizer] that gives the tokens itself that it asks for, by [Rules] (distribution's
// "Token Authentication Specification"). A client that has none is sent to [TokenPath] on the server that
// it spoke to, by the name that it used. There it shows user name and password, or nothing if it wants to
// be anonymous, says what it is about to do, and gets a token for what of it the rules allow.
//
//	rules, err := server.ParseRules(accessFile)
//	users, err := server.Htpasswd(passwordFile)
//	issuer, err := server.NewIssuer(rules, users)
//	handler := server.New(registry, &server.Options{Authorizer: issuer})
//
// Nothing is answered without a token, not even /v2/, because that is where clients find out that they need
// one. What a token is not good for is answered with 401, "insufficient_scope", as long as another one
// would be, for somebody who logs in perhaps, and with 403 where the rules do not allow it to the user at
// all (RFC 6750, 3.1).
//
// A token is a JWT (RFC 7519), signed with a key that is made with the issuer and never leaves it: with
// the process all tokens end, and clients get new ones by themselves. It says who it is for and what for.
// It is good for fifteen minutes. There are no refresh tokens: they would end with the process, too, and
// a client that had stored one in place of the password would have to log in anew.
//
// All methods may run at once.
type Issuer struct {
	rules Rules
	users Users
	key   []byte
	now   func() time.Time
}

// NewIssuer returns an issuer with a new key. Without users, nil, there is nobody but anonymous clients.
//
// Errors are those of [Rules.Validate].
func NewIssuer(rules Rules, users Users) (*Issuer, error) {
	if err := rules.Validate(); err != nil {
		return nil, err
	}
	i := &Issuer{rules: slices.Clone(rules), users: users, key: make([]byte, tokenKeySize), now: time.Now}
	_, err := rand.Read(i.key)
	return i, err
}

// claims are what a token says ("Docker Registry v2 Bearer token specification").
type claims struct {
	jwt.Claims
	Access []scope `json:"access"`
}

// allows reports whether a token lets a request through. Any token is good for a knock at /v2/.
func (c *claims) allows(access Access) bool {
	return access.Action == "" || slices.ContainsFunc(c.Access, func(s scope) bool { return s.allows(access) })
}

// Authorize looks at the token that a request shows, and at nothing else: passwords are for [TokenPath].
func (i *Issuer) Authorize(r *http.Request, access Access) error {
	token, err := i.shown(r)
	switch {
	case err != nil:
		return err
	case token.allows(access):
		return nil
	case i.rules.permit(token.Subject, access):
		return &codedError{"insufficient_scope", fmt.Errorf("%w: the token that was shown is not for %s", berth.ErrUnauthorized, access)}
	case token.Subject == anonymous:
		return &codedError{"insufficient_scope", fmt.Errorf("%w: log in for %s", berth.ErrUnauthorized, access)}
	}
	return fmt.Errorf("%w: user %.100q may not %s", berth.ErrDenied, token.Subject, access)
}

// permit reports whether the rules allow a user what a request asks for.
func (rs Rules) permit(user string, access Access) bool {
	if access.Action == "catalog" {
		return rs.allowCatalog(user)
	}
	return rs.allow(user, access.Repository, access.Action)
}

// String is what is asked for, as an error tells it: "push to app/hello".
func (a Access) String() string {
	switch a.Action {
	case "":
		return "this"
	case "catalog":
		return "list the repositories"
	case "push":
		return "push to " + a.Repository
	case "delete":
		return "delete in " + a.Repository
	}
	return a.Action + " from " + a.Repository
}

// Challenge sends a client to [TokenPath], for a token with the scope that the request needs. If it has
// shown one, it is told what was wrong with that (RFC 6750, 3).
func (i *Issuer) Challenge(r *http.Request, access Access, reason error) string {
	params := []string{"realm=" + quote(address(r)+TokenPath), "service=" + quote(tokenService)}
	if scope := access.scope(); scope != "" {
		params = append(params, "scope="+quote(scope))
	}
	var coded *codedError
	if errors.As(reason, &coded) {
		params = append(params, "error="+quote(coded.code))
	}
	return "Bearer " + strings.Join(params, ",")
}

// AuthorizeClass allows the classes of the rules by which the token's user may push to the repository.
func (i *Issuer) AuthorizeClass(r *http.Request, repository, class string) error {
	token, err := i.shown(r)
	if err != nil {
		return err
	}
	patterns, any := i.rules.classes(token.Subject, repository)
	if any || matchesClass(patterns, class) {
		return nil
	}
	return fmt.Errorf("%w: manifests of class %.200q may not be pushed to %s by this user; allowed are %s", berth.ErrDenied, class, repository, list(patterns))
}

// shown reads the token of a request.
func (i *Issuer) shown(r *http.Request) (*claims, error) {
	text, ok := bearer(r)
	if !ok {
		return nil, fmt.Errorf("%w: a token is needed, which %s gives", berth.ErrUnauthorized, TokenPath)
	}
	token, err := i.verify(text)
	if err != nil {
		return nil, &codedError{"invalid_token", fmt.Errorf("%w: the token is not good, or not any more; get another", berth.ErrUnauthorized)}
	}
	return token, nil
}

// verify believes what this issuer has signed, in the one way that it signs, and as long as it is good. The
// error is not for clients: who shows a token that is not good has no claim to know why.
func (i *Issuer) verify(text string) (*claims, error) {
	if len(text) > maxToken {
		return nil, errors.New("too large")
	}
	parsed, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{jose.HS256})
	if err != nil {
		return nil, err
	}
	var token claims
	if err := parsed.Claims(i.key, &token); err != nil {
		return nil, err
	}
	if token.Expiry == nil {
		return nil, jwt.ErrExpired
	}
	expected := jwt.Expected{Issuer: tokenService, AnyAudience: jwt.Audience{tokenService}, Time: i.now()}
	return &token, token.ValidateWithLeeway(expected, tokenLeeway)
}

// sign makes a token for a user.
func (i *Issuer) sign(user string, issued time.Time, access []scope) (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: i.key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", err
	}
	return jwt.Signed(signer).Claims(claims{
		Claims: jwt.Claims{
			Issuer:    tokenService,
			Audience:  jwt.Audience{tokenService},
			Subject:   user,
			IssuedAt:  jwt.NewNumericDate(issued),
			NotBefore: jwt.NewNumericDate(issued),
			Expiry:    jwt.NewNumericDate(issued.Add(tokenLife)),
			ID:        rand.Text(),
		},
		Access: access,
	}).Serialize()
}

// codedError is an error that has a word for it in RFC 6749, 5.2 or RFC 6750, 3.1.
type codedError struct {
	code string
	error
}

func (e *codedError) Unwrap() error { return e.error }

// quote writes a quoted-string (RFC 9110, 5.6.4).
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
