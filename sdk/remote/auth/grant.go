package auth

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/berthoci/berth/internal/retry"
)

// grant is what one request is sent with.
type grant struct {
	header     string  // the value of Authorization; "" is none
	token      *token  // nil unless the header has one
	fresh      bool    // the token was got for this request
	scopes     []Scope // what the token was wanted for
	kept       uint64  // how many tokens the origin had kept by then
	credential string  // which credential is behind it
	direct     bool    // the credential itself is sent, so the registry judges it
	wasBare    bool    // the host has refused the same request without authorisation
	turnedDown error   // why the stored credential is not behind it
}

// outdated returns up to which of the origin's tokens none is better than the one that was refused: whatever
// ended that may have ended them.
func (g grant) outdated() uint64 {
	if g.token == nil || g.fresh {
		return 0
	}
	return g.kept
}

// wish is what a grant is asked for.
type wish struct {
	demand    *demand
	need      []Scope
	after     uint64 // kept tokens up to this one are not wanted
	anonymous bool   // the stored credential is not wanted
}

// grant returns what satisfies w. The header is empty if there is nothing to satisfy it with.
func (t *Transport) grant(ctx context.Context, o *origin, w wish) (grant, error) {
	if w.demand.scheme == schemeBasic {
		return t.grantBasic(ctx, o, w)
	}
	if tok := o.find(w, t.clock()); tok != nil {
		return o.grantToken(tok, w, false), nil
	}
	tok, err := t.exchanges.do(ctx, w.key(o), func(ctx context.Context) (*token, error) {
		return t.fetch(ctx, o, w)
	})
	if err != nil || tok == nil {
		return grant{}, err
	}
	return o.grantToken(tok, w, true), nil
}

// key tells apart the wishes that one token cannot serve.
func (w wish) key(o *origin) string {
	return strings.Join([]string{
		o.key, w.demand.realmText(), w.demand.service, scopeText(w.need),
		strconv.FormatUint(w.after, 10), strconv.FormatBool(w.anonymous),
	}, "\n")
}

func (o *origin) grantToken(tok *token, w wish, fresh bool) grant {
	return grant{
		header: "Bearer " + tok.value, token: tok, fresh: fresh, scopes: w.need, kept: o.count(),
		credential: tok.credential, direct: tok.direct, turnedDown: tok.turnedDown,
	}
}

func (t *Transport) grantBasic(ctx context.Context, o *origin, w wish) (grant, error) {
	if w.anonymous {
		return grant{credential: Credential{}.String()}, nil
	}
	cred, err := t.credential(ctx, o.host)
	if err != nil || cred.Username == "" && cred.Password == "" {
		return grant{}, err
	}
	pair := base64.StdEncoding.EncodeToString([]byte(cred.Username + ":" + cred.Password))
	return grant{header: "Basic " + pair, credential: cred.String(), direct: true}, nil
}

// fetch gets a token and keeps it. It looks for one first: the flight that was just over when this
// one began may have left it. A token that is itself the credential is not kept, for only its
// owner knows how long it is good.
func (t *Transport) fetch(ctx context.Context, o *origin, w wish) (*token, error) {
	if tok := o.find(w, t.clock()); tok != nil {
		return tok, nil
	}
	var cred Credential
	if !w.anonymous {
		var err error
		if cred, err = t.credential(WithScopes(ctx, w.need...), o.host); err != nil {
			return nil, err
		}
	}
	if cred.AccessToken != "" {
		return &token{value: cred.AccessToken, credential: cred.String(), direct: true}, nil
	}
	if w.demand.realm == nil {
		return nil, nil
	}
	tok, err := t.obtain(ctx, o, exchange{
		registry: o.host, realm: w.demand.realm, rule: w.demand.rule,
		service: w.demand.service, scopes: w.need, cred: cred,
	})
	if err != nil {
		return nil, err
	}
	o.keep(tok, t.clock())
	return tok, nil
}

// isForgivable reports whether the registry has turned down a credential itself, and what was asked of
// it may be public.
func (t *Transport) isForgivable(req *http.Request, resp *http.Response, g grant) bool {
	return t.AnonymousRetry && g.direct && isRefusal(resp.StatusCode) && !retry.HasBody(req) &&
		(req.Method == http.MethodGet || req.Method == http.MethodHead)
}

func isRefusal(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden
}

// forgive sends req once more, without the credential. Only an answer that is a success takes the
// place of the one that is there: that tells which credential to renew.
func (t *Transport) forgive(req *http.Request, resp *http.Response, o *origin, used grant) (*http.Response, grant) {
	d := o.learned()
	if d == nil || d.scheme == schemeBasic && used.wasBare {
		return resp, used
	}
	w := wish{demand: d, need: needed(req.Context(), d), after: used.kept, anonymous: true}
	if !onlyPull(w.need) {
		return resp, used
	}
	settle(resp)
	g, err := t.grant(req.Context(), o, w)
	if err != nil || g.header == "" && d.scheme != schemeBasic {
		return resp, used
	}
	second, err := t.send(req.Context(), req, g.header)
	if err != nil {
		return resp, used
	}
	if second.StatusCode >= 400 {
		second.Body.Close()
		return resp, used
	}
	resp.Body.Close()
	g.turnedDown = fmt.Errorf("%s refused %s with status %d", o.host, used.credential, resp.StatusCode)
	return second, g
}
