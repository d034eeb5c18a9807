package auth

import (
	"context"
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

	mu        sync.Mutex // mu guards the fields below
	last      *demand    // of the last challenge; nil before the first
	tokens    []*token   // newest first
	kept      uint64     // how many tokens were ever kept
	getRealm  string     // the realm that took an identity token by GET and not by POST
	refreshes map[refreshKey]*refresh
	met       bool          // a request was answered
	scout     chan struct{} // closed when the first request is back; nil: there is none under way
}

// scoutTime is how long the first request to a host holds back the others.
const scoutTime = time.Second

// meet lets one request go ahead to a host that has not said yet whether it wants authorisation: what the others would be told too
// is asked once. Its sender calls back.
func (o *origin) meet(ctx context.Context) {
	timer := time.NewTimer(scoutTime)
	defer timer.Stop()
	for {
		under := o.begin()
		if under == nil {
			return
		}
		select {
		case <-under:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// begin returns what is closed when the first request is back, or nil where there is nothing to wait for.
func (o *origin) begin() (under chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.met || o.scout != nil {
		return o.scout
	}
	o.scout = make(chan struct{})
	return nil
}

// back notes that a request is back, and whether the host has answered it.
func (o *origin) back(answered bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.met = o.met || answered
	if o.scout != nil {
		close(o.scout)
		o.scout = nil
	}
}

// token is an access token, and what it serves.
type token struct {
	value   string
	realm   string
	service string
	scopes  []Scope
	expires time.Time // with the margin taken off

	credential string // which credential it was given for
	direct     bool   // it is itself that credential
	turnedDown error  // why the stored credential is not the one
	number     uint64 // of the tokens that its origin has kept, from 1
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

// find returns a token that grants w, or nil.
func (o *origin) find(w wish, now time.Time) *token {
	if w.demand.realm == nil {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, tok := range o.tokens {
		if tok.number > w.after && tok.answers(w.demand) && now.Before(tok.expires) && covers(tok.scopes, w.need) {
			return tok
		}
	}
	return nil
}

// count returns how many tokens were kept so far.
func (o *origin) count() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.kept
}

// keep remembers a token, and drops those that have expired or that it can stand in for.
func (o *origin) keep(tok *token, now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tokens = slices.DeleteFunc(o.tokens, func(old *token) bool {
		return !now.Before(old.expires) ||
			old.realm == tok.realm && old.service == tok.service && covers(tok.scopes, old.scopes)
	})
	o.kept++
	tok.number = o.kept
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
