package server

import (
	"crypto/subtle"
	"fmt"
	"net/http"

	"github.com/berthoci/berth"
)

// basicChallenge asks for user name and password (RFC 7617).
const basicChallenge = `Basic realm="berth", charset="UTF-8"`

// Token authorizes whoever shows a secret: as a bearer token, or as the password of any user, which
// is what clients can be given that know of passwords only.
func Token(secret string) Authorizer { return tokenAuthorizer(secret) }

type tokenAuthorizer string

func (t tokenAuthorizer) Authorize(r *http.Request, _ Access) error {
	shown, ok := bearer(r)
	if !ok {
		_, shown, _ = r.BasicAuth()
	}
	if t == "" || subtle.ConstantTimeCompare([]byte(shown), []byte(t)) != 1 {
		return fmt.Errorf("%w: show the session's token", berth.ErrUnauthorized)
	}
	return nil
}

func (t tokenAuthorizer) Challenge(*http.Request, Access, error) string { return basicChallenge }
