// Package retry is what doing something once more takes: to wait for the right moment, and to have a request with its body from
// the start.
//
//	if retry.Possible(req) && retry.Wait(ctx, pause) == nil {
//		req, err = retry.Request(req)
//	}
package retry

import (
	"context"
	"net/http"
	"time"
)

// Wait returns when so much time has passed, or with ctx.Err() when the context ends before that. Nothing is waited for where d is
// not positive.
func Wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// HasBody reports whether a request has one.
func HasBody(req *http.Request) bool { return req.Body != nil && req.Body != http.NoBody }

// CloseBody closes the body of a request that is not sent, as a RoundTripper must.
func CloseBody(req *http.Request) {
	if req.Body != nil {
		req.Body.Close()
	}
}

// Possible reports whether a request can be sent once more: it has no body, or one that GetBody returns anew.
func Possible(req *http.Request) bool { return !HasBody(req) || req.GetBody != nil }

// Request is a request with its body from the start, for which it must be Possible. One without a body is returned as it is.
//
// Errors: those of GetBody.
func Request(req *http.Request) (*http.Request, error) {
	if !HasBody(req) {
		return req, nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, err
	}
	fresh := req.WithContext(req.Context())
	fresh.Body = body
	return fresh, nil
}
