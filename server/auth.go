package server

import (
	"net/http"
	"strings"

	"github.com/berthoci/berth/internal/ocirequest"
)

// Authorizer decides whether a request may do what it asks for. Its methods may run at once.
//
// What it can do beyond that is found by type: see [TokenServer] and [ClassAuthorizer].
type Authorizer interface {
	// Authorize returns nil, berth.ErrUnauthorized if it does not know who asks or if another
	// token would be let in, berth.ErrDenied if none would, or berth.ErrTooManyRequests.
	Authorize(r *http.Request, access Access) error
	// Challenge is the WWW-Authenticate header (RFC 9110, 11.6.1) for a request that is answered
	// with 401. The reason is what Authorize has returned.
	Challenge(r *http.Request, access Access, reason error) string
}

// TokenServer is an [Authorizer] that gives the tokens itself that its challenges ask for: it answers
// at [TokenPath]. The name by which a client calls the server is checked before, as for all requests.
type TokenServer interface {
	ServeToken(w http.ResponseWriter, r *http.Request)
}

// ClassAuthorizer is an [Authorizer] that also decides which classes of manifests may be pushed.
type ClassAuthorizer interface {
	// AuthorizeClass is asked about a push that Authorize has let in, once the manifest is known.
	// The class is what manifest.Document.Class returns, in lower case.
	//
	// Errors: berth.ErrDenied.
	AuthorizeClass(r *http.Request, repository, class string) error
}

// Access is what a request asks for.
type Access struct {
	// Repository is empty for what concerns the whole registry.
	Repository string
	// Action is "pull", "push", "delete", or "catalog"; empty for a mere knock at /v2/.
	Action string
	// From is the repository that a mount would like to take its blob from. It need not be allowed:
	// without it the mount becomes an upload. A challenge asks for it along with the rest.
	From string
}

// scope is what a token needs to have for this, as distribution's "Token Scope Documentation" writes it.
// Who pushes also looks, so one token is asked for that serves both.
func (a Access) scope() string {
	switch {
	case a.Action == "catalog":
		return "registry:catalog:*"
	case a.Action == "" || a.Repository == "":
		return ""
	case a.Action != "push":
		return "repository:" + a.Repository + ":" + a.Action
	}
	text := "repository:" + a.Repository + ":pull,push"
	if a.From != "" && a.From != a.Repository {
		text += " repository:" + a.From + ":pull"
	}
	return text
}

func (c *call) authorize() error {
	if c.opts.Authorizer == nil {
		return nil
	}
	access := Access{Repository: c.req.Repository, Action: actionOf(c.req.Kind), From: c.req.From}
	err := c.opts.Authorizer.Authorize(c.r, access)
	if err == nil {
		return nil
	}
	if statusOf(err) == http.StatusUnauthorized {
		c.w.Header().Set("WWW-Authenticate", c.opts.Authorizer.Challenge(c.r, access, err))
	}
	return err
}

func actionOf(kind ocirequest.Kind) string {
	switch {
	case kind == ocirequest.Ping:
		return ""
	case kind == ocirequest.Catalog:
		return "catalog"
	case kind == ocirequest.BlobDelete || kind == ocirequest.ManifestDelete:
		return "delete"
	case writes(kind):
		return "push"
	}
	return "pull"
}

// mayPull reports whether this request's sender may pull from a repository, with what was shown for the
// request: a token that does not name the repository does not allow it, whoever it was given to.
func (c *call) mayPull(repository string) bool {
	if c.opts.Authorizer == nil {
		return true
	}
	return c.opts.Authorizer.Authorize(c.r, Access{Repository: repository, Action: "pull"}) == nil
}

// judgesClasses reports whether it matters which class a manifest is of.
func (c *call) judgesClasses() bool {
	_, byWho := c.opts.Authorizer.(ClassAuthorizer)
	return byWho || len(c.opts.Policy.Allow)+len(c.opts.Policy.Deny) > 0
}

// checkClass reports whether manifests of a class may be pushed to the request's repository: at all, and
// by who sent the request.
//
// Errors: berth.ErrDenied.
func (c *call) checkClass(class string) error {
	if err := c.opts.Policy.check(class); err != nil {
		return err
	}
	if by, ok := c.opts.Authorizer.(ClassAuthorizer); ok {
		return by.AuthorizeClass(c.r, c.req.Repository, class)
	}
	return nil
}

// bearer returns the bearer token that a request shows (RFC 6750, 2.1). The scheme is compared without
// case (RFC 9110, 11.1).
func bearer(r *http.Request) (token string, ok bool) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	return token, ok && strings.EqualFold(scheme, "Bearer")
}
