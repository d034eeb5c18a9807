package auth

import (
	"net/url"
	"slices"
	"sync"
	"time"
)

// maxTokens bounds the tokens that are kept for one origin; the oldest go first.
const maxTokens = 256

// origin is what was learnt about one scheme, host and port.
type origin struct {
	key  string // scheme and host, in lower case
	host string // as credentials are looked up for

	mu       sync.Mutex // mu guards the fields below
	last     *demand    // of the last challenge; nil before the first
	tokens   []*token   // newest first
	getRealm string     // the realm that took an identity token by GET and not by POST
}

// token is an access token, and what it serves.
type token struct {
	value   string
	realm   string
	service string
	scopes  []Scope
	expires time.Time // with the margin taken off
}

func (o *origin) learn(d *demand) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = d
}

// learned returns what the last challenge demanded, or nil.
func (o *origin) learned() *demand {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

// find returns a token that answers d for a request that needs need, or nil.
func (o *origin) find(d *demand, need []Scope, now time.Time) *token {
	if d.realm == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, tok := range o.tokens {
		if tok.answers(d) && now.Before(tok.expires) && covers(tok.scopes, need) {
			return tok
		}
	}
	return nil
}

// keep remembers a token, and drops those that have expired or that it can stand in for.
func (o *origin) keep(tok *token, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tokens = slices.DeleteFunc(o.tokens, func(old *token) bool {
		return !now.Before(old.expires) ||
			old.realm == tok.realm && old.service == tok.service && covers(tok.scopes, old.scopes)
	})
	o.tokens = slices.Insert(o.tokens, 0, tok)
	if len(o.tokens) > maxTokens {
		o.tokens = slices.Delete(o.tokens, maxTokens, len(o.tokens))
	}
}

// forget drops a token that the host has refused. Nil is none.
func (o *origin) forget(tok *token) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tokens = slices.DeleteFunc(o.tokens, func(t *token) bool { return t == tok })
}

func (o *origin) learnGetOnly(realm *url.URL) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.getRealm = realm.String()
}

func (o *origin) isGetOnly(realm *url.URL) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.getRealm == realm.String()
}

func (t *token) answers(d *demand) bool {
	return t.realm == d.realmText() && t.service == d.service
}
