package auth

import (
	"context"
	"sync"
)

// maxRefreshes bounds the identity tokens that are followed for one origin.
const maxRefreshes = 16

// refresh is a stored identity token and what became of it. A server may give another one with each
// exchange, after which the one before is good for nothing (RFC 6749, 6), or even a sign of theft that
// ends them all (RFC 9700, 4.14.2). So exchanges go one after the other, each with the newest, until the
// server is known to leave it as it is.
type refresh struct {
	stored string
	turn   chan struct{} // full while an exchange goes on that may replace the newest

	mu     sync.Mutex // mu guards the fields below
	newest string
	steady bool // the last exchange has left it as it was
}

type refreshKey struct{ realm, stored string }

// refresh returns what became of a stored identity token at a realm.
func (o *origin) refresh(realm, stored string) *refresh {
	o.mu.Lock()
	defer o.mu.Unlock()
	key := refreshKey{realm, stored}
	if r, ok := o.refreshes[key]; ok {
		return r
	}
	if o.refreshes == nil || len(o.refreshes) == maxRefreshes {
		o.refreshes = make(map[refreshKey]*refresh)
	}
	r := &refresh{stored: stored, newest: stored, turn: make(chan struct{}, 1)}
	o.refreshes[key] = r
	return r
}

// begin waits for the exchanges that this one must come after, and returns the token for it. What it
// returns ends the exchange.
func (r *refresh) begin(ctx context.Context) (newest string, end func(), err error) {
	if newest, steady := r.state(); steady {
		return newest, func() {}, nil
	}
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		return "", nil, ctx.Err()
	}
	newest, steady := r.state()
	if steady {
		<-r.turn
		return newest, func() {}, nil
	}
	return newest, func() { <-r.turn }, nil
}

func (r *refresh) state() (newest string, steady bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.newest, r.steady
}

// learn takes in what the server gave in place of the token that was sent.
func (r *refresh) learn(sent, given string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steady = given == "" || given == sent
	if !r.steady {
		r.newest = given
	}
}

// instead returns what to try where the token that was sent is refused: one that has become known
// meanwhile, or else the stored one, which may be good after all. It returns "" where it was the latter.
func (r *refresh) instead(sent string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.newest == sent {
		r.newest, r.steady = r.stored, false
	}
	if r.newest == sent {
		return ""
	}
	return r.newest
}

// exchangeIdentity exchanges what became of the identity token of x.
func (t *Transport) exchangeIdentity(ctx context.Context, o *origin, x exchange) (*token, error) {
	r := o.refresh(x.realm.String(), x.cred.IdentityToken)
	newest, end, err := r.begin(ctx)
	if err != nil {
		return nil, x.fail(0, "", err)
	}
	defer end()
	x.cred.IdentityToken = newest
	tok, next, err := t.exchangePOST(ctx, x)
	if failedWith(err, refused) {
		if other := r.instead(newest); other != "" {
			x.cred.IdentityToken = other
			tok, next, err = t.exchangePOST(ctx, x)
		}
	}
	if err == nil {
		r.learn(x.cred.IdentityToken, next)
	}
	return tok, err
}
